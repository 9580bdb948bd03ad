package backup

import (
	"fmt"

	"voltar/internal/catalog"
	"voltar/internal/extent"
	"voltar/internal/placement"
)

// archived is all that is kept of one source, on its way to every destination. There is no backup of it yet.
type archived struct {
	*account
	out      *placement.Output
	source   catalog.Source
	layout   *extent.Layout
	dumps    dumps
	guest    string            // name of the file that has the definition of its guest; "" for none
	snapshot *catalog.Snapshot // nil for what was read without one
	quiesce  *catalog.Quiesce  // likewise
}

// archive archives every extent, the table and the dumps of a volume. It fails when the snapshot must not be read any more.
func (s *surveyed) archive() (archived, error) {
	files, err := s.files(s.ctx, s.time, s.settings.Level, s.exclude)
	if err != nil {
		return archived{}, err
	}
	err = s.reader.Archive(s.ctx, files, s.layout)
	if err != nil {
		return archived{}, err
	}
	a := archived{account: s.account, out: files.Out, source: s.source, layout: s.layout, quiesce: s.quiet.Facts()}
	a.source.LogicalSector, a.source.PhysicalSector = s.layout.LogicalSector, s.layout.PhysicalSector
	if a.dumps, err = s.storeDumps(s.ctx, s.settings.Dumps, files); err != nil {
		return archived{}, err
	}
	if a.guest, err = s.storeDefinition(s.ctx, files); err != nil {
		return archived{}, err
	}
	return a, s.stopped()
}

// surprisingEntries is from how many files and folders on a difference from the last backup can be a surprise.
const surprisingEntries = 100

// surpriseFactor is how much smaller than the last a backup may be before a person is told.
const surpriseFactor = 2

// compare warns when tonight's backup differs surprisingly from the last one.
func (a *archived) compare() {
	before := a.placed.LastEntries()
	if after := a.line.Entries; before > surprisingEntries && after < before/surpriseFactor {
		a.warn(fmt.Sprintf("only %d files and folders, where the last backup had %d", after, before),
			"look whether that is as it should be, before the older backups are gone")
	}
}
