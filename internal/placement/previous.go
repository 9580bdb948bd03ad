package placement

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/report"
)

// Previous is the backup of a source of which unchanged members are carried over into the one that is being made: the
// newest good one that is not encrypted, on the first destination that is a folder and has one. All destinations get the same
// bytes. A nil one is none.
type Previous struct {
	target    *Target
	entry     catalog.Entry
	today     archive.Day
	freshDays int
	all       bool // of whatever age and level, for a copy

	mu       sync.Mutex
	problems []report.Problem
	slow     *report.Problem // why something was compressed anew; nil for nothing
	rotten   bool
	members  []rottenMember

	loaded  bool // the rest is known
	backup  catalog.Backup
	trusted bool // nobody but this host, or who signs for it, can have written the manifest
	err     error
}

// Previous looks for the backup to carry over from; nil when there is none. freshDays is how old a compressed member may be.
func (b *Backup) Previous(today archive.Day, freshDays int) *Previous {
	if freshDays <= 0 {
		return nil
	}
	for _, at := range b.places {
		t := at.target
		if !at.alive() || !t.isFolder() {
			continue
		}
		for _, e := range t.stock.History(b.identity) {
			if e.IsGood() && !e.IsAhead(t.run.Now()) && e.Encryption == nil {
				return &Previous{target: t, entry: e, today: today, freshDays: freshDays}
			}
		}
	}
	return nil
}

// Carries tells whether tonight's backup lies where the next one can carry over from it.
func (b *Backup) Carries() bool {
	return slices.ContainsFunc(b.places, func(at *place) bool {
		return at.alive() && at.target.isFolder() && at.target.Recipients == nil
	})
}

// isFolder tells whether what lies on the destination can be read where it lies.
func (t *Target) isFolder() bool {
	_, isFolder := store.As[interface{ Folder() string }](t.Store)
	return isFolder
}

// note notes that this host wrote a backup from which the next can carry over. It warns when nothing of it shares its place with the
// previous one, as it did before.
func (b *branch) note(backup catalog.Backup) (warnings []report.Problem) {
	if !b.target.isFolder() || backup.Manifest.Encryption != nil || backup.Manifest.Status != catalog.StatusComplete {
		return nil
	}
	run, s := b.target.run, b.target.Store
	did := run.Written.Shared(s, backup)
	does := b.carried.shared > 0 || b.carried.all == 0 && did
	if did && !does {
		warnings = append(warnings, report.Problem{
			Message: fmt.Sprintf("on %s, what did not change is written again and takes its space anew: "+
				"it was shared with the previous backup before", b.target.Name),
			Hint: "is it still the filesystem that it was? XFS and btrfs share, others do not. This is told once",
		})
	}
	if err := run.Written.Note(s, backup, catalog.Space{Shares: does, NewBytes: backup.SizeBytes - b.carried.shared}); err != nil {
		run.Log.Warn("the next backup proves anew all that it carries over", "run", run.ID, "destination", b.target.Name, "err", err)
	}
	return warnings
}

// previousFile is a file of a previous backup on its destination.
type previousFile struct {
	store.Reader
	target *Target
}

// load reads the manifest, once for all extents.
func (p *Previous) load(ctx context.Context) error {
	if p.loaded {
		return p.err
	}
	p.loaded = true
	if p.backup, p.err = p.entry.Load(ctx, p.target.Store); p.err != nil {
		return p.err
	}
	if signed, ok := store.As[interface{ Trust() string }](p.target.Store); ok && signed.Trust() != "" {
		p.trusted = true
		return nil
	}
	run := p.target.run
	var err error
	if p.trusted, err = run.Written.Wrote(p.target.Store, p.backup); err != nil {
		run.Log.Warn("all that is carried over is proved anew", "run", run.ID, "destination", p.target.Name, "err", err)
	}
	return nil
}

// IsOf tells whether the backup is one of a volume by a run, and written by this host as it is: what it says of the volume can be believed
// then without that being read. One of a volume that this one was restored from is not.
func (p *Previous) IsOf(ctx context.Context, run string, volume catalog.Identity) bool {
	if p == nil || p.load(ctx) != nil || !p.trusted {
		return false
	}
	m := p.backup.Manifest
	return m.Run == run && m.Status == catalog.StatusComplete && m.Source.Identity() == volume
}

// From names the backup.
func (p *Previous) From() string { return p.entry.ID.String() }

// Open opens what the backup has of an extent, to carry it over into an archive of a level; nil when it has nothing that can be.
// Whatever fails is among the problems: then all is compressed anew. One extent is opened after the other. The caller closes
// what it gets; until then it is whole, whoever removes the backup meanwhile.
func (p *Previous) Open(ctx context.Context, extent string, state catalog.State, level archive.Level) *archive.Previous {
	if p == nil {
		return nil
	}
	opened, err := p.open(ctx, extent, state, archive.PreviousOptions{Level: level})
	if err != nil {
		if ctx.Err() == nil { // whoever ended the backup knows why
			p.failed(err)
		}
		return nil
	}
	return opened
}

// Whole is the archive of a tree in the previous backup, and what the manifest says of it.
type Whole struct {
	*archive.Previous
	Extent   catalog.Extent
	previous *Previous
}

// OpenWhole opens the archive of a tree that is known to be as it was, to have it rewritten as it is; nil when there is none. Errors,
// and closing it, are as with Open.
func (p *Previous) OpenWhole(ctx context.Context, extent string, level archive.Level) *Whole {
	x, found := p.Extent(ctx, extent, catalog.StateFiles)
	if !found || x.Index == nil || x.DamagedCount > 0 {
		return nil
	}
	opened, err := p.open(ctx, extent, catalog.StateFiles, archive.PreviousOptions{Level: level, Rewrite: true})
	if err != nil || opened == nil {
		if err != nil && ctx.Err() == nil {
			p.failed(err)
		}
		return nil
	}
	return &Whole{opened, x, p}
}

// CopyIndex writes the index of the archive.
func (w *Whole) CopyIndex(ctx context.Context, out io.Writer) (err error) {
	name := w.Extent.Index.Name
	r, err := w.previous.openFile(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(out, sum), r); err != nil {
		return err
	}
	return w.previous.checkSum(name, sum)
}

// Extent is what the backup's manifest says of an extent that it has in a state.
func (p *Previous) Extent(ctx context.Context, name string, state catalog.State) (catalog.Extent, bool) {
	if p == nil || p.load(ctx) != nil {
		return catalog.Extent{}, false
	}
	extents := p.backup.Manifest.Extents
	at := slices.IndexFunc(extents, func(x catalog.Extent) bool { return x.Name == name && x.State == state })
	if at < 0 {
		return catalog.Extent{}, false
	}
	return extents[at], true
}

func (p *Previous) open(
	ctx context.Context, extent string, state catalog.State, opts archive.PreviousOptions,
) (*archive.Previous, error) {
	if err := p.load(ctx); err != nil {
		return nil, err
	}
	x, found := p.Extent(ctx, extent, state)
	if !found {
		return nil, nil
	}
	sums := x.Members
	if x.Index != nil {
		sums = x.Index.Name
	}
	if sums == "" {
		return nil, nil
	}
	file, err := p.openFile(ctx, x.Archive)
	if err != nil {
		return nil, err
	}
	opened, err := p.read(ctx, x, sums, file, opts)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return opened, nil
}

// openFile opens a file of the backup. One that is not there while the manifest still is makes it a damaged backup; without the
// manifest, somebody is removing the whole of it.
func (p *Previous) openFile(ctx context.Context, name string) (store.Reader, error) {
	r, err := p.backup.OpenFile(ctx, p.target.Store, name)
	if !errors.Is(err, store.ErrNotExist) {
		return r, err
	}
	if _, statErr := p.target.Store.Stat(ctx, path.Join(p.backup.Path(), catalog.ManifestName)); statErr != nil {
		return nil, errors.Join(err, statErr)
	}
	return nil, fmt.Errorf("%w: %s is missing", catalog.ErrDamaged, name)
}

// read reads the sums of an archive's members, and holds the file that has them against the manifest.
func (p *Previous) read(
	ctx context.Context, x catalog.Extent, sums string, file store.Reader, opts archive.PreviousOptions,
) (_ *archive.Previous, err error) {
	r, err := p.openFile(ctx, sums)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	whole := sha256.New()
	text := io.TeeReader(r, whole)
	opts.Today, opts.FreshDays, opts.All, opts.Trusted = p.today, p.freshDays, p.all, p.trusted
	opts.Failed = func(err error) {
		p.noteRotten(x, err)
		p.failed(fmt.Errorf("%s: %w", x.Archive, err))
	}
	opened, readErr := archive.ReadPrevious(ctx, text, &previousFile{file, p.target}, file.SizeBytes(), opts)
	if _, err := io.Copy(io.Discard, text); err != nil {
		return nil, err
	}
	if err := p.checkSum(sums, whole); err != nil {
		return nil, err
	}
	if readErr != nil {
		return nil, fmt.Errorf("%s: %w", sums, readErr)
	}
	return opened, nil
}

// checkSum holds the sum of a whole file against the manifest.
func (p *Previous) checkSum(name string, whole hash.Hash) error {
	if want, _ := p.backup.Manifest.File(name); hex.EncodeToString(whole.Sum(nil)) != want.SHA256 {
		return fmt.Errorf("%s: %w: it does not have the sums of the manifest", name, archive.ErrRotten)
	}
	return nil
}

// failed notes why a member, or a whole archive, was not carried over. The first rotten member, or missing file, marks the backup
// damaged.
func (p *Previous) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rotten := isRotten(err)
	switch {
	case rotten && !p.rotten:
		p.rotten = true
		p.markDamaged(err)
	case !rotten && p.slow == nil && !p.rotten:
		p.slow = report.ProblemOf(say.WithHint(
			fmt.Errorf("not all that is unchanged could be carried over from %s on %s: %w", p.From(), p.target.Name, err),
			"this backup is complete; it only took longer"))
	}
}

// isRotten tells whether an error is of data that are not there any more as they were stored.
func isRotten(err error) bool {
	return errors.Is(err, archive.ErrRotten) || errors.Is(err, catalog.ErrDamaged) || errors.Is(err, unix.EIO)
}

// markDamaged makes the backup one that does not count as good, for this run and those that come.
func (p *Previous) markDamaged(found error) {
	t := p.target
	t.stock.MarkDamaged(p.entry, found.Error())
	p.problems = append(p.problems, report.Problem{
		Message: fmt.Sprintf("%s on %s is damaged: %v. It does not count as good any more; tonight's backup has that part anew, from the source",
			p.From(), t.Name, found),
		Hint: fmt.Sprintf("check the destination's disk; `voltar verify %s` says what is lost", p.From()),
	})
	p.remember(p.entry, found)
}

// remember has later runs know that a backup is damaged.
func (p *Previous) remember(e catalog.Entry, found error) {
	t := p.target
	if t.run.MarkDamaged == nil {
		return
	}
	if err := t.run.MarkDamaged(catalog.Place(t.Store, e.Path()), found.Error()); err != nil {
		p.problems = append(p.problems, *report.ProblemOf(err))
	}
}

// Problems are for the report, once the backup stands or failed. That one took longer is worth a word only if it stands.
func (p *Previous) Problems(stands bool) []report.Problem {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	list := slices.Clone(p.problems)
	if stands && p.slow != nil {
		list = append(list, *p.slow)
	}
	return list
}

// DaysOf is how many whole days a span has.
func DaysOf(span time.Duration) int { return int(span / (24 * time.Hour)) }
