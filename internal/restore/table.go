package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"voltar/internal/catalog"
	"voltar/internal/hostcmd"
	"voltar/partmap"
)

// writeTable makes the partition table. On a target of the volume's size the images of what lies outside of partitions
// have brought it back byte for byte already, and then it stays as it is; otherwise sfdisk writes it, with the same
// identifiers.
type writeTable struct {
	layout  *layout
	want    *catalog.Table
	written bool // by sfdisk, which leaves out what it does not know
}

func (s *writeTable) Describe() []string {
	text := fmt.Sprintf("%s partition table %s, in sectors of %d bytes", s.want.Label, s.want.ID, s.want.SectorBytes)
	return []string{
		"check the " + text + ", or make it with sfdisk",
	}
}

func (s *writeTable) do(ctx context.Context, w *work) error {
	size := s.layout.targetBytes
	if s.layout.holdsLayout(w.device, size, s.want) == nil {
		return nil
	}
	// What the images held is looked at before sfdisk replaces it.
	if table, err := readTable(w.device, size, s.want.SectorBytes); err == nil {
		for _, loss := range table.Losses() {
			w.note("partition table: %s", loss)
		}
	}
	s.written = true
	if err := s.sfdisk(ctx, w); err != nil {
		return fmt.Errorf("write partition table: %w", err)
	}
	return s.layout.checkTable(w.device, s.want)
}

// checkTable reads back what sfdisk wrote.
func (l *layout) checkTable(device string, want *catalog.Table) error {
	table, err := readTable(device, l.targetBytes, want.SectorBytes)
	if err != nil {
		return fmt.Errorf("read back the partition table: %w", err)
	}
	if difference := l.sameTable(table, want); difference != "" {
		return fmt.Errorf("read back the partition table: cannot find what was written: %s", difference)
	}
	return nil
}

// sfdisk writes the table, through a loop device where the target has other sectors than the table counts in: sfdisk
// would rescale it without a word.
func (s *writeTable) sfdisk(ctx context.Context, w *work) (err error) {
	device := w.device
	own, err := sectorBytes(device)
	if err != nil {
		return err
	}
	if own != s.layout.script.SectorBytes {
		base := w.held.Len()
		defer func() { err = errors.Join(err, w.held.ReleaseTo(ctx, base)) }()
		if device, err = w.attach(ctx, w.device, s.layout.script.SectorBytes); err != nil {
			return err
		}
	}
	var script bytes.Buffer
	if err := s.layout.script.Write(&script, device); err != nil {
		return err
	}
	_, err = w.Runner.Run(ctx, hostcmd.Cmd{Name: "sfdisk", Args: []string{
		"--quiet", "--wipe", "never", "--wipe-partitions", "never", "--no-reread", "--no-tell-kernel", device,
	}, Stdin: &script})
	if err != nil {
		return err
	}
	return flushDevice(device)
}

// sectorBytes is the logical sector size of a device.
func sectorBytes(device string) (_ int, err error) {
	file, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	n, err := unix.IoctlGetInt(int(file.Fd()), unix.BLKSSZGET)
	if err != nil {
		return 0, fmt.Errorf("sector size of %s: %w", device, err)
	}
	return n, nil
}

// mapPiece gives a piece a device of its own until the restore lets go of it; one that is all of the target has the
// target's.
func (w *work) mapPiece(ctx context.Context, p piece) (string, error) {
	if w.plan.isWhole(p) {
		return w.device, nil
	}
	target := partmap.Target{
		Name: w.plan.mapName(p),
		UUID: fmt.Sprintf("LVM-voltar-%s-restore-%s", w.plan.run, p.mapSuffix()),
		Segments: []partmap.Segment{{
			SizeBytes: p.targetBytes, Sources: []partmap.Source{{Device: w.device, OffsetBytes: p.OffsetBytes}},
		}},
	}
	if p.LV != nil {
		target.Segments = w.guestSegments(p.LV)
	}
	return w.mapTarget(ctx, target)
}

func (p piece) mapSuffix() string {
	if p.Name == "" {
		return "whole"
	}
	return p.Name
}
