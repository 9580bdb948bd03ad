package placement

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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

// Carry is the earlier backup of a source of which unchanged members are carried over into the one that is being made: the
// newest good one that is not encrypted, on the first destination that is a folder and has one. All destinations get the same bytes.
type Carry struct {
	target    *Target
	entry     catalog.Entry
	today     archive.Day
	freshDays int

	mu       sync.Mutex
	problems []report.Problem
	rotten   bool
}

// Carry looks for the backup to carry over from; nil when there is none. freshDays is how old a compressed member may be.
func (b *Backup) Carry(today archive.Day, freshDays int) *Carry {
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
				return &Carry{target: t, entry: e, today: today, freshDays: freshDays}
			}
		}
	}
	return nil
}

// isFolder tells whether what lies on the destination can be read where it lies.
func (t *Target) isFolder() bool {
	_, isFolder := store.As[interface{ Folder() string }](t.Store)
	return isFolder
}

// note notes that this host wrote a backup from which the next can carry over.
func (b *branch) note(backup catalog.Backup) {
	if !b.target.isFolder() || backup.Manifest.Encryption != nil || backup.Manifest.Status != catalog.StatusComplete {
		return
	}
	run := b.target.run
	if err := run.Written.Note(b.target.Store, backup); err != nil {
		run.Log.Warn("the next backup proves anew all that it carries over", "run", run.ID, "destination", b.target.Name, "err", err)
	}
}

// isTrusted tells whether nobody but this host, or who signs for it, can have written the sums of a backup.
func (c *Carry) isTrusted(b catalog.Backup) bool {
	if signed, ok := store.As[interface{ Trust() string }](c.target.Store); ok && signed.Trust() != "" {
		return true
	}
	run := c.target.run
	wrote, err := run.Written.Wrote(c.target.Store, b)
	if err != nil {
		run.Log.Warn("all that is carried over is proved anew", "run", run.ID, "destination", c.target.Name, "err", err)
	}
	return wrote
}

// From names the backup.
func (c *Carry) From() string { return c.entry.ID.String() }

// Earlier is the archive or image of one extent in the earlier backup. Its files are open: whoever removes the backup meanwhile
// takes nothing away from it.
type Earlier struct {
	*archive.Previous
	file io.Closer
}

// Close lets the archive go.
func (e *Earlier) Close() error { return e.file.Close() }

// Open opens what the earlier backup has of an extent, to carry it over into an archive of a level; nil when it has nothing that
// can be. Whatever fails is among the problems: then all is compressed anew.
func (c *Carry) Open(ctx context.Context, extent string, state catalog.State, level archive.Level) *Earlier {
	earlier, err := c.open(ctx, extent, state, level)
	if err != nil {
		if ctx.Err() == nil { // whoever ended the backup knows why
			c.failed(err)
		}
		return nil
	}
	return earlier
}

func (c *Carry) open(ctx context.Context, extent string, state catalog.State, level archive.Level) (_ *Earlier, err error) {
	b, err := c.entry.Load(ctx, c.target.Store)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(b.Manifest.Extents, func(x catalog.Extent) bool { return x.Name == extent && x.State == state })
	if at < 0 {
		return nil, nil
	}
	x := b.Manifest.Extents[at]
	sums := x.Members
	if x.Index != nil {
		sums = x.Index.Name
	}
	if sums == "" {
		return nil, nil
	}
	file, err := c.openFile(ctx, b, x.Archive)
	if err != nil {
		return nil, err
	}
	previous, err := c.read(ctx, b, sums, x.Archive, file, level)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Earlier{previous, file}, nil
}

// openFile opens a file of the earlier backup. One that is not there while the manifest still is makes it a damaged backup; without the
// manifest, somebody is removing the whole of it.
func (c *Carry) openFile(ctx context.Context, b catalog.Backup, name string) (store.Reader, error) {
	r, err := b.OpenFile(ctx, c.target.Store, name)
	if !errors.Is(err, store.ErrNotExist) {
		return r, err
	}
	if _, statErr := c.target.Store.Stat(ctx, path.Join(b.Path(), catalog.ManifestName)); statErr != nil {
		return nil, errors.Join(err, statErr)
	}
	return nil, fmt.Errorf("%w: %s is missing", catalog.ErrDamaged, name)
}

// read reads the sums of an archive's members, and holds the file that has them against the manifest.
func (c *Carry) read(
	ctx context.Context, b catalog.Backup, sums, archived string, file store.Reader, level archive.Level,
) (_ *archive.Previous, err error) {
	r, err := c.openFile(ctx, b, sums)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	whole := sha256.New()
	text := io.TeeReader(r, whole)
	previous, readErr := archive.ReadPrevious(ctx, text, file, file.SizeBytes(), archive.PreviousOptions{
		Level: level, Today: c.today, FreshDays: c.freshDays, Trusted: c.isTrusted(b),
		Failed: func(err error) { c.failed(fmt.Errorf("%s: %w", archived, err)) },
	})
	if _, err := io.Copy(io.Discard, text); err != nil {
		return nil, err
	}
	if want, _ := b.Manifest.File(sums); hex.EncodeToString(whole.Sum(nil)) != want.SHA256 {
		return nil, fmt.Errorf("%s: %w: it does not have the sums of the manifest", sums, archive.ErrRotten)
	}
	if readErr != nil {
		return nil, fmt.Errorf("%s: %w", sums, readErr)
	}
	return previous, nil
}

// failed notes why a member, or a whole archive, was not carried over. The first rotten member, or missing file, marks the earlier
// backup damaged.
func (c *Carry) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rotten := errors.Is(err, archive.ErrRotten) || errors.Is(err, catalog.ErrDamaged) || errors.Is(err, unix.EIO)
	switch {
	case rotten && !c.rotten:
		c.rotten = true
		c.markDamaged(err)
	case !rotten && len(c.problems) == 0:
		c.problems = append(c.problems, *report.ProblemOf(say.WithHint(
			fmt.Errorf("not all that is unchanged could be taken over from %s on %s: %w", c.From(), c.target.Name, err),
			"this backup is complete; it only took longer")))
	}
}

// markDamaged makes the earlier backup one that does not count as good, for this run and those that come.
func (c *Carry) markDamaged(found error) {
	t := c.target
	t.stock.MarkDamaged(c.entry, found.Error())
	c.problems = append(c.problems, report.Problem{
		Message: fmt.Sprintf("%s on %s is damaged: %v. It does not count as good any more; tonight's backup has that part anew, from the source",
			c.From(), t.Name, found),
		Hint: fmt.Sprintf("check the destination's disk; `voltar verify %s` says what is lost", c.From()),
	})
	if t.run.MarkDamaged == nil {
		return
	}
	if err := t.run.MarkDamaged(catalog.Place(t.Store, c.entry.Path()), found.Error()); err != nil {
		c.problems = append(c.problems, *report.ProblemOf(err))
	}
}

// Problems are for the report, once the archives are written.
func (c *Carry) Problems() []report.Problem {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.problems)
}

// DaysOf is how many whole days a span has.
func DaysOf(span time.Duration) int { return int(span / (24 * time.Hour)) }
