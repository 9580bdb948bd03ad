package catalog

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"voltar/internal/store"
)

// TimeLayout is how the TIME of a backup is written: UTC, whole seconds, without colons, which some file systems and
// shells do not bear.
const TimeLayout = "2006-01-02T150405Z"

// Ref names a source of backups: "VG/LV", or "@dump/NAME", "@directory/NAME", "@stream/NAME".
type Ref struct {
	Kind SourceKind
	VG   string // of volumes only
	Name string
}

// VolumeRef is the Ref of a logical volume.
func VolumeRef(vg, lv string) Ref {
	return Ref{Kind: SourceVolume, VG: vg, Name: lv}
}

// String is the name for people, and the path below the host's folder.
func (r Ref) String() string {
	if r.Kind == SourceVolume {
		return r.VG + "/" + r.Name
	}
	return "@" + string(r.Kind) + "/" + r.Name
}

// lvmName is what lvm2 takes as the name of a volume or a group; "." and ".." apart (lvm(8), "Valid names").
var lvmName = regexp.MustCompile(`^[a-zA-Z0-9+_.][a-zA-Z0-9+_.-]*$`)

// Check refuses names that could not come from LVM or a configuration, or that would lead elsewhere as a path.
func (r Ref) Check() error {
	switch r.Kind {
	case SourceVolume:
		for _, name := range []string{r.VG, r.Name} {
			if !lvmName.MatchString(name) || name == "." || name == ".." || len(name) > 127 {
				return fmt.Errorf("cannot take %q as the name of a volume or volume group", name)
			}
		}
		return nil
	case SourceDirectory, SourceDump, SourceStream:
		if err := checkSegment(r.Name); err != nil {
			return fmt.Errorf("cannot take %q as the name of a %s: %w", r.Name, r.Kind, err)
		}
		return nil
	default:
		return fmt.Errorf("cannot take %q as a kind of source", r.Kind)
	}
}

// ParseRef reads what Ref.String writes.
func ParseRef(text string) (Ref, error) {
	first, name, ok := strings.Cut(text, "/")
	if !ok {
		return Ref{}, fmt.Errorf("cannot read %q as VG/LV", text)
	}
	ref := VolumeRef(first, name)
	if kind, ok := strings.CutPrefix(first, "@"); ok {
		ref = Ref{Kind: SourceKind(kind), Name: name}
		if ref.Kind == SourceVolume {
			return Ref{}, fmt.Errorf("cannot read %q: a volume is written VG/LV", text)
		}
	}
	if err := ref.Check(); err != nil {
		return Ref{}, err
	}
	return ref, nil
}

// ID names one backup: a source and the second of its snapshot.
type ID struct {
	Ref  Ref
	Time time.Time // UTC, whole seconds
}

// String is "VG/LV@TIME".
func (id ID) String() string {
	return id.Ref.String() + "@" + FormatTime(id.Time)
}

// Path is the key of the backup's folder: HOST/VG/LV/TIME.
func (id ID) Path(host string) string {
	return path.Join(host, id.Ref.String(), FormatTime(id.Time))
}

// Compare orders by source, then by time, the oldest first.
func (id ID) Compare(other ID) int {
	if id.Ref != other.Ref {
		if order := strings.Compare(id.Ref.String(), other.Ref.String()); order != 0 {
			return order
		}
	}
	return id.Time.Compare(other.Time)
}

// FormatTime writes the TIME of a backup.
func FormatTime(t time.Time) string {
	return t.UTC().Format(TimeLayout)
}

// ParseTime reads the TIME of a backup, in the one form that FormatTime writes.
func ParseTime(text string) (time.Time, error) {
	t, err := time.Parse(TimeLayout, text)
	if err != nil || FormatTime(t) != text {
		return time.Time{}, fmt.Errorf("cannot read %q as the time of a backup, which looks like %s", text, TimeLayout)
	}
	return t, nil
}

// cutTime cuts "VOLUME@TIME" at its last "@"; one at the beginning belongs to the name.
func cutTime(text string) (name, when string) {
	if i := strings.LastIndexByte(text, '@'); i > 0 {
		return text[:i], text[i+1:]
	}
	return text, ""
}

// ParsePath reads what ID.Path writes.
func ParsePath(folder string) (host string, id ID, err error) {
	parts := strings.Split(folder, "/")
	if len(parts) != 4 {
		return "", ID{}, fmt.Errorf("cannot read %q as the path of a backup, which is HOST/VG/LV/TIME", folder)
	}
	if err := CheckHost(parts[0]); err != nil {
		return "", ID{}, err
	}
	if id.Ref, err = ParseRef(parts[1] + "/" + parts[2]); err != nil {
		return "", ID{}, err
	}
	if id.Time, err = ParseTime(parts[3]); err != nil {
		return "", ID{}, err
	}
	return parts[0], id, nil
}

// CheckHost refuses what cannot be the name of a host's folder.
func CheckHost(host string) error {
	if err := checkSegment(host); err != nil {
		return fmt.Errorf("cannot take %q as the name of a host: %w", host, err)
	}
	return nil
}

// maxNameBytes leaves room in a file's name for what voltar appends to a source's.
const maxNameBytes = 127

// checkSegment is for names that people give: one segment of a key, which no shell command takes for an option and
// nobody for a hidden file, and without "@", which has its meaning in identities.
func checkSegment(name string) error {
	switch {
	case strings.ContainsAny(name, "/@"):
		return fmt.Errorf("it holds a slash or an %q", "@")
	case strings.HasPrefix(name, "-"), strings.HasPrefix(name, "."):
		return fmt.Errorf("it begins with %q", name[:1])
	case len(name) > maxNameBytes:
		return fmt.Errorf("it is longer than %d bytes", maxNameBytes)
	}
	return store.CheckKey(name)
}

// CheckFileName refuses names of a backup's files that could lead out of its folder or be mistaken for something else.
// Readers take file names from manifests, which are not to be trusted: others may be able to write to the store.
func CheckFileName(name string) error {
	reason := ""
	switch {
	case name == "" || name == "." || name == "..":
		reason = "it names a folder"
	case strings.Contains(name, "/"):
		reason = "it holds a slash"
	case strings.HasPrefix(name, "-"):
		reason = "commands would take it for an option"
	case !utf8.ValidString(name):
		reason = "it is not UTF-8"
	}
	if reason != "" {
		return fmt.Errorf("cannot take %q as the name of a file: %s", name, reason)
	}
	return store.CheckKey(name)
}

// Identity tells sources apart for good: two volumes that had one name one after the other are two, and one that was
// renamed stays one.
type Identity string

// VolumeIdentity is that of a logical volume. The group's UUID is part of it, because a cloned group (vgimportclone)
// has the LV UUIDs of its original.
func VolumeIdentity(vgUUID, lvUUID string) Identity {
	return Identity(vgUUID + "/" + lvUUID)
}

// VGUUID is that of the group of a volume; of other sources it is the kind.
func (i Identity) VGUUID() string {
	vg, _, _ := strings.Cut(string(i), "/")
	return vg
}

// Identity of what was backed up. All but volumes have none but their name.
func (s Source) Identity() Identity {
	if s.Kind == SourceVolume {
		return VolumeIdentity(s.VGUUID, s.LVUUID)
	}
	return Identity(s.Ref().String())
}

// Ref of what was backed up.
func (s Source) Ref() Ref {
	return Ref{Kind: s.Kind, VG: s.VG, Name: s.Name}
}
