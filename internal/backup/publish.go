package backup

import (
	"context"

	"voltar/internal/catalog"
)

// publish makes a backup of what was archived: checksums, recipe and at last the manifest on each destination.
func (a *archived) publish(ctx context.Context) error {
	a.line.DamagedCount += int64(len(a.dumps.missing))
	a.line.DamagedFiles = append(a.line.DamagedFiles, a.dumps.missing...)
	published, err := a.out.Publish(ctx, *a.manifest())
	if err != nil {
		return err
	}
	a.line.Backup, a.line.StoredBytes = published.Backup, published.StoredBytes
	a.warnAll(published.Warnings)
	return nil
}

// manifest describes the backup, but for the files of each destination.
func (a *archived) manifest() *catalog.Manifest {
	m := &catalog.Manifest{
		Format: catalog.Format, Voltar: a.run.opts.Version, Status: catalog.StatusComplete, Host: a.run.opts.Host, Run: a.run.id,
		Source: a.source, Time: a.out.ID.Time, Started: a.line.Started,
		Snapshot: a.snapshot, Quiesce: a.quiesce, Dumps: a.dumps.kept,
		Definition: a.guest,
	}
	for _, w := range a.line.Warnings {
		m.Warnings = append(m.Warnings, w.Message)
	}
	if t := a.layout.Table; t != nil {
		m.Table = &catalog.Table{Label: string(t.Label), ID: t.ID, SectorBytes: t.SectorBytes, Notes: t.Notes, Losses: t.Losses()}
	}
	for _, x := range a.layout.Extents {
		m.Extents = append(m.Extents, x.Extent)
		if x.DamagedCount > 0 {
			m.Status = catalog.StatusDamaged
		}
	}
	if len(a.dumps.missing) > 0 {
		m.Status = catalog.StatusDamaged
	}
	return m
}
