package backup

import "voltar/internal/extent"

// surveyed is a snapshot of which it is known what lies on it.
type surveyed struct {
	*reading
	reader *extent.Reader
	layout *extent.Layout
}

// survey finds out what lies on the snapshot: partition table, gaps, and what each extent holds.
func (r *reading) survey() (*surveyed, error) {
	run := r.run
	reader := &extent.Reader{
		Host: &extent.Host{
			Owner: run.owner, Locks: run.locks, Prober: run.Prober, Mounts: run.Mounts, MaxDuration: run.opts.MaxDuration,
		},
		Volume: r.volume, Snapshot: r.snapshot, Last: r.lastForReading(), As: r.settings.As, Grouped: r.settings.Group != "", Warn: r.warn,
	}
	layout, err := reader.Survey(r.ctx)
	if err != nil {
		return nil, err
	}
	r.extents = layout.Extents
	return &surveyed{r, reader, layout}, nil
}
