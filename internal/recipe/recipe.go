// Package recipe writes RESTORE.txt: how one backup is brought back with nothing but standard tools, with its real names
// and commands. It is pure. Lines that begin with four spaces are commands for a POSIX shell, run as root from top to
// bottom; whatever came from a guest is quoted in them.
package recipe

import (
	"bytes"
	"fmt"
	"strings"
	"text/template"
	"unicode/utf8"

	"voltar/internal/catalog"
)

// Text returns the recipe of a backup.
func Text(m *catalog.Manifest) []byte {
	var text bytes.Buffer
	if err := page.Execute(&text, view{m}); err != nil {
		panic(err) // the template and the view are both ours
	}
	return text.Bytes()
}

// view offers a manifest to the template.
type view struct{ *catalog.Manifest }

// Target is the device that the recipe restores to.
func (v view) Target() string {
	if v.Source.Kind != catalog.SourceVolume {
		return "/path/to/an/empty/folder"
	}
	return quote("/dev/" + v.Source.VG + "/" + v.Source.Name)
}

func (v view) IsVolume() bool { return v.Source.Kind == catalog.SourceVolume }

func (v view) names() catalog.Names { return catalog.NamesOf(v.Source.Ref(), false) }

func (v view) Checksum() string { return quote(v.names().Checksum()) }

func (v view) TableFile() string { return quote(v.names().Table()) }

// Make is the command that makes the volume anew.
func (v view) Make() string {
	if v.Source.ThinPool != "" {
		return fmt.Sprintf("lvcreate --yes --wipesignatures y --thin --virtualsize %db --name %s %s", v.Source.SizeBytes, quote(v.Source.Name),
			quote(v.Source.VG+"/"+v.Source.ThinPool))
	}
	return fmt.Sprintf("lvcreate --yes --wipesignatures y --zero y --size %db --name %s %s", v.Source.SizeBytes, quote(v.Source.Name), quote(v.Source.VG))
}

// LoopSectors is the option that gives the target the sector size of its table.
func (v view) LoopSectors() string {
	if v.Table != nil && v.Table.SectorBytes != 512 {
		return fmt.Sprintf(" --sector-size %d", v.Table.SectorBytes)
	}
	return ""
}

// Steps are the extents, in the order in which they are written: images outside of partitions first, because the table
// is written over them.
func (v view) Outside() []step {
	return v.steps(func(e catalog.Extent) bool { return e.Number == 0 && v.Table != nil })
}

// Inside are the partitions, or the whole volume where there are none.
func (v view) Inside() []step {
	return v.steps(func(e catalog.Extent) bool { return e.Number != 0 || v.Table == nil })
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
		title += ": " + printable(s.Filesystem.Type)
		if s.Filesystem.Label != "" {
			title += ", label " + printable(fmt.Sprintf("%q", s.Filesystem.Label))
		}
	}
	if s.Reason != "" {
		title += " (" + printable(s.Reason) + ")"
	}
	return title
}

func (s step) IsFiles() bool { return s.State == catalog.StateFiles }
func (s step) IsImage() bool { return s.State == catalog.StateImage }
func (s step) IsSwap() bool  { return s.State == catalog.StateSwap }

func (s step) File() string { return quote(s.Archive) }
func (s step) Boot() string { return quote(s.BootArea) }
func (s step) Type() string { return quote(s.Filesystem.Type) }

// Mkfs are the commands that make the filesystem, with the loop device in the place of DEVICE.
func (s step) Mkfs() []string {
	var commands []string
	for _, argv := range s.Filesystem.Mkfs {
		var words []string
		for _, setting := range s.Filesystem.MkfsEnv {
			key, value, _ := strings.Cut(setting, "=")
			words = append(words, key+"="+quote(value))
		}
		for i, word := range argv {
			switch {
			case word == "DEVICE":
				word = `"$LOOP"`
			case strings.ContainsFunc(word, isControl) || !utf8.ValidString(word):
				// A newline within quotes would end the line of the recipe, and "$(…)" drops those at its end.
				variable := fmt.Sprintf("WORD%d", i)
				commands = append(commands, fmt.Sprintf("%s=$(printf %%b '%sx'); %s=${%s%%x}", variable, octal(word), variable, variable))
				word = `"$` + variable + `"`
			default:
				word = quote(word)
			}
			words = append(words, word)
		}
		commands = append(commands, strings.Join(words, " "))
	}
	return commands
}

// quote makes one word of a printable text for a POSIX shell.
func quote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
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

// printable shows a guest's text in a comment without letting it end the line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if isControl(r) && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

var page = template.Must(template.New("RESTORE.txt").Parse(pageText))
