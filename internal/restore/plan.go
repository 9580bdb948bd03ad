package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/say"
)

// maxScriptBytes is more than any partition table's text has.
const maxScriptBytes = 1 << 20

// Plan is a restore that was looked at and not begun. The caller closes it.
type Plan struct {
	Backup      string // VG/LV@TIME
	Destination string
	Target      string
	Steps       []Step
	Notes       []string // what will differ from the original
	Losses      []string // what is known not to come back
	Holds       []string // what is on the target and will be lost
	TotalBytes  int64    // of data to be read back and written

	run         string
	verify      Verify
	proofsAt    int    // the first of the steps that compare what was restored; 0 for none
	lock        string // "" for a folder
	lockScope   journal.Scope
	command     string // that others see who find the target in use
	mark        mark
	scratch     *scratch // nil for a restore that is for use
	targetBytes int64
	zeros       bool
	keepGoing   bool
	paths       []string
	source      *source
}

// Close closes the files of the backup.
func (p *Plan) Close() error { return p.source.close() }

// planner makes a plan.
type planner struct {
	*Engine
	req       Request
	m         *catalog.Manifest
	plan      *Plan
	dataBytes int64 // that will be written, about
	proofs    []Step
}

// Plan looks at the backup and the target and returns the steps. It changes nothing. The error wraps ErrUsage,
// ErrOccupied or ErrInUse for a request that is refused.
func (e *Engine) Plan(ctx context.Context, req Request) (_ *Plan, err error) {
	m := req.Backup.Manifest
	p := &planner{Engine: e, req: req, m: m}
	p.plan = &Plan{
		Backup: req.Backup.ID.String(), Destination: req.Destination, run: journal.NewRunID(e.Now().UTC()),
		keepGoing: req.KeepGoing, paths: req.Paths,
		source: &source{
			backup: req.Backup, store: req.Store, decrypt: req.Decrypt, damaged: req.KeepGoing,
			files: map[string]*sourceFile{}, stream: map[string]bool{},
		},
	}
	if req.Decrypt == nil {
		p.plan.source.decrypt = browse.Decrypt(nil, req.KeepGoing)
	}
	defer func() {
		if err != nil {
			doing := "restore"
			if req.Target.Kind == ToScratch {
				doing = "try"
			}
			err = errors.Join(fmt.Errorf("%s %s: %w", doing, p.plan.Backup, err), p.plan.Close())
		}
	}()
	if err := p.check(); err != nil {
		return nil, err
	}
	if err := p.openSource(ctx); err != nil {
		return nil, err
	}
	p.plan.verify = p.req.Verify
	if m.Status == catalog.StatusDamaged {
		list := "the manifest"
		if m.Encryption != nil && m.Encryption.Details != "" {
			list = m.Encryption.Details
		}
		p.note("part of the data could not be read when the backup was made; %s lists what is missing", list)
	}
	if req.Verify != VerifyNone {
		sums := newVerifySums(p.plan.source, req.KeepGoing)
		p.add(sums)
		p.plan.TotalBytes += sums.bytes
	}
	if req.Verify == VerifyStream {
		p.note("the sums of archives and images are checked as they are read: " +
			"a failure at the end leaves the target incomplete")
	}
	if len(req.Paths) > 0 && !req.KeepGoing {
		p.addFindPaths()
	}
	if req.Target.Kind == ToFolder {
		return p.plan, p.planFolder()
	}
	return p.plan, p.planDisk(ctx)
}

func (p *planner) add(steps ...Step) { p.plan.Steps = append(p.plan.Steps, steps...) }

func (p *planner) note(format string, args ...any) {
	p.plan.Notes = append(p.plan.Notes, fmt.Sprintf(format, args...))
}

// check refuses requests that make no sense.
func (p *planner) check() error {
	if p.m.Source.Kind != catalog.SourceVolume && p.req.Target.Kind != ToFolder {
		return say.WithHint(fmt.Errorf("%w: it is of a %s, not of a volume", ErrUsage, p.m.Source.Kind),
			"give --to-dir DIR")
	}
	if t := &p.req.Target; t.Kind == ToVolume && t.LV == "" {
		t.VG, t.LV = p.m.Source.VG, p.m.Source.Name
	}
	if p.req.Verify == "" {
		p.req.Verify = VerifyFirst
	}
	if !slices.Contains([]Verify{VerifyFirst, VerifyStream, VerifyNone}, p.req.Verify) {
		return fmt.Errorf("%w: --verify is none of first, stream, none", ErrUsage)
	}
	if p.req.Target.SizeBytes < 0 {
		return fmt.Errorf("%w: a target of %d bytes", ErrUsage, p.req.Target.SizeBytes)
	}
	if p.req.Privileges && p.req.Target.Kind != ToFolder {
		return fmt.Errorf("%w: --privileges is for --to-dir; a filesystem that is made again has them always", ErrUsage)
	}
	for _, pattern := range p.req.Paths {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("%w: --path %q: %w", ErrUsage, pattern, err)
		}
	}
	var names []string
	for _, x := range p.m.Extents {
		if x.Number != 0 {
			names = append(names, x.Name)
		}
	}
	for _, name := range p.req.Partitions {
		if !slices.Contains(names, name) {
			there := "the backup has " + inWords(names)
			if len(names) == 0 {
				there = "the backup is of the whole volume, without partitions: leave --partition out"
			}
			return say.WithHint(fmt.Errorf("%w: there is no partition %q", ErrUsage, name), there)
		}
	}
	return p.checkGroups()
}

// wanted tells whether an extent is one to restore. What lies outside of partitions goes with all of them.
func (p *planner) wanted(x catalog.Extent) bool {
	if x.LV != nil {
		return p.wantsGroup(x.LV.VGUUID)
	}
	return len(p.req.Partitions) == 0 || x.Number == 0 || slices.Contains(p.req.Partitions, x.Name)
}

// openSource opens all the files that the restore needs.
func (p *planner) openSource(ctx context.Context) error {
	s := p.plan.source
	var names []string
	if p.m.Table != nil && p.req.Target.Kind != ToFolder {
		names = append(names, p.m.Names().Table())
	}
	for _, x := range p.m.Extents {
		isFiles := x.State == catalog.StateFiles
		if !p.wanted(x) || p.req.Target.Kind == ToFolder && !isFiles {
			continue
		}
		if isFiles || x.State == catalog.StateImage || x.State == catalog.StateLVM {
			names = append(names, x.Archive)
			s.stream[x.Archive] = p.req.Verify == VerifyStream
			p.dataBytes += x.NeededBytes(piece{Extent: x}.sharesAgain())
		}
		if x.PV != nil && x.PV.Tail != "" {
			names = append(names, x.PV.Tail)
		}
		if isFiles && x.Index != nil {
			names = append(names, x.Index.Name)
		}
		if isFiles && x.BootArea != "" && p.req.Target.Kind != ToFolder {
			names = append(names, x.BootArea)
		}
	}
	if isStream(p.m) {
		for _, d := range p.m.Dumps {
			names = append(names, d.File)
			s.stream[d.File] = p.req.Verify == VerifyStream
		}
	}
	if p.m.Definition != "" && p.req.Target.Kind == ToScratch { // a drill says of the whole backup that it is good
		names = append(names, p.m.Definition)
	}
	for _, name := range names {
		if err := s.use(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// planDisk plans a restore to something that has blocks.
func (p *planner) planDisk(ctx context.Context) error {
	place, err := p.find(ctx)
	if err != nil {
		return err
	}
	p.plan.Target, p.plan.lock, p.plan.mark, p.plan.scratch = place.what, place.lock, place.mark, place.scratch
	p.plan.lockScope, p.plan.command = journal.ScopeVolume, "voltar restore"
	if place.scratch != nil {
		p.plan.lockScope, p.plan.command = journal.ScopeScratch, "voltar drill"
	}
	p.plan.targetBytes, p.plan.zeros, p.plan.Holds = place.sizeBytes, place.zeros, place.holds
	layout, err := p.layOut(place)
	if err != nil {
		return err
	}
	within := len(p.req.Partitions) > 0 && place.device != "" && len(place.holds) > 0
	if within {
		// Only some partitions of a disk that is otherwise kept: it must be the same disk.
		if err := layout.holdsLayout(place.device, place.sizeBytes, p.m.Table); err != nil {
			return say.WithHint(fmt.Errorf("%w: %w", ErrUsage, err), "without --partition all of it is overwritten")
		}
	}
	if err := place.refuse(p.req.Force); err != nil {
		return err
	}
	if err := p.checkTwins(ctx, layout, place.device); err != nil {
		return err
	}
	p.add(place.open...)
	if !within {
		if place.device != "" {
			p.add(&clearTarget{device: place.device, sizeBytes: place.sizeBytes, thin: place.thin, zeroes: place.zeroes})
		}
		p.addOutside(layout)
	}
	if err := p.addInside(ctx, layout); err != nil {
		return err
	}
	if err := p.checkMaps(ctx); err != nil {
		return err
	}
	if len(p.proofs) > 0 {
		p.plan.proofsAt = len(p.plan.Steps)
	}
	p.add(p.proofs...)
	p.add(place.close...)
	p.checkSectors(place)
	return nil
}

func (p *planner) layOut(place *place) (*layout, error) {
	var script []byte
	if p.m.Table != nil {
		var err error
		name := p.m.Names().Table()
		if script, err = p.plan.source.whole(name, maxScriptBytes); err != nil {
			return nil, err
		}
	}
	grow := p.req.Grow || place.device == "" && p.req.Target.SizeBytes > p.m.Source.SizeBytes
	layout, err := layOut(p.m, script, place.sizeBytes, grow)
	if err != nil {
		return nil, err
	}
	p.plan.Notes = append(p.plan.Notes, layout.notes...)
	return layout, nil
}

// checkSectors notes when a guest would see its disk in other sectors than before.
func (p *planner) checkSectors(place *place) {
	if place.device == "" || p.m.Source.LogicalSector == 0 {
		return
	}
	if own, err := sectorBytes(place.device); err == nil && own != p.m.Source.LogicalSector {
		p.note("the volume had sectors of %d bytes, and %s has %d", p.m.Source.LogicalSector, place.what, own)
	}
}

// addOutside adds what lies outside of partitions, and the table, which is written over it.
func (p *planner) addOutside(l *layout) {
	if l.script == nil {
		return
	}
	table := &writeTable{layout: l, want: p.m.Table}
	if p.req.Target.Kind == ToScratch {
		p.proofs = append(p.proofs, &proveTable{table})
	}
	for _, x := range l.pieces {
		switch {
		case x.Number != 0:
		case x.State == catalog.StateImage:
			p.add(&writeImage{x})
			p.addImageProof(x, table)
			p.plan.TotalBytes += x.SizeBytes
		default:
			p.note("%s (%s) is not stored: %s", x.label(), say.Size(x.SizeBytes), x.Reason)
		}
	}
	p.add(table)
}

// addInside adds the partitions, or the whole volume if there are none, and the logical volumes of guests.
func (p *planner) addInside(ctx context.Context, l *layout) error {
	progs := [2]int{}
	for _, x := range slices.Concat(l.partitions(), l.guests) {
		if !p.wanted(x.Extent) {
			p.note("%s is left as it is", x.label())
			continue
		}
		if x.Filesystem != nil && x.Filesystem.Type == "xfs" && progs == [2]int{} {
			progs = p.xfsprogs(ctx)
		}
		if err := p.addPiece(x, progs); err != nil {
			return fmt.Errorf("%s: %w", x.label(), err)
		}
	}
	return nil
}

// partitions are the pieces without what lies around them, or the whole volume if it has no table.
func (l *layout) partitions() []piece {
	if l.script == nil {
		return l.pieces
	}
	return slices.DeleteFunc(slices.Clone(l.pieces), func(x piece) bool { return x.Number == 0 })
}

func (p *planner) addPiece(x piece, xfsprogs [2]int) error {
	switch x.State {
	case catalog.StateImage:
		p.add(&writeImage{x})
		p.addProof(x, nil)
		p.plan.TotalBytes += x.SizeBytes
		return nil
	case catalog.StateLVM:
		p.addPV(x)
		return nil
	case catalog.StateFiles, catalog.StateSwap:
	default:
		p.note("%s is not stored: %s", x.label(), x.Reason)
		return nil
	}
	if err := p.checkRoom(x); err != nil {
		return err
	}
	fs, recipe, err := x.recipe(xfsprogs)
	if err != nil {
		return err
	}
	if err := p.checkTools(fs.Type, recipe); err != nil {
		return err
	}
	for _, note := range recipe.Notes {
		p.note("%s: %s", x.label(), note)
	}
	if x.State == catalog.StateSwap {
		p.add(&makeSwap{x, recipe, p.deviceOf(x)})
		return nil
	}
	p.add(&restoreFilesystem{
		piece: x, fs: fs, recipe: recipe, device: p.deviceOf(x), paths: p.req.Paths,
	})
	p.addProof(x, fs)
	p.plan.TotalBytes += x.ContentBytes
	return nil
}

// deviceOf names the device that a piece will have, for people. The number of a loop device is not known beforehand.
func (p *planner) deviceOf(x piece) string {
	switch t := p.req.Target; {
	case !p.plan.isWhole(x):
		return "/dev/mapper/" + p.plan.mapName(x)
	case t.Kind == ToVolume:
		return "/dev/" + t.VG + "/" + t.LV
	case t.Kind == ToDevice:
		return t.Path
	case t.Kind == ToScratch:
		return "/dev/mapper/voltar-drill-" + p.plan.run
	}
	return "/dev/loopN"
}

// isWhole says that a piece is all of the target and needs no map.
func (p *Plan) isWhole(x piece) bool {
	return x.LV == nil && x.OffsetBytes == 0 && x.targetBytes == p.targetBytes
}

func (p *Plan) mapName(x piece) string {
	return fmt.Sprintf("voltar-restore-%s-%s", p.run, x.mapSuffix())
}

// syncfs writes the filesystem that a folder is on to disk.
func syncfs(dir *os.File) error {
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir.Name(), err)
	}
	return nil
}
