package catalog

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"voltar/internal/say"
)

// Guest is the machine or container whose disk a volume was when its backup was made.
type Guest struct {
	ID   string `json:"id"`             // libvirt: UUID; Proxmox VE: VMID; else as the configured command has it
	Name string `json:"name"`           // as people call it
	Kind string `json:"kind,omitempty"` // libvirt, proxmox-vm, proxmox-ct, command
	Disk string `json:"disk,omitempty"` // vda, scsi0, rootfs

	Alias string `json:"alias,omitempty"` // its other name: libvirt's, where OpenStack's tenant gave it one
}

// IsVMID tells whether a text is the ID of a guest of Proxmox VE, of which a restore makes the name of a file.
func IsVMID(text string) bool { return vmidPattern.MatchString(text) }

var vmidPattern = regexp.MustCompile(`^[1-9][0-9]{2,8}$`)

// GuestPrefix before a guest's name says that no volume is meant.
const GuestPrefix = "@guest/"

// String names the disk: "web1:vda".
func (g Guest) String() string {
	if g.Disk == "" {
		return g.Name
	}
	return g.Name + ":" + g.Disk
}

// IsZero tells whether nobody knew a guest.
func (g Guest) IsZero() bool { return g == Guest{} }

func (g Guest) check() error {
	for _, text := range []string{g.ID, g.Name, g.Kind, g.Disk, g.Alias} {
		if len(text) > maxIDBytes {
			return fmt.Errorf("%.20q… is longer than any name of a guest", text)
		}
	}
	if strings.HasPrefix(g.Kind, "proxmox-") && !IsVMID(g.ID) {
		return fmt.Errorf("%q is no VMID of Proxmox VE, as a guest of it has", g.ID)
	}
	return nil
}

// GuestNames are what a word may mean among guests: a guest, with or without a disk of it. The first that is one counts.
func GuestNames(word string) []Guest {
	word = strings.TrimPrefix(word, GuestPrefix)
	if word == "" {
		return nil
	}
	names := []Guest{{Name: word}}
	if at := strings.LastIndexByte(word, ':'); at > 0 && at < len(word)-1 {
		names = append(names, Guest{Name: word[:at], Disk: word[at+1:]})
	}
	return names
}

// OfGuest returns the backups of the guest that a word names: of the volumes whose backups say that they are disks of it, under whatever
// name it had then. Backups of those volumes that say nothing of a guest are among them, and those that were another guest's are not. A
// name is rather that of a guest which has it by its newest backup, and last an alias. An error says that the word names several guests;
// no guest of the name has no backups.
func OfGuest(entries []Entry, word string) ([]Entry, error) {
	for _, name := range GuestNames(word) {
		byID := func(g Guest) bool { return g.ID == name.Name }
		byName := func(g Guest) bool { return g.Name == name.Name && g.ID != "" }
		byAlias := func(g Guest) bool { return g.Alias == name.Name && g.ID != "" }
		for _, look := range []struct {
			in []Entry
			is func(Guest) bool
		}{{entries, byID}, {newestOf(entries), byName}, {entries, byName}, {entries, byAlias}} {
			ids, of := map[string]bool{}, map[Identity]bool{}
			for _, e := range look.in {
				if look.is(e.Guest) && (name.Disk == "" || e.Guest.Disk == name.Disk) {
					ids[e.Guest.key()], of[e.Identity] = true, true
				}
			}
			if len(ids) > 1 {
				return nil, severalGuests(word, ids)
			}
			if len(of) > 0 {
				return slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool {
					return !of[e.Identity] || !e.Guest.IsZero() && !ids[e.Guest.key()]
				}), nil
			}
		}
	}
	return nil, nil
}

// OfGuestAt is OfGuest of "GUEST[@TIME]". TIME may be cut short where it means one run, whose backups of the guest are returned.
func OfGuestAt(entries []Entry, text string) ([]Entry, error) {
	name, when := cutTime(text)
	of, err := OfGuest(entries, name)
	if when == "" || err != nil {
		return of, err
	}
	runs := map[string]string{} // with the time of one of its backups
	for _, e := range of {
		if at := FormatTime(e.ID.Time); strings.HasPrefix(at, when) {
			runs[e.Run] = at
		}
	}
	if len(runs) > 1 {
		return nil, say.WithHint(fmt.Errorf("%w: %q fits more than one run", ErrNotFound, text),
			"say which: "+some(slices.Sorted(maps.Values(runs))))
	}
	return slices.DeleteFunc(of, func(e Entry) bool { _, isOf := runs[e.Run]; return !isOf }), nil
}

// key tells guests apart.
func (g Guest) key() string { return g.Kind + " " + g.ID }

// newestOf are the newest of the backups of each volume.
func newestOf(entries []Entry) []Entry {
	newest := map[Identity]Entry{}
	for _, e := range entries {
		if have, known := newest[e.Identity]; !known || e.ID.Time.After(have.ID.Time) {
			newest[e.Identity] = e
		}
	}
	return slices.Collect(maps.Values(newest))
}

// severalGuests is the error of a name that several guests have; ids are their kinds and IDs.
func severalGuests(word string, ids map[string]bool) error {
	var list []string
	for id := range ids {
		_, id, _ = strings.Cut(id, " ")
		list = append(list, id)
	}
	slices.Sort(list)
	return say.WithHint(fmt.Errorf("%w: %q is the name of several guests", ErrNotFound, word), "say which, by its ID: "+some(list))
}

// disksOf are the volumes of some backups, with the names that the newest of each has for it: "web1:vda (vg/lv)".
func disksOf(entries []Entry) (refs []Ref, names []string) {
	newest := map[Ref]Entry{}
	for _, e := range entries {
		if have, known := newest[e.ID.Ref]; !known || e.ID.Time.After(have.ID.Time) {
			newest[e.ID.Ref] = e
		}
	}
	for ref := range newest {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, func(a, b Ref) int { return cmp.Compare(a.String(), b.String()) })
	for _, ref := range refs {
		names = append(names, fmt.Sprintf("%s (%s)", newest[ref].Guest, ref))
	}
	return refs, names
}
