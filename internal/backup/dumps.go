package backup

import (
	"context"
	"errors"
	"io"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/extent"
	"voltar/internal/quiesce"
	"voltar/report"
)

// Dump is the output of a command that is kept: beside a volume, or as a source of its own.
type Dump struct {
	quiesce.Dump
	Level archive.Level
}

// dumps are those of one source.
type dumps struct {
	kept    []catalog.Dump
	missing []string // why others are not
}

// storeDumps keeps the dumps that are tied to a volume. One that fails leaves the volume's own backup standing, as
// damaged: it lacks something that it should have.
func (a *account) storeDumps(ctx context.Context, wanted []Dump, files *extent.Files) (all dumps, err error) {
	for _, d := range wanted {
		kept, err := a.storeDump(ctx, d, files, files.Names.Dump(d.Name))
		if lost := files.Out.Failure(); lost != nil || ctx.Err() != nil {
			return all, errors.Join(err, lost)
		}
		if err == nil {
			all.kept = append(all.kept, kept)
			continue
		}
		problem := report.ProblemOf(err)
		a.warn(problem.Message, "the backup stands without it; look at the command, and run it by hand")
		all.missing = append(all.missing, problem.Message)
	}
	return all, nil
}

// storeDump keeps the output of one command. Unless that ended well, nothing of it is kept.
func (a *account) storeDump(ctx context.Context, d Dump, files *extent.Files, name string) (catalog.Dump, error) {
	own := *files
	own.Level = d.Level
	err := a.run.Quieter.RunDump(ctx, d.Dump, func(output io.Reader) error {
		read, err := own.Stream(ctx, name, output)
		a.line.ReadBytes += read
		return err
	})
	return catalog.Dump{Name: d.Name, File: name, Preset: d.Preset}, err
}
