package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"voltar/internal/admit"
	"voltar/internal/catalog"
	"voltar/internal/keep"
	"voltar/internal/placement"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/lvm"
	"voltar/report"
)

// Preview is what a run would do.
type Preview struct {
	Volumes      []PreviewVolume      `json:"volumes"`
	Sources      []PreviewSource      `json:"sources"` // dumps and directories; streams too, which runs of their own take
	Groups       []PreviewGroup       `json:"volume_groups"`
	Destinations []PreviewDestination `json:"destinations"`
	Unmatched    []string             `json:"unmatched,omitempty"` // patterns of the configuration that match no volume; the caller's to fill
	Looked       bool                 `json:"-"`                   // whether the host's volumes were looked at
	Known        []lvm.Volume         `json:"-"`                   // all of them then
}

// PreviewVolume is one volume that would be backed up.
type PreviewVolume struct {
	Name          string `json:"name"`
	SizeBytes     int64  `json:"size"`
	SnapshotBytes int64  `json:"snapshot"` // copy-on-write space; 0 for thin
	Problem       string `json:"problem,omitempty"`
	WaitsFor      string `json:"waits_for,omitempty"` // the volume group in which it waits for space that others take first
}

// PreviewSource is one source that is no volume.
type PreviewSource struct {
	Name    string   `json:"name"`              // @dump/NAME, @directory/NAME or @stream/NAME
	Path    string   `json:"path,omitempty"`    // of a directory
	Preset  string   `json:"preset,omitempty"`  // of a dump or stream that has one
	Command []string `json:"command,omitempty"` // of a dump or stream
	Host    string   `json:"host,omitempty"`    // that it runs on; "" is this one
	Problem string   `json:"problem,omitempty"`
	Hint    string   `json:"hint,omitempty"` // what to do about the problem, where more is known than it says
	Note    string   `json:"note,omitempty"` // what of a directory is left out, and why
}

// PreviewGroup is the space for snapshots in one volume group.
type PreviewGroup struct {
	Name        string `json:"name"`
	FreeBytes   int64  `json:"free"`
	WantedBytes int64  `json:"wanted"` // by the largest snapshots that may be there at one time
}

// PreviewDestination is one destination and what retention would remove there once tonight's backups stand.
type PreviewDestination struct {
	Name      string           `json:"name"`
	Where     string           `json:"where"`
	FreeBytes int64            `json:"free"` // -1 when it cannot be told
	Problem   string           `json:"problem,omitempty"`
	Hint      string           `json:"hint,omitempty"` // what to do about the problem, a line for each thing
	Note      string           `json:"note,omitempty"` // that it is not there yet
	Unusable  bool             `json:"-"`              // nothing can be written to it
	Remove    []report.Removed `json:"remove,omitempty"`
}

// Preview looks at everything that a run would look at, and changes nothing.
func (e *Engine) Preview(ctx context.Context, patterns []string) (*Preview, error) {
	chosen, err := e.choose(ctx, patterns)
	if err != nil {
		return nil, err
	}
	plan := chosen.plan
	p := &Preview{Sources: []PreviewSource{}}
	if chosen.looked {
		p.Looked, p.Known = true, plan.Volumes
	}
	for _, s := range chosen.sources {
		p.Sources = append(p.Sources, e.previewSource(ctx, s))
	}
	if len(patterns) == 0 {
		for _, d := range e.opts.Sources.Streams {
			p.Sources = append(p.Sources, e.previewSource(ctx, dumpSource(catalog.SourceStream, d)))
		}
	}
	wanted := map[string][]int64{}
	p.Volumes = e.previewVolumes(plan)
	for _, line := range p.Volumes {
		vg, _, _ := strings.Cut(line.Name, "/")
		wanted[vg] = append(wanted[vg], line.SnapshotBytes)
	}
	for _, vg := range plan.VGs {
		sizes := wanted[vg.Name]
		if len(sizes) == 0 {
			continue
		}
		slices.Sort(sizes)
		slices.Reverse(sizes)
		g := PreviewGroup{Name: vg.Name, FreeBytes: vg.FreeBytes}
		for _, size := range sizes[:min(len(sizes), e.opts.Parallel)] {
			g.WantedBytes += size
		}
		p.Groups = append(p.Groups, g)
	}
	placing := e.placing()
	placing.RestoredAs = restoredAs(plan.Inventory)
	if len(patterns) > 0 {
		placing.Wanted = chosen.refs()
	}
	for _, d := range e.opts.Destinations {
		line := previewDestination(ctx, placing, d, chosen)
		if err := e.opts.vanished(ctx, d); err != nil {
			line.tell(err)
		}
		p.Destinations = append(p.Destinations, line)
	}
	return p, nil
}

// previewVolumes says what snapshot each volume would get, as the queue of a run decides it. What has to wait is shown with
// what it may have when nothing else of the run holds space.
func (e *Engine) previewVolumes(plan *Plan) []PreviewVolume {
	units := e.opts.units(plan)
	requests := make([]admit.Request, len(units))
	for i, u := range units {
		for _, v := range u.volumes {
			requests[i] = append(requests[i], e.opts.wantOf(v, plan.VGOf(v)))
		}
	}
	state := admit.State{Parallel: e.opts.Parallel, SpareFraction: e.opts.spareFraction(), Rooms: e.opts.rooms(plan)}
	lines := []PreviewVolume{}
	for i, d := range state.Pass(requests) {
		waits := d.WaitsFor
		if !d.Admitted {
			alone := admit.State{Parallel: e.opts.Parallel, SpareFraction: e.opts.spareFraction(), Rooms: e.opts.rooms(plan)}
			d = alone.Pass(requests[i : i+1])[0]
		}
		for j, v := range units[i].volumes {
			line := PreviewVolume{Name: v.String(), SizeBytes: v.SizeBytes, SnapshotBytes: d.Bytes[j]}
			err := d.Errs[j]
			if v.IsThin() {
				err = e.opts.checkPool(plan, v)
			}
			if err != nil {
				line.Problem = report.ProblemOf(err).Message
			} else {
				line.Problem = lvm.SizeReduced{WantedBytes: requests[i][j].WantBytes, GrantedBytes: d.Bytes[j]}.String()
				line.WaitsFor = waits
			}
			lines = append(lines, line)
		}
	}
	slices.SortFunc(lines, func(a, b PreviewVolume) int { return strings.Compare(a.Name, b.Name) })
	return lines
}

// checkPool looks whether the pool of a thin volume is below its limits, as the inventory has it.
func (o *Options) checkPool(plan *Plan, v lvm.Volume) error {
	pool, err := plan.PoolOf(v)
	if err != nil {
		return err
	}
	return pool.Check(o.Snapshot.ThinDataPercent, o.Snapshot.ThinMetadataPercent)
}

// previewSource looks at a source without running anything.
func (e *Engine) previewSource(ctx context.Context, s source) PreviewSource {
	line := PreviewSource{
		Name: s.name(), Path: s.Path, Preset: s.dump.Preset, Command: s.dump.Command, Host: s.dump.Remote.Host,
	}
	if s.Kind != catalog.SourceDirectory {
		return line
	}
	var err error
	if s.directory.RequireMount != "" {
		err = checkMounted(s.directory.RequireMount)
	}
	if err == nil {
		err = say.AsRoot(tryFolder(s.Path))
	}
	var own ownFolders
	var unknown []error
	if err == nil {
		own, unknown = e.ownFolders(ctx, s.Path)
		err = own.checkRoot(s.Path)
	}
	if err == nil {
		line.Note, err = own.noteBelow(s.Path, unknown)
	}
	if err != nil {
		problem := report.ProblemOf(err)
		line.Problem, line.Hint = problem.Message, problem.Hint
	}
	return line
}

// tryFolder looks whether a folder can be read, however many entries it has.
func tryFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = dir.Readdirnames(1)
	if errors.Is(err, io.EOF) { // it is empty
		err = nil
	}
	return errors.Join(err, dir.Close())
}

func previewDestination(ctx context.Context, placing *placement.Run, d placement.Destination, chosen choice) PreviewDestination {
	line := PreviewDestination{Name: d.Name, Where: d.Store.String(), FreeBytes: -1}
	target, err := placement.Look(ctx, placing, d)
	if err != nil {
		line.Unusable = true
		line.tell(err)
		return line
	}
	line.Note = store.PendingNote(ctx, d.Store)
	usage, err := d.Store.Usage(ctx)
	switch {
	case err != nil:
		line.tell(err)
	default:
		line.FreeBytes = usage.FreeBytes
		if err := NoRoom(usage); err != nil {
			line.Unusable = true
			line.tell(err)
		}
	}
	if keep.IsEmpty(d.Policy) {
		return line
	}
	var tonight []catalog.Entry
	for _, v := range chosen.plan.Selected() {
		tonight = append(tonight, catalog.Entry{
			Identity: catalog.VolumeIdentity(v.VGUUID, v.UUID), ID: catalog.ID{Ref: catalog.VolumeRef(v.VG, v.Name)},
		})
	}
	for _, s := range chosen.sources {
		tonight = append(tonight, catalog.Entry{Identity: s.Identity(), ID: catalog.ID{Ref: s.Ref()}})
	}
	if line.Remove, err = previewRetention(ctx, placing, target.Kept(), tonight); err != nil {
		line.tell(err)
	}
	return line
}

// tell says what is wrong with the destination, of which there may be something already.
func (d *PreviewDestination) tell(err error) {
	if d.Problem == "" {
		d.Problem, d.Hint = store.Whole(err).Error(), report.ProblemOf(err).Hint
	}
}

// leastRoomBytes is the room below which not even a backup's own lists find place.
const leastRoomBytes = 1 << 20

// NoRoom says that a destination is full, where it is so that nothing can be stored there, or nil.
func NoRoom(usage store.Usage) error {
	if usage.TotalBytes <= 0 || usage.FreeBytes < 0 || usage.FreeBytes >= leastRoomBytes {
		return nil
	}
	return say.WithHint(fmt.Errorf("%w: it has %s free of %s", store.ErrNoSpace, say.Size(usage.FreeBytes), say.Size(usage.TotalBytes)),
		"make space there, or keep fewer backups; `voltar prune` removes what the policy no longer keeps")
}

// previewRetention decides as if tonight's backups of some volumes and sources stood.
func previewRetention(
	ctx context.Context, placing *placement.Run, d keep.Destination, tonight []catalog.Entry,
) (removed []report.Removed, err error) {
	k := placing.Keeper()
	var first error
	others := 0 // that failed, too; it goes into one line
	for _, made := range tonight {
		made.Host, made.MachineID, made.Status = placing.Host.Name, placing.Host.MachineID, catalog.StatusComplete
		made.ID.Time = placing.Now().UTC().Truncate(time.Second)
		verdicts, err := k.Decide(ctx, d, made.Identity, made)
		switch {
		case err == nil:
		case errors.Is(err, store.ErrDown) || ctx.Err() != nil:
			return removed, err
		case first == nil:
			first = err
			continue
		default:
			others++
			continue
		}
		condemned := verdicts.Condemned()
		frees, err := keep.Frees(ctx, d, condemned)
		if err != nil {
			return removed, err
		}
		for i, v := range condemned {
			line := report.Removed{Path: catalog.Place(d.Store, v.Entry.Path()), Reason: v.Reason, FreedBytes: v.Entry.SizeBytes}
			if frees != nil {
				line.FreedBytes = frees[i]
			}
			removed = append(removed, line)
		}
	}
	if others > 0 {
		return removed, fmt.Errorf("%w; and %d more", first, others)
	}
	return removed, first
}
