package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"voltar/internal/owned"
	"voltar/internal/say"
	"voltar/partmap"
)

// scratchMarginBytes is what lies before and behind the volume in a scratch file. So its loop device shows nobody a table, a filesystem or
// a physical volume: all of it is seen through a map alone, which udev's rules of voltar and lvm2 leave alone.
const scratchMarginBytes = 1 << 20

// scratchPattern are the names of scratch files, until they lose them.
const scratchPattern = "voltar-drill-*.scratch"

// scratch is a sparse file that a backup is restored to only to be compared. It has no name once its loop device holds it: when that is
// gone, it is too.
type scratch struct {
	folder      string
	sizeBytes   int64
	sectorBytes int
	base        int // of what was held before
}

// findScratch looks whether a scratch file fits its folder.
func (p *planner) findScratch(t Target) (*place, error) {
	folder, err := filepath.EvalSymlinks(t.Path)
	if err != nil {
		return nil, hostTrouble(fmt.Errorf("cannot use the folder for scratch files: %w", err))
	}
	if t.MaxBytes > 0 && p.dataBytes > t.MaxBytes {
		return nil, say.WithHint(fmt.Errorf("%w: %s would be written to the scratch file, and %s are allowed", ErrTooLarge,
			say.Size(p.dataBytes), say.Size(t.MaxBytes)), "raise max_size in [drill]")
	}
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return nil, hostTrouble(fmt.Errorf("cannot look at %s: %w", folder, err))
	}
	needed := p.dataBytes + p.dataBytes/20 + p.m.Source.SizeBytes/50 // what filesystems write of their own is 2 % of their size at most
	if free := int64(st.Bavail) * st.Bsize; free < needed {
		return nil, say.WithHint(fmt.Errorf("%w: the scratch file may take %s, and %s has %s free", ErrTooLarge,
			say.Size(needed), folder, say.Size(free)),
			"name a folder with more space: folder in [drill]")
	}
	s := &scratch{folder: folder, sizeBytes: roundUp(p.m.Source.SizeBytes, 4096), sectorBytes: 512}
	if p.m.Table != nil {
		s.sectorBytes = p.m.Table.SectorBytes
	}
	return &place{
		what: "a scratch file in " + folder, lock: folder, sizeBytes: s.sizeBytes, zeros: true,
		scratch: s, open: []Step{&makeScratch{s}}, close: []Step{&dropScratch{s}},
	}, nil
}

// makeScratch makes the file and gives it a device.
type makeScratch struct{ *scratch }

func (s *makeScratch) Describe() []string {
	return []string{fmt.Sprintf("make a sparse scratch file of %s in %s, without a name, and map it where nobody looks",
		say.Size(s.sizeBytes), s.folder)}
}

func (s *makeScratch) do(ctx context.Context, w *work) error { return hostTrouble(s.make(ctx, w)) }

func (s *makeScratch) make(ctx context.Context, w *work) error {
	if err := s.removeStale(); err != nil {
		return err
	}
	path := filepath.Join(s.folder, fmt.Sprintf("voltar-drill-%s.scratch", w.plan.run))
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	s.base = w.held.Len()
	err = errors.Join(file.Truncate(s.sizeBytes+2*scratchMarginBytes), file.Close())
	var loop string
	if err == nil {
		loop, err = w.attach(ctx, path, s.sectorBytes)
	}
	if err = errors.Join(err, os.Remove(path)); err != nil {
		return err
	}
	w.touched = true
	w.device, err = w.mapTarget(ctx, partmap.Target{
		Name: "voltar-drill-" + w.plan.run, UUID: owned.MapUUIDPrefix(w.plan.run) + "scratch",
		Segments: []partmap.Segment{{
			SizeBytes: s.sizeBytes, Sources: []partmap.Source{{Device: loop, OffsetBytes: scratchMarginBytes}},
		}},
	})
	return err
}

// removeStale removes files that drills left which died before their files had lost their names. The lock of the folder is held.
func (s *scratch) removeStale() error {
	stale, err := filepath.Glob(filepath.Join(s.folder, scratchPattern))
	if err != nil {
		return err
	}
	for _, path := range stale {
		if err := removeStale(path); err != nil {
			return err
		}
	}
	return nil
}

// fullBytes is how little is left where a scratch file could not grow any more: filesystems keep a few blocks for themselves.
const fullBytes = 1 << 20

// explainFull says of what went wrong that the folder has become full, which a sparse file shows as errors of its device, or as data
// that are not there. It proves nothing against the backup: the error wraps none of those that do.
func (s *scratch) explainFull(err error) error {
	var st unix.Statfs_t
	if statErr := unix.Statfs(s.folder, &st); statErr != nil {
		return errors.Join(err, fmt.Errorf("cannot look at %s: %w", s.folder, statErr))
	}
	if int64(st.Bavail)*st.Bsize >= fullBytes || errors.Is(err, ErrSums) {
		return err
	}
	return say.WithHint(hostTrouble(fmt.Errorf("%s has become full meanwhile: %s", s.folder, err.Error())),
		"make space there, or name a folder with more: folder in [drill]")
}

// dropScratch lets go of the file, which is the end of it.
type dropScratch struct{ *scratch }

func (s *dropScratch) Describe() []string {
	return []string{"remove the map, the loop device and the file"}
}

func (s *dropScratch) do(ctx context.Context, w *work) error { return w.held.ReleaseTo(ctx, s.base) }
