package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"voltar/internal/store"
)

// ErrNotFound is wrapped by the error of a backup that nothing fits; the message says what there is.
var ErrNotFound = errors.New("there is no such backup")

// Filter narrows a listing.
type Filter struct {
	Match  func(Ref) bool // nil takes all sources
	Newest int            // at most so many backups of each name, the newest; 0 means all
}

// Unreadable is a folder whose manifest is there but cannot be used: it is damaged, of a newer voltar (*FormatError), or
// the store could not read it. Such are kept, listed, and neither restored nor pruned.
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
	Unknown    []string // folders where backups lie, of names that voltar does not give; sorted
}

// listLimit is how many requests go to the store at once.
const listLimit = 8

// List lists the backups of a host. Only a store that does not answer makes it fail; a manifest that cannot be used is
// in Unreadable. A host without a folder has no backups.
func List(ctx context.Context, s store.Store, host string, filter Filter) (*Listing, error) {
	if err := CheckHost(host); err != nil {
		return nil, err
	}
	l := &lister{store: s, filter: filter, listing: &Listing{Host: host}}
	if err := l.run(ctx); err != nil {
		return nil, fmt.Errorf("list the backups of %s in %s: %w", host, s, err)
	}
	l.listing.sort()
	return l.listing, nil
}

type lister struct {
	store   store.Store
	filter  Filter
	mu      sync.Mutex // guards listing
	listing *Listing
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
		if l.filter.Newest > 0 && found == l.filter.Newest {
			return nil
		}
		backup, err := readBackup(ctx, l.store, l.listing.Host, id)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
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
		l.listing.Backups = append(l.listing.Backups, backup)
	case errors.Is(err, store.ErrNotExist):
		l.listing.Unfinished = append(l.listing.Unfinished, Unfinished{ID: id, Path: folder})
	default:
		l.listing.Unreadable = append(l.listing.Unreadable, Unreadable{ID: id, Path: folder, Err: err})
	}
}

// readBackup reads the manifest of one folder, which must be of what the path says.
func readBackup(ctx context.Context, s store.Store, host string, id ID) (Backup, error) {
	data, size, err := read(ctx, s, path.Join(id.Path(host), ManifestName), maxManifestBytes)
	if err != nil {
		return Backup{}, err
	}
	m, err := ParseManifest(data)
	if err != nil {
		return Backup{}, err
	}
	if m.ID().Compare(id) != 0 {
		return Backup{}, fmt.Errorf("%w: its manifest is that of %s", ErrDamaged, m.ID())
	}
	return Backup{Host: host, ID: id, Manifest: m, SizeBytes: m.FileBytes() + size}, nil
}

func (l *Listing) sort() {
	slices.SortFunc(l.Backups, func(a, b Backup) int { return a.ID.Compare(b.ID) })
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

// Resolve finds the backup that "VOLUME[@TIME]" means. VOLUME is VG/LV (or @dump/NAME and the like), or the name after
// the slash alone where that is unique; TIME may be cut short where that is unique; without it the newest is meant.
// An error that wraps ErrNotFound says what there is. When the newest cannot be read nothing older is taken in its
// stead: that must be asked for.
func (l *Listing) Resolve(text string) (Backup, error) {
	name, when := cutTime(text)
	ref, err := l.resolveRef(name)
	if err != nil {
		return Backup{}, fmt.Errorf("find backup %q: %w", text, err)
	}
	backup, err := l.resolveTime(ref, when)
	if err != nil {
		return Backup{}, fmt.Errorf("find backup %q: %w", text, err)
	}
	return backup, nil
}

func (l *Listing) resolveRef(name string) (Ref, error) {
	known := map[Ref]bool{}
	for _, b := range l.Backups {
		known[b.ID.Ref] = true
	}
	for _, u := range l.Unreadable {
		known[u.ID.Ref] = true
	}
	var found, all []string
	var ref Ref
	for candidate := range known {
		all = append(all, candidate.String())
		if candidate.String() == name || (!strings.Contains(name, "/") && candidate.Name == name) {
			found = append(found, candidate.String())
			ref = candidate
		}
	}
	slices.Sort(found)
	slices.Sort(all)
	switch len(found) {
	case 1:
		return ref, nil
	case 0:
		return Ref{}, fmt.Errorf("%w\nhint: there are backups of %s", ErrNotFound, some(all))
	default:
		return Ref{}, fmt.Errorf("%w: the name fits more than one volume\nhint: say which: %s", ErrNotFound, some(found))
	}
}

func (l *Listing) resolveTime(ref Ref, when string) (Backup, error) {
	var fit, others []Backup
	var bad []Unreadable
	for _, b := range l.Backups {
		if b.ID.Ref != ref {
			continue
		}
		others = append(others, b)
		if strings.HasPrefix(FormatTime(b.ID.Time), when) {
			fit = append(fit, b)
		}
	}
	for _, u := range l.Unreadable {
		if u.ID.Ref == ref && strings.HasPrefix(FormatTime(u.ID.Time), when) {
			bad = append(bad, u)
		}
	}
	if when == "" {
		return newest(fit, bad)
	}
	switch {
	case len(fit) == 1 && len(bad) == 0:
		return fit[0], nil
	case len(fit) == 0 && len(bad) == 1:
		return Backup{}, fmt.Errorf("read the manifest of %s: %w", bad[0].ID, bad[0].Err)
	case len(fit)+len(bad) > 1:
		return Backup{}, fmt.Errorf("%w: the time fits more than one\nhint: say which: %s", ErrNotFound, some(ids(fit)))
	default:
		return Backup{}, fmt.Errorf("%w of that time\nhint: there are %s", ErrNotFound, some(ids(others)))
	}
}

func newest(backups []Backup, bad []Unreadable) (Backup, error) {
	if len(bad) > 0 {
		last := bad[len(bad)-1]
		if len(backups) == 0 {
			return Backup{}, fmt.Errorf("read the manifest of %s: %w", last.ID, last.Err)
		}
		if last.ID.Time.After(backups[len(backups)-1].ID.Time) {
			return Backup{}, fmt.Errorf("read the manifest of %s, the newest: %w\nhint: for an older one say which: %s",
				last.ID, last.Err, some(ids(backups)))
		}
	}
	return backups[len(backups)-1], nil
}

func ids(backups []Backup) []string {
	var list []string
	for _, b := range slices.Backward(backups) {
		list = append(list, b.ID.String())
	}
	return list
}

// some writes a list for people, and not more of it than they will read.
func some(names []string) string {
	const most = 10
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	default:
		return strings.Join(names, ", ")
	}
}

// History is all backups of one source, whatever names it had.
type History struct {
	Identity Identity
	Ref      Ref      // the name in the newest backup
	LVUUID   string   // of volumes
	Backups  []Backup // the newest first; never empty
}

// SizeBytes is that of all its backups.
func (h History) SizeBytes() int64 {
	var sum int64
	for _, b := range h.Backups {
		sum += b.SizeBytes
	}
	return sum
}

// Histories sorts backups by what they are of. A volume made anew under an old name has a history of its own. The
// result is in the order of names, and of identities where two share one.
func Histories(backups []Backup) []History {
	byIdentity := map[Identity][]Backup{}
	for _, b := range backups {
		byIdentity[b.Identity()] = append(byIdentity[b.Identity()], b)
	}
	var histories []History
	for identity, list := range byIdentity {
		slices.SortFunc(list, func(a, b Backup) int {
			return cmp.Or(b.ID.Time.Compare(a.ID.Time), a.ID.Compare(b.ID))
		})
		source := list[0].Manifest.Source
		histories = append(histories, History{Identity: identity, Ref: source.Ref(), LVUUID: source.LVUUID, Backups: list})
	}
	slices.SortFunc(histories, func(a, b History) int {
		return cmp.Or(strings.Compare(a.Ref.String(), b.Ref.String()), cmp.Compare(a.Identity, b.Identity))
	})
	return histories
}

// Gone returns the histories of volumes that are not among the live ones. Sources that are no volumes never go.
func Gone(histories []History, live map[Identity]bool) []History {
	var gone []History
	for _, h := range histories {
		if h.Ref.Kind == SourceVolume && !live[h.Identity] {
			gone = append(gone, h)
		}
	}
	return gone
}
