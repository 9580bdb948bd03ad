package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"voltar/archive"
	"voltar/internal/browse"
	"voltar/internal/safedir"
	"voltar/internal/say"
)

func (a *app) extractCommand() *cli.Command {
	return &cli.Command{
		Name: "extract", Usage: "take files out of a backup into a folder", ArgsUsage: "BACKUP [pN:/PATH...] --to DIR",
		Description: "Each PATH, in which *, ? and [a-z] stand for part of a name and ** for any folders, is taken with all that is\n" +
			"below it; everything without one. The files of partition N go to DIR/pN, those of a volume without partitions\n" +
			"to DIR, each below its full path there. As root, owners, attributes and ACLs are restored too; DIR keeps its\n" +
			"owner and mode. One that another user could exchange is refused, and one that is missing is made for you alone.",
		Flags: []cli.Flag{untrustedFlag(),
			fromFlag(),
			hostFlag(),
			identityFlag(),
			&cli.StringFlag{Name: "to", Usage: "the folder `DIR`, made where it is missing"},
			&cli.BoolFlag{Name: "keep-going", Usage: "take out all that can be had of a damaged backup, and list what is lost"},
			&cli.StringFlag{Name: "overwrite", Value: "never", Usage: "do `WHAT` with files in the way: never (stop), replace or keep"},
			&cli.BoolFlag{Name: "devices", Usage: "make device nodes too"},
			privilegesFlag(),
		},
		Action: a.extract,
	}
}

// privilegesFlag is shared by the commands that put files of a guest into a folder of the host.
func privilegesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "privileges", Usage: "into a folder: restore set-id bits, capabilities and system attributes, too"}
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

func (a *app) extract(c *cli.Context) error {
	overwrite, err := parseOverwrite(c.String("overwrite"))
	if err != nil {
		return err
	}
	to := c.String("to")
	if to == "" {
		return usageError{errors.New("say where to: --to DIR")}
	}
	b, meta, err := a.browse(c)
	if err != nil {
		return err
	}
	var places []browse.Place
	for _, text := range c.Args().Tail() {
		place, err := b.Parse(text)
		if err != nil {
			return err
		}
		places = append(places, place)
	}
	root, err := safedir.Open(to)
	if err != nil {
		return err
	}
	defer root.Close()
	done, err := b.Extract(c.Context, root, places, browse.ExtractOptions{
		KeepGoing: c.Bool("keep-going"), Overwrite: overwrite, Devices: c.Bool("devices"),
		Privileges: c.Bool("privileges"), NoOwner: os.Geteuid() != 0,
	})
	if err != nil && !c.Bool("keep-going") {
		return hinted(err, meta)
	}
	return a.printExtracted(c, done, err)
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
	return 0, usageError{fmt.Errorf("--overwrite: %q is none of never, replace, keep", word)}
}

// printExtracted says what was taken out, and what was not.
func (a *app) printExtracted(c *cli.Context, done []browse.Extracted, failure error) error {
	good := failure == nil
	lines := []extractedLine{}
	for _, x := range done {
		good = good && x.Good()
		lines = append(lines, newExtractedLine(x))
	}
	if c.Bool("json") {
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
		note := fmt.Sprintf("not restored to %d entries, %q the first: %s", s.Count, s.Path, s.What)
		if s.Err != nil {
			note += ": " + s.Err.Error()
		}
		line.Notes = append(line.Notes, note)
	}
	return line
}

// withheldNote says how privileges are had that were not asked for.
func withheldNote(s archive.Shortfall) string {
	return fmt.Sprintf("set-id bits, capabilities or system attributes of %d entries, %q the first, are left out; --privileges restores them",
		s.Count, s.Path)
}

func (a *app) printExtractedLine(line extractedLine) {
	name := line.Extent
	if name == "" {
		name = "the volume"
	}
	say.Printf(a.stdout, "%s: %s, %s of data\n", name, countedEntries(line.Entries), say.Size(line.Bytes))
	for _, text := range line.Damage {
		say.Println(a.stdout, "  "+text)
	}
	for _, note := range line.Notes {
		say.Println(a.stdout, "  "+note)
	}
	for _, lost := range line.Lost {
		say.Printf(a.stdout, "  not restored: %s: %s\n", lost.Path, lost.Reason)
	}
	if line.LostOmitted > 0 {
		say.Printf(a.stdout, "  and %d more\n", line.LostOmitted)
	}
}
