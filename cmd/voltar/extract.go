package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/urfave/cli/v2"

	"voltar/archive"
	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/progress"
	"voltar/internal/safedir"
	"voltar/internal/say"
)

func (a *app) extractCommand() *cli.Command {
	return &cli.Command{
		Name: "extract", Usage: "extract files from a backup into a folder", ArgsUsage: "BACKUP [pN:/PATH...] --to DIR",
		UsageText: "voltar extract web p1:/etc --to /tmp/web\n" +
			"voltar extract web 'p1:/home/**/*.pdf' --to /tmp/web\n",
		Description: "Extracts each PATH with everything below it, or everything without a PATH. In a PATH, *, ? and [a-z] match part of a\n" +
			"name, and ** matches any folders. The files of partition N go to DIR/pN, the files of a volume without partitions to\n" +
			"DIR, each with its full path. As root, also restores owners, attributes and ACLs. DIR keeps its owner and mode. A DIR\n" +
			"that another user could exchange, or where a destination keeps backups, is refused; a missing DIR is created,\n" +
			"readable by you alone. With --keep-going, a file that lies in a damaged part of an archive and can be read all the\n" +
			"same goes to NAME" + archive.SalvageSuffix + ": nothing proves that it is what it was.",
		Flags: []cli.Flag{untrustedFlag(),
			fromFlag(),
			hostFlag(),
			identityFlag(),
			&cli.StringFlag{Name: "to", Usage: "extract into the folder `DIR`, which is created if it is missing"},
			&cli.BoolFlag{Name: "keep-going", Usage: "extract what is left of a damaged backup, and list what is lost"},
			&cli.StringFlag{Name: "overwrite", Value: "never", Usage: "`WHAT` to do with existing files: never (stop), replace or keep"},
			&cli.BoolFlag{Name: "devices", Usage: "also create device nodes"},
			privilegesFlag(),
		},
		Action: func(c *cli.Context) error {
			o, err := readExtract(c)
			if err != nil {
				return err
			}
			return a.extract(c.Context, o)
		},
	}
}

// extractedLine is one extent in the output of `voltar extract`.
type extractedLine struct {
	Extent      string         `json:"extent"`
	Folder      string         `json:"folder"`
	Entries     int64          `json:"entries"`
	Bytes       int64          `json:"bytes"`
	Lost        []lostLine     `json:"lost"`
	LostOmitted int64          `json:"lost_omitted,omitempty"`
	Damage      []string       `json:"damage,omitempty"`
	Shortfalls  map[string]int `json:"shortfalls,omitempty"`
	Notes       []string       `json:"notes,omitempty"`
}

// lostLine is a file that could not be had.
type lostLine struct {
	Path   string `json:"path,omitempty"` // empty when its name is lost too
	Reason string `json:"reason"`
}

type extractOptions struct {
	browseOptions
	overwrite           archive.Overwrite
	devices, privileges bool
}

func readExtract(c *cli.Context) (o extractOptions, err error) {
	if o.overwrite, err = parseOverwrite(c.String("overwrite")); err != nil {
		return o, err
	}
	o.devices, o.privileges = c.Bool("devices"), c.Bool("privileges")
	if c.String("to") == "" {
		return o, usageError(errors.New("say where to: --to DIR"))
	}
	o.browseOptions, err = readBrowse(c)
	o.to, o.lookup = c.String("to"), false // archives are read, too
	return o, err
}

func (a *app) extract(ctx context.Context, o extractOptions) error {
	b, meta, err := a.browse(ctx, o.browseOptions)
	if err != nil {
		return err
	}
	var places []browse.Place
	for _, text := range o.paths {
		place, err := b.Parse(text)
		if err != nil {
			return err
		}
		places = append(places, place)
	}
	root, err := safedir.Open(o.to)
	if err != nil {
		return err
	}
	defer root.Close()
	work := progress.NewWork(a.screen, slog.New(slog.DiscardHandler), "extracting", "")
	work.Started(contentBytes(meta, places))
	read := map[string]int64{}
	done, err := b.Extract(ctx, root, places, browse.ExtractOptions{
		OnProgress: func(extent string, stats archive.ExtractStats) {
			work.Done(stats.Bytes - read[extent])
			read[extent] = stats.Bytes
		},
		KeepGoing: o.keepGoing, Overwrite: o.overwrite, Devices: o.devices, Privileges: o.privileges, NoOwner: os.Geteuid() != 0,
	})
	work.Close()
	if err != nil && !o.keepGoing {
		return hinted(err, meta)
	}
	return a.printExtracted(done, err, o.json)
}

// contentBytes is how much data an extraction writes: of all that the extents of the places hold, or 0 where it is a part of that,
// which only the index tells.
func contentBytes(b catalog.Backup, places []browse.Place) (total int64) {
	if len(places) > 0 {
		return 0
	}
	for _, x := range b.Manifest.Extents {
		if x.State == catalog.StateFiles {
			total += x.ContentBytes
		}
	}
	return total
}

func parseOverwrite(word string) (archive.Overwrite, error) {
	switch word {
	case "never":
		return archive.OverwriteNever, nil
	case "replace":
		return archive.OverwriteReplace, nil
	case "keep":
		return archive.OverwriteKeep, nil
	}
	return 0, usageError(fmt.Errorf("--overwrite: %q is none of never, replace, keep", word))
}

// printExtracted says what was taken out, and what was not.
func (a *app) printExtracted(done []browse.Extracted, failure error, asJSON bool) error {
	good := failure == nil
	lines := []extractedLine{}
	for _, x := range done {
		good = good && x.Good()
		lines = append(lines, newExtractedLine(x))
	}
	if asJSON {
		if err := a.printJSON(lines); err != nil {
			return err
		}
	} else {
		for _, line := range lines {
			a.printExtractedLine(line)
		}
	}
	if failure != nil && !errors.Is(failure, archive.ErrIncomplete) {
		a.printError(failure)
	}
	if !good {
		return exitWith(exitAttention)
	}
	return nil
}

func newExtractedLine(x browse.Extracted) extractedLine {
	line := extractedLine{Extent: x.Extent, Folder: x.Folder, Entries: x.Stats.Entries(), Bytes: x.Stats.Bytes, Lost: []lostLine{},
		LostOmitted: x.Stats.FailuresOmitted, Notes: x.Notes}
	for _, f := range x.Stats.Failures {
		line.Lost = append(line.Lost, lostLine{Path: f.Path, Reason: f.Err.Error()})
	}
	for i := range x.Stats.Damage {
		line.Damage = append(line.Damage, x.Stats.Damage[i].Error())
	}
	for _, s := range x.Stats.Shortfalls {
		if line.Shortfalls == nil {
			line.Shortfalls = map[string]int{}
		}
		line.Shortfalls[s.What] = int(s.Count)
		if s.What == archive.Withheld {
			line.Notes = append(line.Notes, withheldNote(s))
			continue
		}
		note := fmt.Sprintf("not restored to %s, %q the first: %s", say.Counted(s.Count, "entry"), s.Path, s.What)
		if s.Err != nil {
			note += ": " + s.Err.Error()
		}
		line.Notes = append(line.Notes, note)
	}
	return line
}

// withheldNote says how privileges are had that were not asked for.
func withheldNote(s archive.Shortfall) string {
	return fmt.Sprintf("set-id bits, capabilities or system attributes of %s, %q the first, are left out; --privileges restores them",
		say.Counted(s.Count, "entry"), s.Path)
}

func (a *app) printExtractedLine(line extractedLine) {
	name := line.Extent
	if name == "" {
		name = "the volume"
	}
	say.Printf(a.stdout, "%s: %s, %s of data\n", name, say.Counted(line.Entries, "entry"), say.Size(line.Bytes))
	for _, text := range line.Damage {
		say.Indented(a.stdout, "  ", text)
	}
	for _, note := range line.Notes {
		say.Indented(a.stdout, "  ", note)
	}
	for _, lost := range line.Lost {
		say.Printf(a.stdout, "  not restored: %s: %s\n", cmp.Or(lost.Path, "files whose names are lost"), lost.Reason)
	}
	if line.LostOmitted > 0 {
		say.Printf(a.stdout, "  and %d more\n", line.LostOmitted)
	}
}
