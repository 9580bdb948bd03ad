package backup

import (
	"context"
	"os"
	"slices"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/keep"
	"voltar/lvm"
	"voltar/report"
)

// Preview is what a run would do.
type Preview struct {
	Volumes      []PreviewVolume      `json:"volumes"`
	Sources      []PreviewSource      `json:"sources"` // dumps and directories; streams too, which runs of their own take
	Groups       []PreviewGroup       `json:"volume_groups"`
	Destinations []PreviewDestination `json:"destinations"`
}

// PreviewVolume is one volume that would be backed up.
type PreviewVolume struct {
	Name          string `json:"name"`
	SizeBytes     int64  `json:"size"`
	SnapshotBytes int64  `json:"snapshot"` // copy-on-write space; 0 for thin
	Problem       string `json:"problem,omitempty"`
}

// PreviewSource is one source that is no volume.
type PreviewSource struct {
	Name    string   `json:"name"`              // @dump/NAME, @directory/NAME or @stream/NAME
	Path    string   `json:"path,omitempty"`    // of a directory
	Preset  string   `json:"preset,omitempty"`  // of a dump or stream that has one
	Command []string `json:"command,omitempty"` // of a dump or stream
	Host    string   `json:"host,omitempty"`    // that it runs on; "" is this one
	Problem string   `json:"problem,omitempty"`
}

// PreviewGroup is the room for snapshots in one volume group.
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
	Remove    []report.Removed `json:"remove,omitempty"`
}

// Preview looks at everything that a run would look at, and changes nothing.
func (e *Engine) Preview(ctx context.Context, patterns []string) (*Preview, error) {
	chosen, err := e.choose(ctx, patterns)
	if err != nil {
		return nil, err
	}
	plan := chosen.plan
	p := &Preview{Volumes: []PreviewVolume{}, Sources: []PreviewSource{}}
	for _, s := range chosen.sources {
		p.Sources = append(p.Sources, previewSource(s))
	}
	if len(patterns) == 0 {
		for _, d := range e.opts.Sources.Streams {
			p.Sources = append(p.Sources, previewSource(dumpSource(catalog.SourceStream, d)))
		}
	}
	wanted := map[string][]int64{}
	for _, v := range plan.Selected() {
		line := e.previewVolume(ctx, plan, v)
		p.Volumes = append(p.Volumes, line)
		wanted[v.VG] = append(wanted[v.VG], line.SnapshotBytes)
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
	for _, d := range e.opts.Destinations {
		p.Destinations = append(p.Destinations, e.previewDestination(ctx, d, chosen))
	}
	return p, nil
}

func (e *Engine) previewVolume(ctx context.Context, plan *Plan, v lvm.Volume) PreviewVolume {
	line := PreviewVolume{Name: v.String(), SizeBytes: v.SizeBytes}
	var err error
	if v.IsThin() {
		limits := e.opts.Snapshot
		_, err = e.LVM.CheckThinPool(ctx, v.VG, v.Pool, limits.ThinDataPercent, limits.ThinMetadataPercent)
	} else {
		vg, _ := plan.VG(v.VG)
		free := vg.FreeBytes - e.opts.Snapshot.KeepFreeBytes
		var reduced lvm.SizeReduced
		line.SnapshotBytes, reduced, err = lvm.SnapshotSize(v.SizeBytes, e.opts.Settings(v).SnapshotSize, free, vg.ExtentBytes)
		line.Problem = reduced.String()
	}
	if err != nil {
		line.Problem = report.ProblemOf(err).Message
	}
	return line
}

// previewSource looks at a source without running anything.
func previewSource(s source) PreviewSource {
	line := PreviewSource{Name: s.name(), Path: s.Path, Preset: s.dump.Preset, Command: s.dump.Command, Host: s.dump.Remote.Host}
	if s.Kind != catalog.SourceDirectory {
		return line
	}
	var err error
	if s.directory.RequireMount != "" {
		err = checkMounted(s.directory.RequireMount)
	}
	if err == nil {
		_, err = os.ReadDir(s.Path)
	}
	if err != nil {
		line.Problem = report.ProblemOf(err).Message
	}
	return line
}

func (e *Engine) previewDestination(ctx context.Context, d Destination, chosen choice) PreviewDestination {
	line := PreviewDestination{Name: d.Name, Where: d.Store.String(), FreeBytes: -1}
	err := catalog.CheckOwner(ctx, d.Store, e.us())
	var stock *catalog.Stock
	if err == nil {
		stock, err = e.readStock(ctx, d)
	}
	if err != nil {
		line.Problem = report.ProblemOf(err).Message
		return line
	}
	if usage, err := d.Store.Usage(ctx); err == nil {
		line.FreeBytes = usage.FreeBytes
	} else {
		line.Problem = err.Error()
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
	kept := keep.Destination{Name: d.Name, Store: d.Store, Policy: d.Policy, Stock: stock}
	if line.Remove, err = e.previewRetention(ctx, kept, tonight); err != nil {
		line.Problem = report.ProblemOf(err).Message
	}
	return line
}

// previewRetention decides as if tonight's backups of some volumes and sources stood.
func (e *Engine) previewRetention(ctx context.Context, d keep.Destination, tonight []catalog.Entry) (removed []report.Removed, err error) {
	k := (&run{Engine: e}).keeper()
	for _, made := range tonight {
		made.Host, made.MachineID, made.Status = e.opts.Host, e.opts.MachineID, catalog.StatusComplete
		made.ID.Time = e.Now().UTC().Truncate(time.Second)
		verdicts, err := k.Decide(ctx, d, made.Identity, made)
		if err != nil {
			return removed, err
		}
		for _, v := range verdicts.Condemned() {
			removed = append(removed, report.Removed{Path: catalog.Place(d.Store, v.Entry.Path()), Reason: v.Reason})
		}
	}
	return removed, nil
}
