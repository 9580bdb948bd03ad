package recipe

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"voltar/internal/catalog"
	"voltar/internal/say"
)

// dumpStep is one dump to bring back.
type dumpStep struct{ catalog.Dump }

func (v view) DumpSteps() []dumpStep {
	var list []dumpStep
	for _, d := range v.Dumps {
		list = append(list, dumpStep{d})
	}
	return list
}

// Title says what the dump is and where it goes.
func (d dumpStep) Title() string {
	switch d.Preset {
	case "mysql":
		return "Feed the dump to MySQL or MariaDB, as who may do everything there. DATABASES OF THE SAME NAMES ARE REPLACED, and so are users."
	case "postgresql":
		return "Feed the dump to PostgreSQL, as who may do everything there; best to a new cluster. It makes roles and databases anew."
	}
	return fmt.Sprintf("Unpack what the command of %q wrote.", say.Clean(d.Name))
}

// Commands are for the shell, one on each line.
func (d dumpStep) Commands() []string {
	read := inflated(d.File)
	switch d.Preset {
	case "mysql":
		return []string{`CLIENT=${CLIENT:-mysql}`, read + ` | $CLIENT`, `echo 'FLUSH PRIVILEGES;' | $CLIENT`}
	case "postgresql":
		return []string{`CLIENT=${CLIENT:-runuser -u postgres -- psql -X -q -d postgres}`, read + ` | $CLIENT`}
	}
	return []string{`OUTPUT=${OUTPUT:-$(mktemp)}`, read + ` > "$OUTPUT"`, `ls -l "$OUTPUT"`}
}

// Held are notes on databases that were held while the snapshot was made.
func (v view) Held() []string {
	if v.Quiesce == nil {
		return nil
	}
	var notes []string
	for _, guest := range slices.Sorted(maps.Keys(v.Quiesce.Databases)) {
		said := v.Quiesce.Databases[guest]
		note := fmt.Sprintf("The database of %s was held meanwhile; its binary log ended at: %s", say.Clean(guest),
			say.Clean(strings.Join(strings.Fields(said), " ")))
		if strings.Contains(said, "START WAL LOCATION") {
			note = fmt.Sprintf("The database of %s was in backup mode. It starts as it is, as after a power cut. To go on with archived\n"+
				"   write-ahead log, or where that lay on another volume, first put the text of quiesce.databases in manifest.json\n"+
				"   into the file backup_label in its data directory, and set restore_command.", say.Clean(guest))
		}
		notes = append(notes, note)
	}
	return notes
}

// FolderNotes say what of a directory is not unpacked.
func (v view) FolderNotes() (notes []string) {
	for _, e := range v.Extents {
		if e.LongPaths > 0 {
			notes = append(notes, longPathsNote(e))
		}
	}
	return notes
}

// FillFolder are the commands that unpack a directory.
func (v view) FillFolder() []string {
	before, folder := shellWord("FOLDER", v.Source.Path)
	commands := append(before,
		`[ -n "${TARGET-}" ] || { echo "set TARGET to the folder to fill; the files were in" `+folder+` >&2; exit 1; }`, `mkdir -p "$TARGET"`)
	for _, e := range v.Extents {
		if e.State == catalog.StateFiles {
			commands = append(commands, unpackInto(`"$TARGET"`, allAttributes, e)...)
		}
	}
	return commands
}
