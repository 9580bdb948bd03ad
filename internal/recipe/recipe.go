// Package recipe writes RESTORE.txt: how one backup is brought back with nothing but standard tools, with its real names
// and commands. It is pure. Lines that begin with four spaces are commands for a POSIX shell, run as root from top to
// bottom; whatever came from a guest is quoted in them.
package recipe

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"unicode/utf8"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/probe"
	"voltar/internal/say"
)

// Options say what the manifest does not.
type Options struct {
	Signed bool // manifest.json.sig will lie beside the manifest
}

// Text returns the recipe of a backup.
func Text(m *catalog.Manifest, opts Options) []byte {
	var text bytes.Buffer
	if err := page.Execute(&text, view{m, opts}); err != nil {
		panic(err) // the template and the view are both ours
	}
	return text.Bytes()
}

// view offers a manifest to the template.
type view struct {
	*catalog.Manifest
	Options
}

// Target is the device that the recipe restores to.
func (v view) Target() string {
	return say.ShellWord("/dev/" + v.Source.VG + "/" + v.Source.Name)
}

func (v view) IsVolume() bool { return v.Source.Kind == catalog.SourceVolume }

// IsStream says that the backup is the output of a command, and nothing else.
func (v view) IsStream() bool {
	return v.Source.Kind == catalog.SourceDump || v.Source.Kind == catalog.SourceStream
}

// UsesMke2fs says that a filesystem is made by mke2fs, which is given no configuration and remarks on that.
func (v view) UsesMke2fs() bool {
	return slices.ContainsFunc(v.Extents, func(x catalog.Extent) bool {
		return x.State == catalog.StateFiles && x.Filesystem != nil && strings.HasPrefix(x.Filesystem.Type, "ext")
	})
}

func (v view) Checksum() string { return say.ShellWord(v.Names().Checksum()) }

// SizeBytes is how large the target has to be: more than the volume was, where its files shared data that tar unpacks to each of
// them.
func (v view) SizeBytes() int64 {
	if v.Table == nil && len(v.Extents) == 1 {
		return max(v.Source.SizeBytes, v.Extents[0].ByHandBytes())
	}
	return v.Source.SizeBytes
}

// Make is the command that makes the volume anew.
func (v view) Make() string {
	if v.Source.ThinPool != "" {
		return fmt.Sprintf("lvcreate --yes --wipesignatures y --thin --virtualsize %db --name %s %s", v.SizeBytes(), say.ShellWord(v.Source.Name),
			say.ShellWord(v.Source.VG+"/"+v.Source.ThinPool))
	}
	return fmt.Sprintf("lvcreate --yes --wipesignatures y --zero y --size %db --name %s %s",
		v.SizeBytes(), say.ShellWord(v.Source.Name), say.ShellWord(v.Source.VG))
}

// LoopSectors is the option that gives the target the sector size of its table: sfdisk counts in those of the device.
func (v view) LoopSectors() string {
	if v.Table == nil || v.Table.SectorBytes == 512 && (v.Source.LogicalSector == 0 || v.Source.LogicalSector == 512) {
		return ""
	}
	return fmt.Sprintf(" --sector-size %d", v.Table.SectorBytes)
}

// Sfdisk is the command that writes the partition table and nothing else.
func (v view) Sfdisk() string {
	const sfdisk = `sfdisk --quiet --wipe never --wipe-partitions never --no-reread --no-tell-kernel "$DISK"`
	if table := v.Names().Table(); isEncrypted(table) {
		return decrypted(table) + " | " + sfdisk
	}
	return sfdisk + " < " + say.ShellWord(v.Names().Table())
}

// TableIsWhole says that the images hold a table that sfdisk could only write in part.
func (v view) TableIsWhole() bool {
	for _, s := range v.Outside() {
		if !s.IsImage() {
			return false
		}
	}
	return len(v.Table.Losses) > 0
}

// TableLosses says what sfdisk cannot write.
func (v view) TableLosses() string { return say.Clean(strings.Join(v.Table.Losses, "; ")) }

// Steps are the extents, in the order in which they are written: images outside of partitions first, because the table
// is written over them.
func (v view) Outside() []step {
	return v.steps(func(e catalog.Extent) bool { return e.Number == 0 && e.LV == nil && v.Table != nil })
}

// Inside are the partitions, or the whole volume where there are none.
func (v view) Inside() []step {
	return v.steps(func(e catalog.Extent) bool { return e.Number != 0 || e.LV != nil || v.Table == nil })
}

func (v view) steps(wanted func(catalog.Extent) bool) []step {
	var list []step
	for _, e := range v.Extents {
		if wanted(e) {
			list = append(list, step{e, v.Source.SizeBytes})
		}
	}
	return list
}

// step is one extent to bring back.
type step struct {
	catalog.Extent
	volumeBytes int64
}

// Title says what the step is about; what a guest chose is shown, not run.
func (s step) Title() string {
	title := "the whole volume"
	if s.Name != "" {
		title = s.Name
	}
	if s.Filesystem != nil {
		title += ": " + say.Clean(s.Filesystem.Type)
		if s.Filesystem.Label != "" {
			title += ", label " + say.Clean(fmt.Sprintf("%q", s.Filesystem.Label))
		}
	}
	if s.LV != nil {
		title += fmt.Sprintf(", the guest's logical volume %s/%s", say.Clean(s.LV.VG), say.Clean(s.LV.Name))
	}
	if s.Reason != "" {
		title += " (" + say.Clean(s.Reason) + ")"
	}
	return title
}

func (s step) IsFiles() bool { return s.State == catalog.StateFiles }

// IsImage says that a file is to be copied to where the extent begins: all of it, or the head of a physical volume.
func (s step) IsImage() bool { return s.State == catalog.StateImage || s.State == catalog.StateLVM }
func (s step) IsSwap() bool  { return s.State == catalog.StateSwap }

// Inflated is the command that writes out what is stored of the extent.
func (s step) Inflated() string { return inflated(s.Archive) }

// Type is the kernel's word for it.
func (s step) Type() string {
	return say.ShellWord(s.Filesystem.Type)
}

// Notes say what will differ from the original.
func (s step) Notes() []string {
	var notes []string
	if needed := s.ByHandBytes(); needed > 0 && !s.isWhole() {
		notes = append(notes, fmt.Sprintf("its files share data, which tar unpacks to each of them: %d bytes are needed, and it has %d.",
			needed, s.SizeBytes),
			"make it that large in table and commands, or use voltar, which has them share again.")
	} else if needed > 0 {
		notes = append(notes, fmt.Sprintf("its files share data, which tar unpacks to each of them: it becomes larger, %d bytes instead of %d.",
			needed, s.SizeBytes))
	}
	if s.LongPaths > 0 {
		notes = append(notes, longPathsNote(s.Extent))
	}
	if s.Filesystem != nil && (s.IsFiles() || s.IsSwap()) {
		for _, note := range s.Filesystem.MkfsNotes {
			notes = append(notes, say.Clean(note))
		}
	}
	return notes
}

// isWhole says that the extent is all of a volume.
func (s step) isWhole() bool { return s.Name == "" && s.OffsetBytes == 0 }

// Grow are the commands that make a mounted filesystem fill its device, where that is larger than it was.
func (s step) Grow() []string {
	switch {
	case s.ByHandBytes() == 0 || !s.isWhole():
		return nil
	case s.Filesystem.Type == "btrfs":
		return []string{`btrfs filesystem resize max "$MNT"`}
	case s.Filesystem.Type == "xfs":
		return []string{`xfs_growfs "$MNT"`}
	}
	return nil
}

// MountOptions are those without which the mount fails beside the original, or shows other names and times.
func (s step) MountOptions() string {
	switch s.Filesystem.Type {
	case "xfs":
		return " -o nouuid"
	case "vfat":
		return " -o utf8,tz=UTC,umask=022"
	case "btrfs":
		return " -o subvolid=5" // whatever its default will be
	}
	return ""
}

// Unpack are the commands that bring the files back. FAT has no owners and attributes, and tar would fail to set
// them.
func (s step) Unpack() []string {
	if s.Filesystem.Type == "vfat" {
		return unpackInto(`"$MNT"`, "--no-same-owner", s.Extent)
	}
	return unpackInto(`"$MNT"`, allAttributes, s.Extent)
}

const allAttributes = `--xattrs --xattrs-include='*' --acls --numeric-owner`

// unpackInto are the commands that unpack an archive into a folder, which is a word of the shell. GNU tar cannot unpack paths of
// archive.LongPathBytes and more, nor make hard links to such, and would fail at them. The first are left out; the links are made to a
// file that stands in for what is left out, and go with it. In the locale C each question mark and dot stands for a byte.
func unpackInto(folder, options string, x catalog.Extent) []string {
	tar := fmt.Sprintf("tar %s -C %s -xzpf", options, folder)
	if x.LongPaths == 0 {
		return []string{unpacked(tar, x.Archive)}
	}
	const without = `LC_ALL=C tar --exclude="$(printf '?%%.0s' $(seq %[1]d))*" --transform="s,^.\{%[1]d\}.*,${LEFT_OUT##*/},RS"`
	tar = fmt.Sprintf(without, archive.LongPathBytes) + strings.TrimPrefix(tar, "tar")
	return []string{
		"LEFT_OUT=$(mktemp -p " + folder + ")",
		unpacked(tar, x.Archive),
		"find " + folder + ` -xdev -samefile "$LEFT_OUT" -delete`,
	}
}

// longPathsNote says what a person has to know of that.
func longPathsNote(x catalog.Extent) string {
	return fmt.Sprintf("%d of its files and folders have paths of %d bytes and more, or are hard links to such, which GNU tar cannot unpack: "+
		"they are left out.", x.LongPaths, archive.LongPathBytes)
}

// BootCode are the commands that bring back what boot loaders have in a filesystem's first sectors. What mkfs has
// written there stays.
func (s step) BootCode() []string {
	if s.BootArea == "" || s.Filesystem == nil {
		return nil
	}
	fs, err := probe.FromParams(s.Filesystem.Type, s.Filesystem.Params)
	if err != nil {
		return nil // it was made by parameters that are not known: no manifest of ours
	}
	var commands []string
	for _, r := range fs.BootCodeRanges() {
		commands = append(commands, fmt.Sprintf(`%s | dd of="$LOOP" bs=1M iflag=fullblock,skip_bytes,count_bytes `+
			`oflag=seek_bytes skip=%d seek=%[2]d count=%[3]d conv=notrunc,fsync status=none`,
			inflated(s.BootArea), r.OffsetBytes, r.SizeBytes))
	}
	return commands
}

// Mkfs are the commands that make the filesystem, with the loop device in the place of DEVICE.
func (s step) Mkfs() []string { return s.commands(s.Filesystem.Mkfs) }

// MkfsLast are those for when it was filled and unmounted.
func (s step) MkfsLast() []string { return s.commands(s.Filesystem.MkfsLast) }

func (s step) commands(list [][]string) []string {
	var commands []string
	for _, argv := range list {
		device := probe.DeviceIn(argv)
		var words []string
		for _, setting := range s.Filesystem.MkfsEnv {
			key, value, _ := strings.Cut(setting, "=")
			words = append(words, key+"="+say.ShellWord(value))
		}
		for i, word := range argv {
			if i == device {
				words = append(words, `"$LOOP"`)
				continue
			}
			before, word := shellWord(fmt.Sprintf("WORD%d", i), word)
			words = append(words, word)
			commands = append(commands, before...)
		}
		commands = append(commands, strings.Join(words, " "))
	}
	return commands
}

// InPieces says that an image goes to ranges that lie apart.
func (s step) InPieces() bool { return s.State == catalog.StateImage && s.LV != nil }

// HasTail says that a physical volume has metadata at its end too.
func (s step) HasTail() bool { return s.PV != nil && s.PV.Tail != "" }

func (s step) InflatedTail() string { return inflated(s.PV.Tail) }

// TailOffset is in the volume, as all offsets.
func (s step) TailOffset() int64 { return s.OffsetBytes + s.SizeBytes - s.PV.TailBytes }

// Open are the commands that give the extent a device of its own, $LOOP.
func (s step) Open() []string {
	if s.LV == nil {
		size := s.SizeBytes
		if s.isWhole() {
			size = max(size, s.ByHandBytes())
		}
		return []string{fmt.Sprintf(`LOOP=$(losetup --find --show --offset %d --sizelimit %d "$TARGET")`, s.OffsetBytes, size)}
	}
	var lines []string
	const sectorBytes = 512 // device-mapper's unit
	start := int64(0)
	for _, segment := range s.LV.Segments {
		line := fmt.Sprintf("%d %d linear", start/sectorBytes, segment.SizeBytes/sectorBytes)
		if n := len(segment.Offsets); n > 1 {
			line = fmt.Sprintf("%d %d striped %d %d", start/sectorBytes, segment.SizeBytes/sectorBytes, n, segment.StripeBytes/sectorBytes)
		}
		for _, offset := range segment.Offsets {
			line += fmt.Sprintf(" $TARGET %d", offset/sectorBytes)
		}
		lines = append(lines, `"`+line+`"`)
		start += segment.SizeBytes
	}
	return []string{`printf '%s\n' ` + strings.Join(lines, " ") + " | dmsetup create voltar-restore --noudevrules",
		"dmsetup mknodes voltar-restore", "LOOP=/dev/mapper/voltar-restore"}
}

// Close are those that take it away again.
func (s step) Close() []string {
	if s.LV == nil {
		return []string{`losetup -d "$LOOP"`}
	}
	return []string{"dmsetup remove voltar-restore", "dmsetup mknodes"}
}

// MakeSubvolumes are the commands that make the subvolumes of btrfs before its files are unpacked.
func (s step) MakeSubvolumes() (commands []string) {
	for _, sub := range s.Filesystem.Subvolumes {
		before, name := shellWord("WORD", sub.Name())
		commands = append(append(commands, before...), `mkdir -p "$(dirname "$MNT"/`+name+`)"`, `btrfs subvolume create "$MNT"/`+name)
	}
	return commands
}

// FinishSubvolumes are those that make them what they were when the files are there.
func (s step) FinishSubvolumes() (commands []string) {
	for _, sub := range s.Filesystem.Subvolumes {
		before, name := shellWord("WORD", sub.Name())
		if sub.Default {
			commands = append(append(commands, before...), `btrfs subvolume set-default "$MNT"/`+name)
		}
		if sub.ReadOnly {
			commands = append(append(commands, before...), `btrfs property set -t subvol "$MNT"/`+name+` ro true`)
		}
	}
	return commands
}

// shellWord returns what stands for a text in a command on one line, and what has to come before that in lines of its own.
func shellWord(variable, text string) (before []string, word string) {
	if !strings.ContainsFunc(text, isControl) && utf8.ValidString(text) {
		return nil, say.ShellWord(text)
	}
	// A newline within quotes would end the line of the recipe, and "$(…)" drops those at its end.
	set := fmt.Sprintf("%s=$(printf %%b '%sx'); %s=${%s%%x}", variable, octal(text), variable, variable)
	return []string{set}, `"$` + variable + `"`
}

// octal writes any bytes so that printf %b gives them back.
func octal(s string) string {
	var text strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&text, `\0%03o`, s[i])
	}
	return text.String()
}

func isControl(r rune) bool { return r < ' ' || r >= 0x7f }

var page = template.Must(template.New("RESTORE.txt").Parse(pageText))
