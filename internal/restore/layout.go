package restore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"voltar/internal/catalog"
	"voltar/internal/probe"
	"voltar/internal/say"
	"voltar/partmap"
)

// layout is where everything goes on a target.
type layout struct {
	targetBytes int64
	script      *partmap.Script // nil without a partition table
	resized     bool            // the target has another size than the volume had
	pieces      []piece         // in the order of the volume
	guests      []piece         // logical volumes of the guest's own, which lie in pieces
	notes       []string
}

// piece is an extent of the backup on the target.
type piece struct {
	catalog.Extent
	targetBytes int64 // its size on the target
}

func (p piece) label() string {
	if p.LV != nil {
		return fmt.Sprintf("%s (%s/%s)", p.Name, p.LV.VG, p.LV.Name)
	}
	if p.Name == "" {
		return "the whole volume"
	}
	return p.Name
}

func (p piece) resized() bool { return p.targetBytes != p.SizeBytes }

// layOut places the extents of a backup on a target. script is the text of its partition table, if it has one. A target
// that is larger is filled only with grow.
func layOut(m *catalog.Manifest, script []byte, targetBytes int64, grow bool) (*layout, error) {
	l := &layout{targetBytes: targetBytes, resized: targetBytes != m.Source.SizeBytes}
	for _, x := range m.Extents {
		if x.LV != nil {
			l.guests = append(l.guests, piece{Extent: x, targetBytes: x.SizeBytes})
			continue
		}
		l.pieces = append(l.pieces, piece{Extent: x, targetBytes: x.SizeBytes})
	}
	var err error
	if m.Table == nil {
		err = l.fitWhole(grow)
	} else {
		err = l.fitTable(m, script, grow)
	}
	if err != nil {
		return nil, err
	}
	for _, p := range l.pieces {
		if err := p.checkFits(); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrUsage, p.label(), err)
		}
	}
	return l, nil
}

// tooSmall is what to do about a target that does not hold what the backup does.
const tooSmall = "take a larger target: a volume or image that is not there yet is made as large as the volume was, without --size; " +
	"`lvextend` makes a volume larger"

// fitWhole makes the only extent of a volume without partitions fit.
func (l *layout) fitWhole(grow bool) error {
	if len(l.pieces) != 1 {
		return fmt.Errorf("%w: a volume without a partition table has %d extents", catalog.ErrDamaged, len(l.pieces))
	}
	p := &l.pieces[0]
	canChange := p.State == catalog.StateFiles || p.State == catalog.StateSwap
	switch {
	case l.targetBytes < p.SizeBytes && !canChange:
		return say.WithHint(fmt.Errorf("%w: an image of %s does not fit %s", ErrUsage, say.Size(p.SizeBytes), say.Size(l.targetBytes)), tooSmall)
	case l.targetBytes < p.SizeBytes, grow && canChange:
		p.targetBytes = l.targetBytes
	}
	return nil
}

// fitTable makes the partition table fit, and with it the partition that changes.
func (l *layout) fitTable(m *catalog.Manifest, text []byte, grow bool) error {
	script, err := partmap.ParseScript(bytes.NewReader(text))
	if err != nil {
		return err
	}
	l.script = script
	if !l.resized && !grow {
		return nil
	}
	lastIsImage := false
	var last int64 = -1
	for _, p := range l.pieces {
		if p.Number != 0 && p.OffsetBytes > last {
			last, lastIsImage = p.OffsetBytes, p.State == catalog.StateImage || p.State == catalog.StateLVM
		}
	}
	if lastIsImage && grow {
		grow = false
		l.notes = append(l.notes, "the last partition is stored as an image and keeps its size")
	}
	fitted, err := script.Fit(l.targetBytes, grow)
	if err != nil {
		return say.WithHint(fmt.Errorf("%w: %w", ErrUsage, err), tooSmall)
	}
	end := int64(0)
	for i := range l.pieces {
		p := &l.pieces[i]
		if p.Number == 0 {
			continue
		}
		if p.Number == fitted.Number {
			l.notes = append(l.notes, fmt.Sprintf("partition %d has %s instead of %s", p.Number,
				say.Size(fitted.SizeBytes), say.Size(p.SizeBytes)))
			p.targetBytes = fitted.SizeBytes
		}
		end = max(end, p.OffsetBytes+p.targetBytes)
	}
	l.dropTail(m, last, end)
	return nil
}

// dropTail leaves out what lay behind the last partition, where that is no longer its place: the backup of a GPT, which
// sfdisk writes anew, and what would reach into the partition or past the end.
func (l *layout) dropTail(m *catalog.Manifest, lastOffset, endBytes int64) {
	l.pieces = slices.DeleteFunc(l.pieces, func(p piece) bool {
		if p.Number != 0 || p.OffsetBytes < lastOffset {
			return false
		}
		isGPT := m.Table.Label == string(partmap.LabelGPT)
		return l.resized && isGPT || p.OffsetBytes < endBytes || p.OffsetBytes+p.SizeBytes > l.targetBytes
	})
}

// checkFits tells whether what the extent holds can go where it has to. What can be known beforehand is an estimate:
// the filesystem itself has the last word.
func (p piece) checkFits() error {
	if !p.resized() {
		return nil
	}
	switch p.State {
	case catalog.StateImage, catalog.StateLVM:
		return fmt.Errorf("an image of %d bytes cannot have %d", p.SizeBytes, p.targetBytes)
	case catalog.StateFiles:
		const spareBytes = 1 << 20
		needed := p.NeededBytes(p.sharesAgain())
		if p.targetBytes < needed+needed/32+spareBytes {
			return fmt.Errorf("%s of files do not fit %s", say.Size(needed), say.Size(p.targetBytes))
		}
	case catalog.StateSwap, catalog.StateTable, catalog.StateExcluded, catalog.StateFailed:
	}
	return nil
}

// recipe returns the commands that make the filesystem of a piece.
func (p piece) recipe(xfsprogs [2]int) (*probe.Filesystem, probe.Recipe, error) {
	if p.Filesystem == nil {
		return nil, probe.Recipe{}, errors.New("the manifest does not say what filesystem it was")
	}
	fs, err := probe.FromParams(p.Filesystem.Type, p.Filesystem.Params)
	if err != nil {
		return nil, probe.Recipe{}, err
	}
	opts := probe.MkfsOptions{XFSProgs: xfsprogs}
	if p.resized() {
		opts.SizeBytes = p.targetBytes
	}
	recipe, err := fs.Mkfs(opts)
	return fs, recipe, err
}

// sameTable tells how a table differs from the one that the layout asks for; "" when it does not.
func (l *layout) sameTable(t *partmap.Table, want *catalog.Table) string {
	if string(t.Label) != want.Label || !strings.EqualFold(t.ID, want.ID) || t.SectorBytes != want.SectorBytes {
		return fmt.Sprintf("it is a %s table %s in sectors of %d bytes", t.Label, t.ID, t.SectorBytes)
	}
	got := map[int]partmap.Partition{}
	for _, p := range t.Partitions {
		if !p.Extended {
			got[p.Number] = p
		}
	}
	for _, p := range l.pieces {
		if p.Number == 0 {
			continue
		}
		q, found := got[p.Number]
		delete(got, p.Number)
		switch {
		case !found:
			return fmt.Sprintf("partition %d is missing", p.Number)
		case q.OffsetBytes() != p.OffsetBytes || q.SizeBytes() != p.targetBytes:
			return fmt.Sprintf("partition %d has %d bytes at %d", p.Number, q.SizeBytes(), q.OffsetBytes())
		case !strings.EqualFold(q.Type, p.PartType) || !strings.EqualFold(q.UUID, p.PartUUID) || q.Name != p.PartName:
			return fmt.Sprintf("partition %d has another type, UUID or name", p.Number)
		}
	}
	for number := range got {
		return fmt.Sprintf("partition %d is not one of the backup", number)
	}
	return ""
}
