package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sync/errgroup"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/extent"
	"voltar/internal/hostcmd"
	"voltar/internal/say"
	"voltar/lvm"
	"voltar/report"
)

// Directory is a tree of this host that is archived as it is, without a snapshot.
type Directory struct {
	Name         string
	Path         string
	RequireMount string // a mountpoint that must be mounted; "" for none
	Exclude      []string
	Level        archive.Level
}

// Sources are what is backed up beside volumes.
type Sources struct {
	Dumps       []Dump
	Directories []Directory
	Streams     []Dump // run by Stream only
}

// source is one that the configuration has beside volumes.
type source struct {
	catalog.Source
	dump      Dump      // of dumps and streams
	directory Directory // of directories
}

func (s source) name() string { return s.Ref().String() }

func dumpSource(kind catalog.SourceKind, d Dump) source {
	return source{Source: catalog.Source{Kind: kind, Name: d.Name}, dump: d}
}

// configured are those that a run takes.
func (all Sources) configured() []source {
	var list []source
	for _, d := range all.Dumps {
		list = append(list, dumpSource(catalog.SourceDump, d))
	}
	for _, d := range all.Directories {
		list = append(list, source{Source: catalog.Source{Kind: catalog.SourceDirectory, Name: d.Name, Path: d.Path}, directory: d})
	}
	return list
}

// every is those that a run takes, and those that have runs of their own.
func (all Sources) every() []source {
	list := all.configured()
	for _, d := range all.Streams {
		list = append(list, dumpSource(catalog.SourceStream, d))
	}
	return list
}

// named are the configured sources of these names or patterns.
func (all Sources) named(names []string) ([]source, error) {
	list := all.configured()
	var named []source
	for _, name := range names {
		at := len(named)
		for _, s := range list {
			if matched, err := path.Match(name, s.name()); err == nil && matched {
				named = append(named, s)
			}
		}
		if len(named) == at {
			return nil, say.WithHint(
				fmt.Errorf("%w: the configuration has no %q%s", ErrUsage, name, say.DidYouMean(name, say.Names(list, source.name))),
				"`voltar volumes` lists what there is")
		}
	}
	return named, nil
}

// choice is what a run is for.
type choice struct {
	plan    *Plan // empty unless LVM was looked at
	looked  bool
	noLVM   bool // the host has none, and need not
	sources []source
}

// refs tells what it is for.
func (c choice) refs() func(catalog.Ref) bool {
	chosen := map[catalog.Ref]bool{}
	for _, v := range c.plan.Selected() {
		chosen[catalog.VolumeRef(v.VG, v.Name)] = true
	}
	for _, s := range c.sources {
		chosen[s.Ref()] = true
	}
	return func(ref catalog.Ref) bool { return chosen[ref] }
}

// choose finds what a run is for. Patterns that begin with "@" name sources, the others volumes; without any it is all
// that the configuration selects. A host without LVM can still have sources.
func (e *Engine) choose(ctx context.Context, patterns []string) (choice, error) {
	patterns, err := e.fullNames(ctx, patterns)
	if err != nil {
		return choice{}, err
	}
	isSource := func(pattern string) bool {
		return strings.HasPrefix(pattern, "@") && !strings.HasPrefix(pattern, catalog.GuestPrefix)
	}
	volumes := slices.DeleteFunc(slices.Clone(patterns), isSource)
	named := slices.DeleteFunc(slices.Clone(patterns), func(p string) bool { return !isSource(p) })
	sources := e.opts.Sources.configured()
	if len(patterns) > 0 {
		if sources, err = e.opts.Sources.named(named); err != nil {
			return choice{}, err
		}
	}
	c := choice{plan: &Plan{}, sources: sources}
	if len(named) > 0 && len(volumes) == 0 {
		return c, nil
	}
	short := say.Names(e.opts.Sources.configured(), func(s source) string { return s.Name })
	plan, err := e.planWith(ctx, volumes, short)
	if errors.Is(err, hostcmd.ErrNotFound) && len(short) > 0 {
		if len(volumes) > 0 {
			return c, say.WithHint(fmt.Errorf("%w: this host has no lvm2, and the configuration no %q%s", ErrUsage, volumes[0],
				say.DidYouMean(volumes[0], short)), "`voltar volumes` lists what there is")
		}
		c.noLVM = true
		return c, nil
	}
	c.plan, c.looked = plan, err == nil
	return c, err
}

// fullNames gives directories and dumps that are named by their short names their full ones, "@directory/NAME". A name that is
// a volume's, too, is refused.
func (e *Engine) fullNames(ctx context.Context, patterns []string) ([]string, error) {
	full := slices.Clone(patterns)
	var inventory lvm.Inventory
	looked := false
	for i, name := range patterns {
		for _, s := range e.opts.Sources.configured() {
			if s.Name != name {
				continue
			}
			if !looked {
				var err error
				if inventory, err = e.LVM.Inventory(ctx); err != nil && !errors.Is(err, hostcmd.ErrNotFound) {
					e.Log.Warn("cannot tell whether a volume has the name, too: the source of the configuration is taken", "source", s.name(), "err", err)
				}
				looked = true
			}
			if v := slices.IndexFunc(inventory.Volumes, func(v lvm.Volume) bool { return v.Name == name && !v.Internal }); v >= 0 {
				return nil, say.WithHint(fmt.Errorf("%w: %q is a volume, and %s", ErrUsage, name, s.name()),
					fmt.Sprintf("name it as %s or %s", inventory.Volumes[v], s.name()))
			}
			if full[i] != name {
				return nil, say.WithHint(fmt.Errorf("%w: %q is %s, and %s", ErrUsage, name, full[i], s.name()), "name it in full")
			}
			full[i] = s.name()
		}
	}
	return full, nil
}

// Look says which volumes and other sources a run would take. Names and patterns are as in Run. A host without LVM has no volumes.
func (e *Engine) Look(ctx context.Context, patterns []string) (*Plan, []PreviewSource, error) {
	chosen, err := e.choose(ctx, patterns)
	if err != nil {
		return nil, nil, err
	}
	sources := []PreviewSource{}
	for _, s := range chosen.sources {
		sources = append(sources, e.previewSource(ctx, s))
	}
	return chosen.plan, sources, nil
}

// backUpSources works through the sources, so many at a time. What is done for one of them ends with bounded.
func (r *run) backUpSources(ctx, bounded context.Context, sources []source) {
	var group errgroup.Group
	group.SetLimit(r.opts.Parallel)
	for _, s := range sources {
		a := r.newAccount(bounded, s.Source)
		group.Go(func() error {
			own := a.scope.begin(r.opts.MaxDuration)
			a.line.Started = r.Now().UTC()
			a.fail(a.backUp(own, s))
			a.letGo(ctx)
			a.finish(ctx)
			return nil
		})
	}
	_ = group.Wait() // sources keep their own errors
}

// backUp is the way of one source that has no snapshot. As with volumes, the manifest comes last and only when everything
// before it held.
func (a *account) backUp(ctx context.Context, s source) error {
	if err := a.begin(ctx); err != nil {
		return err
	}
	if err := a.prepare(ctx); err != nil {
		return err
	}
	exclude, err := archive.NewMatcher(s.directory.Exclude)
	if err != nil {
		return err
	}
	files, err := a.files(ctx, a.run.Now().UTC(), s.directory.Level, exclude)
	if err != nil {
		return err
	}
	done := &archived{account: a, out: files.Out, source: a.source, layout: &extent.Layout{}}
	if s.Kind == catalog.SourceDirectory {
		done.layout.Extents, err = a.storeDirectory(ctx, s.directory, files)
	} else {
		var kept catalog.Dump
		kept, err = a.storeDump(ctx, s.dump, files, files.Names.Dump(""))
		done.dumps.kept = []catalog.Dump{kept}
	}
	if err != nil {
		return err
	}
	extent.Describe(&a.line, done.layout.Extents)
	return done.publish(ctx)
}

// storeDirectory archives a tree as it is just now.
func (a *account) storeDirectory(ctx context.Context, d Directory, files *extent.Files) ([]*extent.Extent, error) {
	if d.RequireMount != "" {
		if err := checkMounted(d.RequireMount); err != nil {
			return nil, err
		}
	}
	root, err := os.Open(d.Path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	own, unknown := a.run.ownFolders(ctx, d.Path)
	for _, err := range unknown {
		a.warn(err.Error(), "if it does, each night's archive holds the nights before: name that folder in `exclude` of the [[directory]]")
	}
	if err := own.checkRoot(d.Path); err != nil {
		return nil, err
	}
	x, stats, err := files.LiveTree(ctx, root, own.ids())
	a.warnOfChanges(stats)
	if err != nil {
		return nil, err
	}
	for _, f := range own.of(stats.Closed) {
		x.Reason += "; " + f.note()
		a.run.leaveOut(report.Excluded{Name: f.path, Rule: RuleDestination, Reason: "left out of " + a.name() + ": " + f.reason()})
	}
	if lost, hint := x.AttributesNotStored(); lost != "" {
		a.warn(lost, hint)
	}
	a.line.SizeBytes = x.SizeBytes
	return []*extent.Extent{x}, nil
}

// shownChanges is how many files the warning of a live tree names.
const shownChanges = 5

// warnOfChanges names what changed in a live tree while it was read.
func (a *account) warnOfChanges(stats archive.TreeStats) {
	if stats.ChangedCount == 0 {
		return
	}
	var named []string
	for _, c := range stats.Changed[:min(len(stats.Changed), shownChanges)] {
		named = append(named, fmt.Sprintf("%.200q (%s)", c.Path, c.Reason))
	}
	message := "changed while it was read: " + strings.Join(named, ", ")
	if more := stats.ChangedCount - int64(len(named)); more > 0 {
		message += fmt.Sprintf(", and %s more", say.Count(more))
	}
	a.warn(message, "the backup has them as they were read, part old and part new; `exclude` leaves out logs and the like, "+
		"a dump keeps a database whole, and a snapshot of its volume everything")
}

// checkMounted wants a folder to be a mountpoint, as destinations do: a bind mount is one.
func checkMounted(point string) error {
	mounted, err := mountinfo.Mounted(point)
	if err != nil {
		return fmt.Errorf("look whether %s is mounted: %w", point, err)
	}
	if !mounted {
		return say.WithHint(fmt.Errorf("nothing is mounted at %s", point), "mount it, or correct require_mount of the [[directory]]")
	}
	return nil
}

// Stream runs one of the configured streams and keeps its output. It has a lock of its own, so that it goes on while a
// run works; the report is as Run's.
func (e *Engine) Stream(ctx context.Context, name string) (_ *report.Run, err error) {
	i := slices.IndexFunc(e.opts.Sources.Streams, func(d Dump) bool { return d.Name == name })
	if i < 0 {
		names := say.Names(e.opts.Sources.Streams, func(d Dump) string { return d.Name })
		there := "it has none: add a [[stream]] to it"
		if len(names) > 0 {
			there = "it has " + strings.Join(names, ", ")
		}
		return nil, say.WithHint(fmt.Errorf("%w: the configuration has no [[stream]] of the name %q%s", ErrUsage, name,
			say.DidYouMean(name, names)), there)
	}
	r, err := e.begin(ctx, "stream", "stream "+name+" of "+e.opts.ConfigPath)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.end(ctx)) }()
	r.report.PlannedVolumes = 1
	chosen := choice{plan: &Plan{}, sources: []source{dumpSource(catalog.SourceStream, e.opts.Sources.Streams[i])}}
	r.placing.Wanted = chosen.refs()
	if err := r.open(ctx); err != nil {
		return r.finish(ctx, err), err
	}
	r.backUpAll(ctx, chosen)
	return r.finish(ctx, nil), nil
}
