package catalog

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"voltar/internal/clock"
	"voltar/internal/store"
)

// Filter narrows a listing.
type Filter struct {
	Match  func(Ref) bool // nil takes all sources
	Newest int            // at most so many backups of each name, the newest, and those dated ahead; 0 means all
	Good   bool           // only good ones, whose files are all there, count for Newest; those that are newer come beside them
	Since  time.Time      // with Newest: all that are not older than this come beside them; the zero time asks for none
	// Damage is what was found wrong with backups since they were made, by the Place of their folders.
	Damage map[string]string
	// Now is the time of which backups are dated ahead or not; the zero time stands for that of the listing.
	Now time.Time
}

// Unreadable is a folder whose manifest is there but cannot be used: it is damaged (ErrDamaged), of a newer voltar
// (*FormatError), or the store could not read it. Such are kept, listed, and neither restored nor pruned.
type Unreadable struct {
	ID   ID
	Path string
	Err  error
}

// Unfinished is a folder without a manifest: it is being written or deleted, or a run died over it. It is no backup.
type Unfinished struct {
	ID   ID
	Path string
}

// Listing is what a store holds for one host. Each list is in the order of ID.Compare.
type Listing struct {
	Host       string
	Backups    []Backup
	Unreadable []Unreadable
	Unfinished []Unfinished
	Unknown    []string  // folders where backups lie, of names that voltar does not give; sorted
	Now        time.Time // as Filter has it
}

// IsAhead tells whether a backup is dated ahead (package clock). Such a one is not the newest for anybody.
func (l *Listing) IsAhead(id ID) bool { return clock.IsAhead(id.Time, l.Now) }

// listLimit is how many requests go to the store at once.
const listLimit = 8

// List lists the backups of a host. Only a store that does not answer makes it fail; a manifest that cannot be used is
// in Unreadable. A host without a folder has no backups.
func List(ctx context.Context, s store.Store, host string, filter Filter) (*Listing, error) {
	var backups []Backup
	listing, err := list(ctx, s, host, filter, func(b Backup) { backups = append(backups, b) })
	if err != nil {
		return nil, err
	}
	slices.SortFunc(backups, func(a, b Backup) int { return a.ID.Compare(b.ID) })
	listing.Backups = backups
	return listing, nil
}

// list hands each backup to take, one at a time and in any order, and returns what else there is.
func list(ctx context.Context, s store.Store, host string, filter Filter, take func(Backup)) (*Listing, error) {
	if err := CheckHost(host); err != nil {
		return nil, err
	}
	if filter.Now.IsZero() {
		filter.Now = time.Now()
	}
	l := &lister{store: s, filter: filter, listing: &Listing{Host: host, Now: filter.Now}, take: take}
	if err := l.run(ctx); err != nil {
		return nil, fmt.Errorf("list the backups of %s in %s: %w", host, s, err)
	}
	l.listing.sort()
	return l.listing, nil
}

type lister struct {
	store   store.Store
	filter  Filter
	mu      sync.Mutex // guards the rest
	listing *Listing
	take    func(Backup)
}

// run goes through groups, volumes and times, and reads the manifests, each step as many at once as the limit allows.
func (l *lister) run(ctx context.Context) error {
	host := l.listing.Host
	groups, err := l.store.Folders(ctx, host)
	if err != nil {
		return err
	}
	refs, err := gather(ctx, groups, func(ctx context.Context, group string) ([]Ref, error) {
		return l.refs(ctx, group)
	})
	if err != nil {
		return err
	}
	histories, err := gather(ctx, refs, func(ctx context.Context, ref Ref) ([][]ID, error) {
		ids, err := l.times(ctx, ref)
		if l.filter.Newest > 0 {
			return [][]ID{ids}, err // one after the other, the newest first, until there are enough
		}
		return splitEach(ids), err
	})
	if err != nil {
		return err
	}
	_, err = gather(ctx, histories, func(ctx context.Context, ids []ID) ([]struct{}, error) {
		return nil, l.readNewest(ctx, ids)
	})
	return err
}

func (l *lister) refs(ctx context.Context, group string) ([]Ref, error) {
	names, err := l.store.Folders(ctx, path.Join(l.listing.Host, group))
	if err != nil {
		return nil, err
	}
	var refs []Ref
	for _, name := range names {
		ref, err := ParseRef(group + "/" + name)
		if err != nil {
			l.unknown(path.Join(l.listing.Host, group, name))
			continue
		}
		if l.filter.Match == nil || l.filter.Match(ref) {
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// times returns what there may be of one source, the newest first.
func (l *lister) times(ctx context.Context, ref Ref) ([]ID, error) {
	folder := path.Join(l.listing.Host, ref.String())
	names, err := l.store.Folders(ctx, folder)
	if err != nil {
		return nil, err
	}
	var ids []ID
	for _, name := range names {
		t, err := ParseTime(name)
		if err != nil {
			l.unknown(path.Join(folder, name))
			continue
		}
		ids = append(ids, ID{Ref: ref, Time: t})
	}
	slices.SortFunc(ids, func(a, b ID) int { return b.Compare(a) })
	return ids, nil
}

func (l *lister) unknown(folder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listing.Unknown = append(l.listing.Unknown, folder)
}

func (l *lister) readNewest(ctx context.Context, ids []ID) error {
	found := 0
	for _, id := range ids {
		enough := l.filter.Newest > 0 && found == l.filter.Newest
		if enough && (l.filter.Since.IsZero() || id.Time.Before(l.filter.Since)) {
			return nil
		}
		backup, err := readBackup(ctx, l.store, l.listing.Host, id)
		backup.Damage = l.filter.Damage[Place(l.store, id.Path(l.listing.Host))]
		if err == nil && l.filter.Good && backup.IsGood() && !enough {
			backup.Damage, err = backup.lacks(ctx, l.store)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil && !enough && !l.listing.IsAhead(id) && (!l.filter.Good || backup.IsGood()) {
			found++
		}
		l.add(backup, id, err)
	}
	return nil
}

func (l *lister) add(backup Backup, id ID, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	folder := id.Path(l.listing.Host)
	switch {
	case err == nil:
		l.take(backup)
	case errors.Is(err, store.ErrNotExist):
		l.listing.Unfinished = append(l.listing.Unfinished, Unfinished{ID: id, Path: folder})
	default:
		l.listing.Unreadable = append(l.listing.Unreadable, Unreadable{ID: id, Path: folder, Err: err})
	}
}

// readBackup reads the manifest of one folder.
func readBackup(ctx context.Context, s store.Store, host string, id ID) (Backup, error) {
	data, size, err := read(ctx, s, path.Join(id.Path(host), ManifestName), MaxManifestBytes)
	if err != nil {
		return Backup{}, err
	}
	return parseBackup(host, id, data, size)
}

// parseBackup reads the text of a manifest, which must be of what the path says.
func parseBackup(host string, id ID, text []byte, size int64) (Backup, error) {
	m, err := ParseManifest(text)
	if err != nil {
		return Backup{}, err
	}
	if m.ID().Compare(id) != 0 {
		return Backup{}, fmt.Errorf("%w: its manifest is that of %s", ErrDamaged, m.ID())
	}
	return Backup{Host: host, ID: id, Manifest: m, SizeBytes: m.FileBytes() + size}, nil
}

func (l *Listing) sort() {
	slices.SortFunc(l.Unreadable, func(a, b Unreadable) int { return a.ID.Compare(b.ID) })
	slices.SortFunc(l.Unfinished, func(a, b Unfinished) int { return a.ID.Compare(b.ID) })
	slices.Sort(l.Unknown)
}

// gather calls get for each item, several at once, and joins what comes back in any order.
func gather[In, Out any](ctx context.Context, items []In, get func(context.Context, In) ([]Out, error)) ([]Out, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(listLimit)
	var mu sync.Mutex
	var all []Out
	for _, item := range items {
		group.Go(func() error {
			some, err := get(ctx, item)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, some...)
			return err
		})
	}
	return all, group.Wait()
}

func splitEach(ids []ID) [][]ID {
	var each [][]ID
	for _, id := range ids {
		each = append(each, []ID{id})
	}
	return each
}
