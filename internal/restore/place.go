package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"voltar/internal/durable"
	"voltar/internal/journal"
	"voltar/internal/say"
	"voltar/lvm"
)

// place is the target as it was found, and how it is made or claimed.
type place struct {
	what      string // for people: "volume vg/lv"
	lock      string // name of its lock
	mark      mark   // how it shows that it is incomplete, and what to do then
	sizeBytes int64
	device    string   // of a target that exists
	thin      bool     // an existing volume that is thin
	zeroes    bool     // and whose pool fills blocks with zeros before their first use
	holds     []string // what lies on it
	open      []Step   // makes or claims it
	close     []Step   // takes the mark off
	zeros     bool     // what is not written reads as zeros
	scratch   *scratch // nil for what is for use
}

// find looks at the target of a request.
func (p *planner) find(ctx context.Context) (*place, error) {
	switch t := p.req.Target; t.Kind {
	case ToVolume:
		return p.findVolume(ctx, t)
	case ToDevice:
		return p.findDevice(ctx, t)
	case ToImage:
		return p.findImage(t)
	case ToScratch:
		return p.findScratch(t)
	case ToFolder:
	}
	return nil, fmt.Errorf("%w: no target of the kind %q", ErrUsage, p.req.Target.Kind)
}

func (p *planner) findVolume(ctx context.Context, t Target) (*place, error) {
	if _, err := p.Runner.LookPath("lvs"); err != nil {
		return nil, say.WithHint(fmt.Errorf("look for %s/%s: %w", t.VG, t.LV, err),
			"install lvm2, or give --to-image FILE or --to-device DEVICE")
	}
	inventory, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	v, err := inventory.Volume(t.VG, t.LV)
	switch {
	case err == nil:
		return p.claimVolume(ctx, v, inventory)
	case errors.Is(err, lvm.ErrVGNotFound):
		return nil, say.WithHint(fmt.Errorf("%w: there is no volume group %s on this host", ErrUsage, t.VG),
			p.whereElse(inventory))
	}
	vg, _ := inventory.VG(t.VG)
	pool, zeros, err := p.poolFor(t, inventory)
	if err != nil {
		return nil, err
	}
	size := t.SizeBytes
	if size == 0 {
		size = p.m.Source.SizeBytes
	}
	size = roundUp(size, vg.ExtentBytes)
	if free := max(vg.FreeBytes-p.req.Promised[t.VG], 0); pool == "" && free < size {
		return nil, p.noSpace(t.VG, vg.FreeBytes, free, size)
	}
	if pool == "" {
		p.req.promise(t.VG, size)
	}
	name := t.VG + "/" + t.LV
	tags := slices.DeleteFunc(slices.Clone(p.m.Source.Tags), func(tag string) bool {
		return lvm.ValidTag(tag) != nil || strings.HasPrefix(tag, journal.TagWas)
	})
	if kind := p.m.Source.LVKind; pool == "" && !slices.Contains([]string{"", "linear", "thin"}, kind) {
		p.note("the volume was %s and becomes linear", kind)
	}
	return &place{
		what: "volume " + name, lock: name, sizeBytes: size, zeros: zeros, mark: markOfVolume(name),
		open:  []Step{&makeVolume{vg: t.VG, name: t.LV, sizeBytes: size, pool: pool, tags: tags}},
		close: []Step{&unmarkVolume{vg: t.VG, name: t.LV, was: p.was(t.VG, t.LV, inventory)}},
	}, nil
}

// maxWas bounds how many tags are handed on of volumes that were restored again and again.
const maxWas = 16

// was are the tags by which a volume continues the history of the one that the backup is of, and of those which that one continued. It
// has to have its name, all of its content, and to take its place: one that is still on the host keeps its history.
func (p *planner) was(vg, lv string, inventory lvm.Inventory) []string {
	source := p.m.Source
	isLive := slices.ContainsFunc(inventory.Volumes, func(v lvm.Volume) bool { return v.VGUUID == source.VGUUID && v.UUID == source.LVUUID })
	if isLive || source.VG != vg || source.Name != lv || len(p.req.Partitions)+len(p.req.Paths) > 0 {
		return nil
	}
	tags := []string{journal.TagWas + string(source.Identity())}
	for _, tag := range source.Tags {
		if strings.HasPrefix(tag, journal.TagWas) && len(tags) < maxWas {
			tags = append(tags, tag)
		}
	}
	return slices.DeleteFunc(tags, func(tag string) bool { return lvm.ValidTag(tag) != nil })
}

// noSpace is the error of a new volume that a volume group has no space for. free is what is left of all that is free.
func (p *planner) noSpace(vg string, allFree, free, size int64) error {
	hint := "make space (`vgextend`, `lvremove`), or give --to-lv VG/LV in another group, --size SIZE, --thin-pool NAME or --to-image FILE"
	rest := ""
	if p.req.Promised != nil {
		hint = "make space (`vgextend`, `lvremove`), or give --vg NAME of another group, or --thin-pool NAME"
		if free < allFree {
			rest = fmt.Sprintf(", of which the other disks take %s", say.Size(allFree-free))
		}
	}
	return say.WithHint(fmt.Errorf("%w: %s has %s free%s, and the volume takes %s",
		lvm.ErrNoSpace, vg, say.Size(allFree), rest, say.Size(size)), hint)
}

// whereElse is a hint for a volume whose group is not here.
func (p *planner) whereElse(inventory lvm.Inventory) string {
	var names []string
	for _, vg := range inventory.VGs {
		names = append(names, vg.Name)
	}
	switch {
	case p.req.Promised != nil && len(names) == 0:
		return "make one (`vgcreate`); `voltar restore VOLUME --to-image FILE` needs none"
	case p.req.Promised != nil:
		return "give --vg NAME, of one of " + strings.Join(names, ", ")
	case len(names) == 0:
		return "give --to-image FILE or --to-device DEVICE"
	}
	return "give --to-lv VG/LV, where VG is one of " + strings.Join(names, ", ")
}

// mark says how a target shows that it is incomplete, and what a person can do then.
type mark struct{ text, hint string }

func markOfVolume(name string) mark {
	return mark{fmt.Sprintf("The volume %s is incomplete and carries the tag %s.", name, journal.TagIncomplete),
		fmt.Sprintf("restore again with --force, or remove it with `lvremove %s`", name)}
}

// poolFor returns the thin pool for a new volume, or "" for a linear one, and whether what is not written to the volume
// will read as zeros.
func (p *planner) poolFor(t Target, inventory lvm.Inventory) (name string, zeros bool, err error) {
	pool := t.ThinPool
	switch {
	case t.Classic:
		return "", false, nil
	case pool == "":
		pool = p.m.Source.ThinPool
	}
	if pool == "" {
		return "", false, nil
	}
	v, err := inventory.Volume(t.VG, pool)
	if err != nil || v.Kind != lvm.KindThinPool {
		return "", false, say.WithHint(fmt.Errorf("%w: there is no thin pool %s/%s", ErrUsage, t.VG, pool),
			"give --thin-pool NAME or --classic")
	}
	p.req.promise(v.String(), p.dataBytes)
	written := max(p.req.Promised[v.String()], p.dataBytes)
	if free := int64(float64(v.SizeBytes) * (100 - v.DataPercent) / 100); v.DataPercent >= 0 && free < written {
		p.note("the thin pool %s has %s free, and %s will be written", v, say.Size(free), say.Size(written))
	}
	p.noteOldBlocks(v)
	return pool, v.ZeroesNewBlocks(), nil
}

// noteOldBlocks says what a pool, or the pool of a volume, costs that hands out blocks as they are.
func (p *planner) noteOldBlocks(v lvm.Volume) {
	if !v.ZeroesNewBlocks() {
		p.note("the thin pool does not fill new blocks with zeros (lvcreate --zero n): images take their full size in it")
	}
}

// claimVolume looks at a volume that exists.
func (p *planner) claimVolume(ctx context.Context, v lvm.Volume, inventory lvm.Inventory) (*place, error) {
	t := p.req.Target
	if err := usable(v); err != nil {
		return nil, err
	}
	switch {
	case t.SizeBytes != 0 && t.SizeBytes != v.SizeBytes:
		return nil, say.WithHint(fmt.Errorf("%w: %s exists and has %s", ErrUsage, v, say.Size(v.SizeBytes)),
			"`lvresize` it first and leave --size out, or restore to a new volume with --to-lv")
	case t.Classic && v.IsThin() || t.ThinPool != "" && v.Pool != t.ThinPool:
		return nil, say.WithHint(fmt.Errorf("%w: %s exists and is %s", ErrUsage, v, v.Kind), "restore to a new volume")
	}
	if err := p.checkUnused(ctx, v.DMPath); err != nil {
		return nil, err
	}
	holds, err := p.contents(ctx, v.DMPath, v.SizeBytes)
	if err != nil {
		return nil, err
	}
	if v.IsThin() {
		p.noteOldBlocks(v)
	}
	return &place{
		what: "volume " + v.String(), lock: v.String(), mark: markOfVolume(v.String()),
		sizeBytes: v.SizeBytes, device: v.DMPath, thin: v.IsThin(), zeroes: v.ZeroesNewBlocks(),
		holds: append(holds, volumeContents(v, inventory)...),
		open:  []Step{&claimVolume{vg: v.VG, name: v.Name, uuid: v.UUID}},
		close: []Step{&unmarkVolume{vg: v.VG, name: v.Name, was: p.was(v.VG, v.Name, inventory)}},
	}, nil
}

// usable returns why nothing can be restored to a volume, or nil.
func usable(v lvm.Volume) error {
	switch {
	case v.Internal || v.IsPool() || v.IsClassicSnapshot() || v.Merging || v.Converting:
		return fmt.Errorf("%w: %s is a volume of the kind %s (%s)", ErrUsage, v, v.Kind, v.Attr)
	case v.ReadOnly:
		return say.WithHint(fmt.Errorf("%w: %s is read-only", ErrUsage, v), fmt.Sprintf("`lvchange -prw %s`", v))
	case !v.Active:
		return say.WithHint(fmt.Errorf("%w: %s is not active", ErrUsage, v), fmt.Sprintf("`lvchange -ay %s`", v))
	}
	return nil
}

// volumeAt finds the logical volume that a block device is.
func (p *planner) volumeAt(path string, inventory lvm.Inventory) (lvm.Volume, bool, error) {
	devs, err := p.LVM.DevicesOfPath(path)
	if err != nil {
		return lvm.Volume{}, false, err
	}
	for _, v := range inventory.Volumes {
		if dev, active := v.Dev(); active && slices.Contains(devs, dev) {
			return v, true, nil
		}
	}
	return lvm.Volume{}, false, nil
}

// findDevice looks at a block device. One that is a logical volume is treated as such.
func (p *planner) findDevice(ctx context.Context, t Target) (*place, error) {
	if t.SizeBytes != 0 || t.Classic || t.ThinPool != "" {
		return nil, fmt.Errorf("%w: a device has the size and kind that it has", ErrUsage)
	}
	if err := p.checkUnused(ctx, t.Path); err != nil {
		return nil, err
	}
	inventory, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	if v, found, err := p.volumeAt(t.Path, inventory); err != nil || found {
		if err != nil {
			return nil, err
		}
		return p.claimVolume(ctx, v, inventory)
	}
	size, err := deviceSize(t.Path)
	if err != nil {
		return nil, err
	}
	holds, err := p.contents(ctx, t.Path, size)
	if err != nil {
		return nil, err
	}
	return &place{
		what: "device " + t.Path, lock: t.Path, sizeBytes: size, device: t.Path, holds: holds,
		mark:  mark{fmt.Sprintf("What is on %s is incomplete.", t.Path), "restore again with --force"},
		open:  []Step{&claimDevice{path: t.Path}},
		close: []Step{&letGoDevice{path: t.Path}},
	}, nil
}

// findImage looks at where an image file is to be.
func (p *planner) findImage(t Target) (*place, error) {
	path, err := filepath.Abs(t.Path)
	if err != nil {
		return nil, err
	}
	place := &place{what: "image file " + path, lock: path, sizeBytes: t.SizeBytes, zeros: true}
	place.mark = mark{fmt.Sprintf("The file %s is incomplete.", path+incompleteSuffix),
		"restore again, which replaces it, or remove it"}
	if t.SizeBytes == 0 {
		place.sizeBytes = p.m.Source.SizeBytes
	}
	if place.sizeBytes%512 != 0 {
		return nil, fmt.Errorf("%w: %d bytes are no whole sectors", ErrUsage, place.sizeBytes)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, say.WithHint(fmt.Errorf("%w: %s is no ordinary file", ErrUsage, path),
			"--to-device is for block devices")
	default:
		place.holds = []string{"a file of " + say.Size(info.Size())}
	}
	if err := p.noteFree(filepath.Dir(path), p.dataBytes); err != nil {
		return nil, err
	}
	sectorBytes := 512
	if p.m.Table != nil {
		sectorBytes = p.m.Table.SectorBytes
	}
	image := &imageFile{path: path, sizeBytes: place.sizeBytes, sectorBytes: sectorBytes}
	place.open, place.close = []Step{&makeImage{image}}, []Step{&closeImage{image}}
	return place, nil
}

func roundUp(n, to int64) int64 {
	if to <= 0 {
		return n
	}
	return (n + to - 1) / to * to
}

// makeVolume creates the volume, marked from its first moment on.
type makeVolume struct {
	vg, name  string
	sizeBytes int64
	pool      string
	tags      []string
}

func (s *makeVolume) Describe() []string {
	where := "in volume group " + s.vg
	if s.pool != "" {
		where = "in thin pool " + s.vg + "/" + s.pool
	}
	return []string{fmt.Sprintf("create volume %s/%s of %s %s, with the tag %s", s.vg, s.name,
		say.Size(s.sizeBytes), where, journal.TagIncomplete)}
}

func (s *makeVolume) do(ctx context.Context, w *work) error {
	v, undo, err := w.owner.NewVolume(ctx, lvm.VolumeRequest{
		VG: s.vg, Name: s.name, SizeBytes: s.sizeBytes, Pool: s.pool, Tags: s.tags,
	})
	if undo != nil {
		w.held.Push(undo)
	}
	w.touched, w.device = v.DMPath != "", v.DMPath
	if err != nil {
		return err
	}
	if v.SizeBytes != s.sizeBytes {
		return fmt.Errorf("cannot use %s: it has %d bytes instead of %d", v, v.SizeBytes, s.sizeBytes)
	}
	return nil
}

// claimVolume marks a volume that exists.
type claimVolume struct{ vg, name, uuid string }

func (s *claimVolume) Describe() []string {
	return []string{fmt.Sprintf("overwrite volume %s/%s, tagged %s meanwhile", s.vg, s.name, journal.TagIncomplete)}
}

func (s *claimVolume) do(ctx context.Context, w *work) error {
	v, err := w.LVM.Lookup(ctx, s.vg, s.name)
	if err != nil {
		return err
	}
	if v.UUID != s.uuid {
		return fmt.Errorf("claim %s: %w", v, lvm.ErrNotOurs)
	}
	if err := w.checkUnused(ctx, v.DMPath); err != nil {
		return err
	}
	undo, err := w.owner.MarkIncomplete(ctx, v)
	if undo != nil {
		w.held.Push(undo)
	}
	if err != nil {
		return err
	}
	w.touched, w.device = true, v.DMPath
	return nil
}

// unmarkVolume is the last step of a volume.
type unmarkVolume struct {
	vg, name string
	was      []string // tags by which it continues the history of the volume that the backup is of
}

func (s *unmarkVolume) Describe() []string {
	lines := []string{fmt.Sprintf("write everything to disk and take the tag %s from %s/%s", journal.TagIncomplete, s.vg, s.name)}
	if len(s.was) > 0 {
		lines = append(lines, fmt.Sprintf("tag %s/%s with %s: it continues the history of the volume that is gone",
			s.vg, s.name, strings.Join(s.was, " and ")))
	}
	return lines
}

func (s *unmarkVolume) do(ctx context.Context, w *work) error {
	if err := flushDevice(w.device); err != nil {
		return err
	}
	for _, tag := range s.was {
		if err := w.LVM.AddTag(ctx, s.vg, s.name, tag); err != nil {
			return err
		}
	}
	return w.LVM.DelTag(ctx, s.vg, s.name, journal.TagIncomplete)
}

// claimDevice looks once more whether the device is free.
type claimDevice struct{ path string }

func (s *claimDevice) Describe() []string { return []string{"overwrite device " + s.path} }

func (s *claimDevice) do(ctx context.Context, w *work) error {
	if err := w.checkUnused(ctx, s.path); err != nil {
		return err
	}
	w.touched, w.device = true, s.path
	return nil
}

// letGoDevice has the kernel read the new partition table.
type letGoDevice struct{ path string }

func (s *letGoDevice) Describe() []string {
	return []string{fmt.Sprintf("write everything to disk and have the kernel read the partition table of %s", s.path)}
}

func (s *letGoDevice) do(_ context.Context, w *work) (err error) {
	if err := flushDevice(s.path); err != nil {
		return err
	}
	file, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	// EINVAL: a device that has no partitions of its own, as the kernel sees it.
	rereadErr := unix.IoctlSetInt(int(file.Fd()), unix.BLKRRPART, 0)
	if rereadErr != nil && !errors.Is(rereadErr, unix.EINVAL) {
		w.note("the kernel did not read the partition table of %s again: %v; `partprobe` may help", s.path, rereadErr)
	}
	return nil
}

// flushDevice writes what is cached of a device and forgets it, so that later readers see what is on the disk.
func flushDevice(device string) (err error) {
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := file.Sync(); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(int(file.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("cannot flush %s: %w", device, err)
	}
	return nil
}

// imageFile is the image while it is made.
type imageFile struct {
	path        string
	sizeBytes   int64
	sectorBytes int
	base        int // of what was held before the loop device
}

func (f *imageFile) unfinished() string { return f.path + incompleteSuffix }

// makeImage makes the sparse file under its unfinished name and gives it a loop device.
type makeImage struct{ *imageFile }

func (s *makeImage) Describe() []string {
	return []string{
		fmt.Sprintf("create sparse file %s of %s", s.unfinished(), say.Size(s.sizeBytes)),
		fmt.Sprintf("give it a loop device with sectors of %d bytes", s.sectorBytes),
	}
}

func (s *makeImage) do(ctx context.Context, w *work) error {
	if err := removeStale(s.unfinished()); err != nil {
		return err
	}
	file, err := os.OpenFile(s.unfinished(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w.touched = true
	if err := errors.Join(file.Truncate(s.sizeBytes), file.Close()); err != nil {
		return err
	}
	s.base = w.held.Len()
	w.device, err = w.attach(ctx, s.unfinished(), s.sectorBytes)
	return err
}

// removeStale removes what an earlier restore left under the name.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("cannot replace %s: it is no ordinary file", path)
	}
	return os.Remove(path)
}

// attach gives a file or device a loop device until the restore lets go of it.
func (w *work) attach(ctx context.Context, path string, sectorBytes int) (string, error) {
	device, undo, err := w.owner.Loop(ctx, path, sectorBytes)
	if undo != nil {
		w.held.Push(undo)
	}
	return device, err
}

// closeImage gives the finished file its name.
type closeImage struct{ *imageFile }

func (s *closeImage) Describe() []string {
	return []string{fmt.Sprintf("detach it and rename it to %s", s.path)}
}

func (s *closeImage) do(ctx context.Context, w *work) error {
	if err := errors.Join(flushDevice(w.device), w.held.ReleaseTo(ctx, s.base)); err != nil {
		return err
	}
	if err := syncFile(s.unfinished()); err != nil {
		return err
	}
	return durable.Rename(s.unfinished(), s.path)
}

// syncFile writes what is cached of a file to disk.
func syncFile(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// refuse returns an error for a target that holds something, unless the request says to overwrite it.
func (p *place) refuse(force bool) error {
	if len(p.holds) == 0 || force {
		return nil
	}
	return say.WithHint(fmt.Errorf("%w: %s holds %s", ErrOccupied, p.what, strings.Join(p.holds, " and ")),
		"--force overwrites it")
}
