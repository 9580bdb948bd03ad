package main

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"voltar/internal/backup"
	"voltar/internal/say"
	"voltar/internal/setup"
)

// dryRun prints what a run would do: volumes and the space of their snapshots, other sources, destinations and what
// retention would remove from them. It touches nothing.
func (a *app) dryRun(ctx context.Context, s *setup.Setup, engine *backup.Engine, o runOptions) error {
	preview, err := engine.Preview(ctx, o.volumes)
	if err != nil {
		return err
	}
	if preview.Looked {
		preview.Unmatched = s.Unmatched(preview.Known)
	}
	if o.json {
		return errors.Join(a.printJSON(preview), unusable(preview.Destinations))
	}
	if len(preview.Volumes)+len(preview.Sources) == 0 {
		return say.WithHint(errors.New("nothing is selected: a run would back up nothing"),
			"`voltar volumes` says which rule leaves each volume out")
	}
	table := a.newTable()
	say.Printf(table, "VOLUME\tSIZE\tSNAPSHOT\tNOTE\n")
	for _, v := range preview.Volumes {
		snapshot := "thin"
		if v.SnapshotBytes > 0 {
			snapshot = say.Size(v.SnapshotBytes)
		}
		note := v.Problem
		if v.WaitsFor != "" {
			note = strings.TrimPrefix(note+"; waits for the space of others in "+v.WaitsFor, "; ")
		}
		say.Printf(table, "%s\t%s\t%s\t%s\n", v.Name, say.Size(v.SizeBytes), snapshot, note)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if err := a.printSources(preview.Sources); err != nil {
		return err
	}
	for _, pattern := range preview.Unmatched {
		say.Printf(a.stdout, "\nThe configuration's %s matches no volume of this host.\n", pattern)
	}
	for _, g := range preview.Groups {
		say.Printf(a.stdout, "\nVolume group %s has %s free; snapshots of %s at a time want %s.\n", g.Name,
			say.Size(g.FreeBytes), say.Counted(s.Config.Parallel, "volume"), say.Size(g.WantedBytes))
	}
	for _, d := range preview.Destinations {
		say.Printf(a.stdout, "\nDestination %s (%s)", d.Name, d.Where)
		if d.Problem != "" {
			say.Printf(a.stdout, ": %s", strings.ReplaceAll(d.Problem, "\n", "; "))
		} else if d.FreeBytes >= 0 {
			say.Printf(a.stdout, " has %s free", say.Size(d.FreeBytes))
		}
		say.Println(a.stdout)
		for hint := range strings.Lines(d.Hint) {
			say.Printf(a.stdout, "  %s%s\n", say.HintLabel, strings.TrimSuffix(hint, "\n"))
		}
		if d.Note != "" {
			say.Printf(a.stdout, "  %s\n", d.Note)
		}
		for _, removed := range d.Remove {
			say.Printf(a.stdout, "  would remove %s: %s\n", removed.Path, removed.Reason)
		}
	}
	say.Printf(a.stdout, "\nNothing was done. Planned at %s.\n", shortTime(time.Now()))
	return unusable(preview.Destinations)
}

// unusable ends as a run would to whose destinations nothing can be written, or not to all.
func unusable(destinations []backup.PreviewDestination) error {
	bad := 0
	for _, d := range destinations {
		if d.Unusable {
			bad++
		}
	}
	switch bad {
	case 0:
		return nil
	case len(destinations):
		return exitWith(exitNothing)
	}
	return exitWith(exitAttention)
}

// printSources prints what is backed up beside volumes, and how.
func (a *app) printSources(sources []backup.PreviewSource) error {
	if len(sources) == 0 {
		return nil
	}
	say.Println(a.stdout)
	table := a.newTable()
	say.Printf(table, "SOURCE\tREAD FROM\tNOTE\n")
	for _, s := range sources {
		from, note := s.Path, cmp.Or(s.Problem, s.Note)
		switch {
		case s.Preset != "":
			from = "preset " + s.Preset
		case len(s.Command) > 0:
			from = "the output of " + s.Command[0]
		}
		if s.Host != "" {
			from += " on " + s.Host
		}
		if name, isStream := strings.CutPrefix(s.Name, "@stream/"); isStream {
			note = "not by this run: voltar stream " + name
		}
		say.Printf(table, "%s\t%s\t%s\n", s.Name, from, note)
	}
	return table.Flush()
}
