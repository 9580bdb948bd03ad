package catalog

import (
	"context"
	"crypto/sha256"
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
	// RestoredAs has volumes that are gone, and what each was restored as: backups of both are one history in a Stock.
	RestoredAs map[Identity]Identity
	// Known is what is known of manifests by earlier listings; nil reads each.
	Known *Known
	// Compare has the files of good backups compared with their manifests. What lacks some is damaged.
	Compare Compare
}

// Compare is for which backups files are compared with manifests.
type Compare int

// Without Good in the filter, none is compared unless one of these is asked for.
const (
	CompareNone  Compare = iota
	CompareShown         // where the listing shows all files by itself (store.AllShower)
	CompareAll
)

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
	Backups    []Entry
	Unreadable []Unreadable
	Unfinished []Unfinished
	Unknown    []string  // folders where backups lie, of names that voltar does not give; sorted
	Now        time.Time // as Filter has it
}

// IsAhead tells whether a backup is dated ahead (package clock). Such a one is not the newest for anybody.
func (l *Listing) IsAhead(id ID) bool { return clock.IsAhead(id.Time, l.Now) }

// listLimit is how many requests go to the store at once.
const listLimit = 8

// readInRow is how many manifests are read one after the other, as starting to read costs something, too.
const readInRow = 4

// List lists the backups of a host. Only a store that does not answer makes it fail; a manifest that cannot be used is
// in Unreadable. A host without a folder has no backups.
func List(ctx context.Context, s store.Store, host string, filter Filter) (*Listing, error) {
	if err := CheckHost(host); err != nil {
		return nil, err
	}
	if filter.Now.IsZero() {
		filter.Now = time.Now()
	}
	l := &lister{
		store: s, filter: filter, known: filter.Known.load(s, host), listing: &Listing{Host: host, Now: filter.Now}, shared: newShared(),
	}
	if err := l.run(ctx); err != nil {
		return nil, fmt.Errorf("list the backups of %s in %s: %w", host, s, err)
	}
	l.known.save(filter.Match == nil)
	l.listing.sort()
	return l.listing, nil
}

type lister struct {
	store  store.Store
	filter Filter
	known  *knownHost // nil where nothing is known

	mu      sync.Mutex // guards the rest
	listing *Listing
	shared  shared
}

// candidate is the folder of what may be a backup.
type candidate struct {
	id    ID
	seen  bool // the rest is known
	marks marks
	files []store.Object // all that is in the folder; nil where only the manifest was looked for
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
	histories, err := gather(ctx, refs, func(ctx context.Context, ref Ref) ([][]candidate, error) {
		candidates, err := l.candidates(ctx, ref)
		if l.filter.Newest > 0 {
			return [][]candidate{candidates}, err // one after the other, the newest first, until there are enough
		}
		return slices.Collect(slices.Chunk(candidates, readInRow)), err
	})
	if err != nil {
		return err
	}
	_, err = gather(ctx, histories, func(ctx context.Context, candidates []candidate) ([]struct{}, error) {
		return nil, l.readNewest(ctx, candidates)
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

// candidates returns what there may be of one source, the newest first. Where more than a few are wanted, one request shows
// the manifests, too.
func (l *lister) candidates(ctx context.Context, ref Ref) (list []candidate, err error) {
	folder := path.Join(l.listing.Host, ref.String())
	var folders []store.Folder
	few := l.filter.Newest > 0 && l.filter.Since.IsZero()
	if few {
		var names []string
		names, err = l.store.Folders(ctx, folder)
		for _, name := range names {
			folders = append(folders, store.Folder{Name: name})
		}
	} else {
		folders, err = l.store.Look(ctx, folder, l.shown()...)
	}
	if err != nil {
		return nil, err
	}
	for _, f := range folders {
		t, err := ParseTime(f.Name)
		if err != nil {
			l.unknown(path.Join(folder, f.Name))
			continue
		}
		c := candidate{id: ID{Ref: ref, Time: t}, seen: !few && f.Err == nil, marks: marksAmong(f.Objects)}
		if c.seen && l.shown() == nil {
			c.files = f.Objects
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b candidate) int { return b.id.Time.Compare(a.id.Time) })
	l.known.saw(ref, list)
	return list, nil
}

// shown are the names of the files that a listing is to show, nil for all.
func (l *lister) shown() []string {
	_, showsAll := store.As[store.AllShower](l.store)
	if l.filter.Compare == CompareAll || l.filter.Compare == CompareShown && showsAll {
		return nil
	}
	return l.known.names()
}

func (l *lister) unknown(folder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listing.Unknown = append(l.listing.Unknown, folder)
}

func (l *lister) readNewest(ctx context.Context, candidates []candidate) error {
	found := 0
	for _, c := range candidates {
		enough := l.filter.Newest > 0 && found == l.filter.Newest
		if enough && (l.filter.Since.IsZero() || c.id.Time.Before(l.filter.Since)) {
			return nil
		}
		entry, err := l.read(ctx, c, l.filter.Good && !enough)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil && !enough && !l.listing.IsAhead(c.id) && (!l.filter.Good || entry.IsGood()) {
			found++
		}
		l.add(entry, c.id, err)
	}
	return nil
}

// read reads one backup or takes what is known of it. With files, it also compares the files of a good one.
func (l *lister) read(ctx context.Context, c candidate, files bool) (e Entry, err error) {
	folder := c.id.Path(l.listing.Host)
	isListed := c.files != nil
	files = files || isListed || l.filter.Compare == CompareAll
	if files && !isListed || !c.seen && l.known != nil {
		if c.files, err = l.store.List(ctx, folder); err != nil {
			return e, fmt.Errorf("compare the files of %s in %s: %w", c.id, l.store, err)
		}
		c.seen, c.marks = true, marksAmong(c.files)
	}
	if c.seen && !c.marks.there {
		return e, store.ErrNotExist
	}
	e, isKnown := l.known.entry(c.id, c.marks)
	if !isKnown {
		var marks []string
		if e, marks, err = readEntry(ctx, l.store, l.listing.Host, c.id); err != nil {
			return e, err
		}
		l.known.add(e, marks)
	}
	e.Damage = l.filter.Damage[Place(l.store, folder)]
	if files && e.IsGood() {
		e.Damage, err = e.compare(ctx, l.store, c.files)
	}
	return e, err
}

func (l *lister) add(e Entry, id ID, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	folder := id.Path(l.listing.Host)
	switch {
	case err == nil:
		l.listing.Backups = append(l.listing.Backups, l.shared.share(e))
	case errors.Is(err, store.ErrNotExist):
		l.listing.Unfinished = append(l.listing.Unfinished, Unfinished{ID: id, Path: folder})
	default:
		l.listing.Unreadable = append(l.listing.Unreadable, Unreadable{ID: id, Path: folder, Err: err})
	}
}

// marks are those of a manifest and of its signature, as a listing has them.
type marks struct {
	there               bool // the manifest
	manifest, signature string
}

func marksAmong(objects []store.Object) (m marks) {
	for _, o := range objects {
		switch path.Base(o.Key) {
		case ManifestName:
			m.there, m.manifest = true, o.Mark
		case SignatureName:
			m.signature = o.Mark
		}
	}
	return m
}

// readEntry reads the manifest of one folder, and tells by which marks it will be known again; none where it cannot be.
func readEntry(ctx context.Context, s store.Store, host string, id ID) (e Entry, known []string, err error) {
	text, size, known, err := readMarked(ctx, s, path.Join(id.Path(host), ManifestName), MaxManifestBytes)
	if err != nil {
		return e, nil, err
	}
	b, err := parseBackup(host, id, text, size)
	if err != nil {
		return e, nil, err
	}
	return EntryOf(b), known, nil
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
	if m.Host.Name != host {
		return Backup{}, fmt.Errorf("%w: its manifest is that of host %q, whose name the folder has to have", ErrDamaged, m.Host.Name)
	}
	return Backup{Host: host, ID: id, Manifest: m, SizeBytes: m.FileBytes() + size, ManifestSum: sha256.Sum256(text)}, nil
}

func (l *Listing) sort() {
	slices.SortFunc(l.Backups, func(a, b Entry) int { return a.ID.Compare(b.ID) })
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
