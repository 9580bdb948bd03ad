package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sync/errgroup"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/hostcmd"
	"voltar/internal/quiesce"
	"voltar/internal/say"
	"voltar/report"
)

// Dump is the output of a command that is kept: beside a volume, or as a source of its own.
type Dump struct {
	quiesce.Dump
	Level archive.Level
}

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

// storeDumps keeps the dumps that are tied to a volume. One that fails leaves the volume's own backup standing, as
// damaged: it lacks something that it should have.
func (v *volumeRun) storeDumps(ctx context.Context) error {
	for _, d := range v.settings.Dumps {
		err := v.storeDump(ctx, d, v.names.Dump(d.Name))
		if lost := v.out.Failure(); lost != nil || ctx.Err() != nil {
			return errors.Join(err, lost)
		}
		if err == nil {
			continue
		}
		problem := report.ProblemOf(err)
		v.warn(problem.Message, "the backup stands without it; look at the command, and run it by hand")
		v.missing = append(v.missing, problem.Message)
	}
	return nil
}

// storeDump keeps the output of one command. Unless that ended well, nothing of it is kept.
func (v *volumeRun) storeDump(ctx context.Context, d Dump, name string) error {
	err := v.run.Quieter.RunDump(ctx, d.Dump, func(output io.Reader) error {
		file, err := v.out.Write(ctx, name, 0, func(w io.Writer) error {
			stats, err := archive.WriteStream(ctx, output, w, archive.StreamOptions{Level: d.Level, OnProgress: v.progress})
			if err == nil && stats.ContentBytes == 0 {
				err = errors.New("the command wrote nothing")
			}
			v.result.ReadBytes += stats.ContentBytes
			return err
		})
		v.stored[name] = file.SizeBytes
		return err
	})
	if err == nil {
		v.dumps = append(v.dumps, catalog.Dump{Name: d.Name, File: name, Preset: d.Preset})
	}
	return err
}

// recordMissingDumps enters what could not be dumped in the report, and says whether there was anything.
func (v *volumeRun) recordMissingDumps() bool {
	v.result.DamagedCount += int64(len(v.missing))
	v.result.DamagedFiles = append(v.result.DamagedFiles, v.missing...)
	return len(v.missing) > 0
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

// configuredSources are those that a run takes.
func (e *Engine) configuredSources() []source {
	var list []source
	for _, d := range e.opts.Sources.Dumps {
		list = append(list, dumpSource(catalog.SourceDump, d))
	}
	for _, d := range e.opts.Sources.Directories {
		list = append(list, source{Source: catalog.Source{Kind: catalog.SourceDirectory, Name: d.Name, Path: d.Path}, directory: d})
	}
	return list
}

// allSources are those that a run takes, and those that have runs of their own.
func (e *Engine) allSources() []source {
	list := e.configuredSources()
	for _, d := range e.opts.Sources.Streams {
		list = append(list, dumpSource(catalog.SourceStream, d))
	}
	return list
}

// sourceRun is one source that is no volume, on its way into the catalog.
type sourceRun struct {
	*volumeRun
	of source
}

func (r *run) newSource(s source) sourceRun {
	settings := Settings{Level: s.dump.Level}
	if s.Kind == catalog.SourceDirectory {
		settings = Settings{Level: s.directory.Level, Exclude: s.directory.Exclude}
	}
	v := &volumeRun{run: r, origin: &s.Source, settings: settings, stored: map[string]int64{}}
	v.names = catalog.NamesOf(v.ref(), false)
	v.result = report.Volume{Name: v.name(), PreviousStoredBytes: -1}
	return sourceRun{v, s}
}

// store writes the source's data.
func (s sourceRun) store(ctx context.Context) ([]*extent, error) {
	if s.of.Kind == catalog.SourceDirectory {
		return s.storeDirectory(ctx, s.of.directory)
	}
	return nil, s.storeDump(ctx, s.of.dump, s.names.Dump(""))
}

// sourcesOf are the configured sources that are named, or all.
func (e *Engine) sourcesOf(names []string, all bool) ([]source, error) {
	list := e.configuredSources()
	if all {
		return list, nil
	}
	var named []source
	for _, name := range names {
		at := len(named)
		for _, s := range list {
			if matched, err := path.Match(name, s.name()); err == nil && matched {
				named = append(named, s)
			}
		}
		if len(named) == at {
			return nil, fmt.Errorf("%w: the configuration has no %q", ErrUsage, name)
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

// choose finds what a run is for. Patterns that begin with "@" name sources, the others volumes; without any it is all
// that the configuration selects. A host without LVM can still have sources.
func (e *Engine) choose(ctx context.Context, patterns []string) (choice, error) {
	isSource := func(pattern string) bool { return strings.HasPrefix(pattern, "@") }
	volumes := slices.DeleteFunc(slices.Clone(patterns), isSource)
	named := slices.DeleteFunc(slices.Clone(patterns), func(p string) bool { return !isSource(p) })
	sources, err := e.sourcesOf(named, len(patterns) == 0)
	if err != nil {
		return choice{}, err
	}
	c := choice{plan: &Plan{}, sources: sources}
	if len(named) > 0 && len(volumes) == 0 {
		return c, nil
	}
	plan, err := e.Plan(ctx, volumes)
	if errors.Is(err, hostcmd.ErrNotFound) && len(sources) > 0 && len(volumes) == 0 {
		c.noLVM = true
		return c, nil
	}
	c.plan, c.looked = plan, err == nil
	return c, err
}

// backUpSources works through the sources, so many at a time.
func (r *run) backUpSources(ctx, bounded context.Context, sources []source) {
	var group errgroup.Group
	group.SetLimit(r.opts.Parallel)
	for _, source := range sources {
		s := r.newSource(source)
		r.takeTurns(bounded, []unit{{members: []*volumeRun{s.volumeRun}}})
		group.Go(func() error {
			s.result.Started = r.Now().UTC()
			s.beginTurn()
			if r.Progress != nil {
				r.Progress.VolumeStarted(s.name(), 0)
			}
			defer s.end(ctx)
			s.fail(s.backUp(s.within(ctx)))
			return nil
		})
	}
	_ = group.Wait() // sources keep their own errors
}

// backUp is the way of one source. As with volumes, the manifest comes last and only when everything before it held.
func (s sourceRun) backUp(ctx context.Context) (err error) {
	if ctx.Err() != nil {
		return fmt.Errorf("the run was stopped before its turn: %w", context.Cause(ctx))
	}
	if err := s.lock(ctx); err != nil {
		return err
	}
	if s.exclude, err = archive.NewMatcher(s.settings.Exclude); err != nil {
		return err
	}
	if err := s.prepareOutput(ctx); err != nil {
		return err
	}
	s.time = s.run.Now().UTC()
	if err := s.openOutput(ctx); err != nil {
		return err
	}
	extents, err := s.store(ctx)
	if err != nil {
		return err
	}
	s.layout = &layout{extents: extents}
	s.describe()
	return s.publish(ctx, s.manifest(s.layout))
}

// storeDirectory archives a tree as it is just now.
func (v *volumeRun) storeDirectory(ctx context.Context, d Directory) (_ []*extent, err error) {
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
	x := &extent{}
	err = v.writeTree(ctx, x, root, 0, archive.TreeOptions{Live: true}, func(stats archive.TreeStats) error {
		v.warnOfChanges(stats)
		if stats.Entries <= 1 && stats.ExcludedEntries == 0 {
			return say.WithHint(fmt.Errorf("%s is empty", d.Path),
				"is what belongs there mounted? require_mount of the directory looks after it")
		}
		return nil
	})
	if err != nil {
		return nil, hintBounds(err)
	}
	x.SizeBytes = x.ContentBytes + x.ExcludedBytes
	x.UsedBytes = x.OwnBytes() + x.ExcludedBytes
	x.Reason = "read as it was used, without a snapshot"
	v.result.SizeBytes = x.SizeBytes
	return []*extent{x}, nil
}

// shownChanges is how many files the warning of a live tree names.
const shownChanges = 5

// warnOfChanges names what changed in a live tree while it was read.
func (v *volumeRun) warnOfChanges(stats archive.TreeStats) {
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
	v.warn(message, "the backup has them as they were read, part old and part new; `exclude` leaves out logs and the like, "+
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
		return nil, fmt.Errorf("%w: the configuration has no [[stream]] of the name %q", ErrUsage, name)
	}
	r, err := e.begin(ctx, "stream", "stream "+name+" of "+e.opts.ConfigPath)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.end(ctx)) }()
	r.report.PlannedVolumes = 1
	if err := r.open(ctx); err != nil {
		return r.finish(ctx, err), err
	}
	r.backUpAll(ctx, choice{plan: &Plan{}, sources: []source{dumpSource(catalog.SourceStream, e.opts.Sources.Streams[i])}})
	return r.finish(ctx, nil), nil
}
