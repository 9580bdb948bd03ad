package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"voltar/internal/catalog"
	"voltar/internal/guestlvm"
	"voltar/internal/journal"
	"voltar/lvm"
)

// Volume groups of a guest that lie on several volumes of the host. Each volume is brought back by itself, with label and
// metadata of its physical volumes, and then waits for the backup that has the logical volumes: it keeps the tag
// voltar.incomplete, and carries voltar.awaits.UUID.TIME for each group that it waits for. The restore of that backup, which is
// told where the others are, fills the logical volumes across all of them and takes the tags off. Backups of another moment
// do not go together: label and metadata of one would describe what is not there.

// Beside says where another volume was brought back on which a volume group of the guest lies too.
type Beside struct {
	Volume catalog.Ref // as it was called when it was backed up
	Target Target      // ToVolume or ToDevice; the zero value is the volume of that name
}

// Await is a volume group of the guest whose logical volumes come with another backup.
type Await struct {
	VG      string `json:"vg"`
	Home    string `json:"home"`    // the backup
	Command string `json:"command"` // what brings it back
	tag     string
}

// besidePlace is a volume beside the target that a restore fills too.
type besidePlace struct {
	backup string   // VG/LV@TIME
	tags   []string // that say that it waits for this backup, one for each volume group
	pvs    []catalog.PVPlace
	what   string // for people
	lock   string
	device string
	vg     string // of a logical volume; "" for other devices
	name   string
	uuid   string
	awaits bool // it was brought back and waits for this backup
	other  bool // it waits for another one of the same volume group
	marked bool // it carried the mark of a restore before
}

// awaited returns the volume groups that a restore leaves without their logical volumes, but for those whose logical volumes
// no backup has any more.
func (p *planner) awaited() []Await {
	return slices.DeleteFunc(p.elsewhere(), func(a Await) bool { return p.req.Lacks[a.Home] != "" })
}

// elsewhere returns the volume groups whose logical volumes are in other backups.
func (p *planner) elsewhere() []Await {
	var list []Await
	for _, x := range p.m.Extents {
		if x.PV == nil || x.PV.Home == "" || !p.wanted(x) {
			continue
		}
		tag := awaitTag(x.PV.VGUUID, x.PV.Home)
		if !slices.ContainsFunc(list, func(a Await) bool { return a.tag == tag }) {
			list = append(list, Await{VG: x.PV.VG, Home: x.PV.Home, tag: tag})
		}
	}
	return list
}

// awaitTag says that a volume waits for the logical volumes of a guest's volume group from a backup.
func awaitTag(vgUUID, home string) string {
	_, when, _ := strings.Cut(home, "@")
	return journal.TagAwaits + vgUUID + "." + when
}

// checkHomes refuses to bring back what would never be whole, unless what is left of it is wanted.
func (p *planner) checkHomes() error {
	for _, a := range p.elsewhere() {
		why := p.req.Lacks[a.Home]
		switch {
		case why == "":
		case p.req.KeepGoing:
			loss := fmt.Sprintf("the logical volumes of the guest's volume group %s: the backup %s %s", a.VG, a.Home, why)
			p.plan.Losses = append(p.plan.Losses, loss)
		default:
			return fmt.Errorf("%w: the logical volumes of the guest's volume group %s are in the backup %s, which %s\nhint: %s, or give "+
				"--keep-going for what is left of this one", ErrUsage, a.VG, a.Home, why, p.olderHint())
		}
	}
	return nil
}

// olderHint says what there is instead of a backup that lacks others.
func (p *planner) olderHint() string {
	if p.req.Older == "" {
		return "no older backup of it has all that belongs with it"
	}
	return fmt.Sprintf("the newest that has all that belongs with it is older: `%s`", p.command(p.req.Older))
}

// command restores a backup that is found as this one was.
func (p *planner) command(backup string) string {
	return strings.TrimSpace("voltar restore " + backup + " " + p.req.Again)
}

// bringBack says how a volume beside the target is brought back.
func (p *planner) bringBack(backup string) string {
	if why := p.req.Lacks[backup]; why != "" {
		return fmt.Sprintf("the backup %s, which would bring it back, %s; %s", backup, why, p.olderHint())
	}
	return fmt.Sprintf("`%s` brings it back", p.command(backup))
}

// noteAwaited says with which command the logical volumes come that other backups have.
func (p *planner) noteAwaited(place *place) {
	for _, a := range p.awaited() {
		beside := p.m.Source.Ref().String()
		switch t := p.req.Target; {
		case t.Kind == ToVolume && t.VG+"/"+t.LV != beside:
			beside += "=" + t.VG + "/" + t.LV
		case t.Kind == ToDevice:
			beside += "=" + t.Path + " --force"
		case t.Kind == ToImage:
			beside += "=/dev/loopN --force"
			p.note("give %s%s a loop device with `losetup --find --show` for that, and its name without %[2]s when it is done",
				t.Path, incompleteSuffix)
		}
		a.Command = strings.TrimSpace(fmt.Sprintf("voltar restore %s --beside %s %s", a.Home, beside, p.req.Again))
		p.note("the logical volumes of the guest's volume group %s come with the backup %s, and %s stays marked as incomplete until then: %s",
			a.VG, a.Home, place.what, a.Command)
		p.plan.awaits = append(p.plan.awaits, a)
	}
}

// findBeside finds the other volumes that the restore has to fill.
func (p *planner) findBeside(ctx context.Context, own *place) ([]*besidePlace, error) {
	var list []*besidePlace
	for _, x := range p.m.Extents {
		if x.PV == nil || !p.wanted(x) {
			continue
		}
		for _, share := range x.PV.Others {
			at := slices.IndexFunc(list, func(b *besidePlace) bool { return b.backup == share.Backup })
			if at < 0 {
				list, at = append(list, &besidePlace{backup: share.Backup}), len(list)
			}
			list[at].tags = append(list[at].tags, awaitTag(x.PV.VGUUID, p.plan.Backup))
			list[at].pvs = append(list[at].pvs, share.PVs...)
		}
	}
	given := slices.Clone(p.req.Beside)
	for _, b := range list {
		id, err := catalog.ParseID(b.backup)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(given, func(g Beside) bool { return g.Volume == id.Ref })
		if at < 0 {
			return nil, p.lacksBeside(list)
		}
		if err := p.placeBeside(ctx, b, id.Ref, given[at].Target); err != nil {
			return nil, err
		}
		if b.lock == own.lock {
			return nil, fmt.Errorf("%w: %s is the target itself, and cannot stand for %s", ErrUsage, b.what, id.Ref)
		}
		given = slices.Delete(given, at, at+1)
	}
	if len(given) > 0 {
		return nil, fmt.Errorf("%w: --beside %s: nothing that is restored lies there", ErrUsage, given[0].Volume)
	}
	return list, nil
}

// lacksBeside explains how a volume group on several volumes is brought back.
func (p *planner) lacksBeside(list []*besidePlace) error {
	var volumes, first, flags []string
	for _, b := range list {
		volume, _, _ := strings.Cut(b.backup, "@")
		if why := p.req.Lacks[b.backup]; why != "" {
			return fmt.Errorf("%w: a volume group of the guest lies on %s too, and the backup %s, which has the part there, %s\n"+
				"hint: %s; --to-dir takes the files of this one", ErrUsage, volume, b.backup, why, p.olderHint())
		}
		volumes = append(volumes, volume)
		first = append(first, "`"+p.command(b.backup)+"`")
		flags = append(flags, "--beside "+volume)
	}
	return fmt.Errorf("%w: a volume group of the guest lies on %s too\n"+
		"hint: first %s, then `%s`, which fills both; --to-dir takes the files alone",
		ErrUsage, strings.Join(volumes, " and "), strings.Join(first, " and "),
		strings.TrimSpace(fmt.Sprintf("voltar restore %s %s %s", p.plan.Backup, strings.Join(flags, " "), p.req.Again)))
}

// placeBeside looks at one of the other volumes.
func (p *planner) placeBeside(ctx context.Context, b *besidePlace, ref catalog.Ref, t Target) error {
	inventory, err := p.inventory(ctx)
	if err != nil {
		return err
	}
	var v lvm.Volume
	var isVolume bool
	switch t.Kind {
	case ToDevice:
		if v, isVolume, err = p.volumeAt(t.Path, inventory); err != nil {
			return err
		}
	default:
		if t.LV == "" {
			t.VG, t.LV = ref.VG, ref.Name
		}
		if v, err = inventory.Volume(t.VG, t.LV); err != nil {
			return fmt.Errorf("%w: --beside %s: there is no volume %s/%s\nhint: %s", ErrUsage, ref, t.VG, t.LV, p.bringBack(b.backup))
		}
		isVolume = true
	}
	b.what, b.lock, b.device = "device "+t.Path, t.Path, t.Path
	if isVolume {
		if err := usable(v); err != nil {
			return err
		}
		b.what, b.lock, b.device, b.vg, b.name, b.uuid = "volume "+v.String(), v.String(), v.DMPath, v.VG, v.Name, v.UUID
		b.look(v.Tags)
	}
	if err := errors.Join(p.checkUnused(ctx, b.device), b.check()); err != nil {
		return err
	}
	switch {
	case b.other:
		return fmt.Errorf("%w: %s was brought back from a backup of another moment, and waits for the one that belongs with that\n"+
			"hint: %s, with --force", ErrUsage, b.what, p.bringBack(b.backup))
	case !b.awaits && !p.req.Force:
		return fmt.Errorf("%w: %s does not wait for this backup, and what its logical volumes hold would be overwritten\n"+
			"hint: %s; --force overwrites it", ErrOccupied, b.what, p.bringBack(b.backup))
	}
	return nil
}

// look reads the tags of a volume.
func (b *besidePlace) look(tags []string) {
	b.marked = slices.Contains(tags, journal.TagIncomplete)
	b.awaits = b.marked
	for _, tag := range b.tags {
		if slices.Contains(tags, tag) {
			continue
		}
		b.awaits = false
		group := tag[:strings.LastIndexByte(tag, '.')+1]
		b.other = b.other || slices.ContainsFunc(tags, func(other string) bool { return strings.HasPrefix(other, group) })
	}
}

// check wants each physical volume where it was backed up: nothing else must be written to.
func (b *besidePlace) check() (err error) {
	device, err := os.Open(b.device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	size, err := device.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	for _, pv := range b.pvs {
		if pv.OffsetBytes > size || pv.SizeBytes > size-pv.OffsetBytes {
			return fmt.Errorf("%w: %s has %d bytes, and a physical volume of the guest lies at %d to %d", ErrUsage, b.what, size,
				pv.OffsetBytes, pv.OffsetBytes+pv.SizeBytes)
		}
		uuid, err := guestlvm.UUID(guestlvm.Disk{Reader: io.NewSectionReader(device, pv.OffsetBytes, pv.SizeBytes), SizeBytes: pv.SizeBytes})
		if err == nil && uuid != pv.UUID {
			err = fmt.Errorf("that of %s is there", uuid)
		}
		if err != nil {
			return fmt.Errorf("%w: %s does not hold the guest's physical volume %s at byte %d: %w\nhint: bring %s back there first",
				ErrUsage, b.what, pv.UUID, pv.OffsetBytes, err, b.backup)
		}
	}
	return nil
}

// claimBeside marks a volume beside the target, when it is still what it was.
type claimBeside struct{ *besidePlace }

func (s *claimBeside) Describe() []string {
	return []string{fmt.Sprintf("claim %s, which holds a part of the guest's volume group", s.what)}
}

func (s *claimBeside) do(ctx context.Context, w *work) error {
	if s.vg != "" {
		v, err := w.LVM.Lookup(ctx, s.vg, s.name)
		if err != nil {
			return err
		}
		if v.UUID != s.uuid {
			return fmt.Errorf("claim %s: %w", v, lvm.ErrNotOurs)
		}
	}
	if err := errors.Join(w.checkUnused(ctx, s.device), s.check()); err != nil {
		return err
	}
	if s.vg != "" {
		if err := w.markIncomplete(ctx, s.vg, s.name, s.uuid); err != nil {
			return err
		}
	}
	if w.beside == nil {
		w.beside = map[string]string{}
	}
	w.touched, w.beside[s.backup] = true, s.device
	return nil
}

// unmarkBeside is the last step of a volume beside the target.
type unmarkBeside struct{ *besidePlace }

func (s *unmarkBeside) Describe() []string {
	if s.vg == "" {
		return []string{"write everything to disk on " + s.what}
	}
	return []string{fmt.Sprintf("write everything to disk on %s, and take the tags off that say what it awaits", s.what)}
}

func (s *unmarkBeside) do(ctx context.Context, w *work) error {
	if err := flushDevice(s.device); err != nil || s.vg == "" {
		return err
	}
	for _, tag := range s.tags {
		if err := w.LVM.DelTag(ctx, s.vg, s.name, tag); err != nil {
			return err
		}
	}
	v, err := w.LVM.Lookup(ctx, s.vg, s.name)
	if err != nil {
		return err
	}
	switch {
	case slices.ContainsFunc(v.Tags, isAwaiting):
		w.note("%s stays marked as incomplete: it awaits another volume group", s.what)
		return nil
	case s.marked && !s.awaits:
		w.note("%s stays marked as incomplete, as it was before: another restore of it was interrupted", s.what)
		return nil
	}
	return w.LVM.DelTag(ctx, s.vg, s.name, journal.TagIncomplete)
}

func isAwaiting(tag string) bool { return strings.HasPrefix(tag, journal.TagAwaits) }

// awaitVolume is the last step of a volume whose logical volumes come with another backup: it keeps the mark.
type awaitVolume struct {
	vg, name string
	awaited  []Await
}

func (s *awaitVolume) Describe() []string {
	return []string{fmt.Sprintf("write everything to disk, and leave the tag %s on %s/%s until its logical volumes are back",
		journal.TagIncomplete, s.vg, s.name)}
}

func (s *awaitVolume) do(ctx context.Context, w *work) error {
	if err := flushDevice(w.device); err != nil {
		return err
	}
	for _, a := range s.awaited {
		if err := w.LVM.AddTag(ctx, s.vg, s.name, a.tag); err != nil {
			return err
		}
	}
	return nil
}

// awaitImage is the last step of an image file whose logical volumes come with another backup: it keeps its name.
type awaitImage struct{ *imageFile }

func (s *awaitImage) Describe() []string {
	return []string{"detach it, and leave its name until its logical volumes are back"}
}

func (s *awaitImage) do(ctx context.Context, w *work) error {
	if err := errors.Join(flushDevice(w.device), w.releaseTo(ctx, s.base)); err != nil {
		return err
	}
	return syncFile(s.unfinished())
}
