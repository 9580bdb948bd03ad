package catalog

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"voltar/internal/clock"
	"voltar/internal/store"
)

// Entry is what is kept in mind of one backup: enough to decide what becomes of it, and little enough for the tens of
// thousands that a host may have. Everything else is in the manifest, which Load reads again.
type Entry struct {
	Host       string // the folder's
	ID         ID
	Identity   Identity
	MachineID  string // of the machine that made it
	Run        string
	Status     Status
	Damage     string      // what is known to be wrong with it since it was made, empty for nothing
	SizeBytes  int64       // of all files, the manifest included
	Entries    int64       // files and folders in its archives
	Encryption *Encryption // nil for a backup that everybody can read
	Guest      Guest       // whose disk the volume was; zero where nobody knew
	files      [16]byte    // digest of the names and sizes of its files, without the manifest
	known      bool        // its manifest was read some other time; see Known
}

// IsGood tells whether the backup lacks nothing, as far as is known.
func (e Entry) IsGood() bool { return e.Status == StatusComplete && e.Damage == "" }

// IsAhead tells whether the backup is dated ahead (package clock).
func (e Entry) IsAhead(now time.Time) bool { return clock.IsAhead(e.ID.Time, now) }

// Path is the key of the backup's folder.
func (e Entry) Path() string { return e.ID.Path(e.Host) }

// Load reads the backup itself.
func (e Entry) Load(ctx context.Context, s store.Store) (Backup, error) {
	b, err := readBackup(ctx, s, e.Host, e.ID)
	b.Damage = e.Damage
	return b, err
}

// digest is of names and sizes, in any order of the files.
func digest(names []string, sizeOf func(name string) int64) (sum [16]byte) {
	slices.Sort(names)
	var text []byte
	for _, name := range names {
		text = append(append(text, name...), 0)
		text = append(strconv.AppendInt(text, sizeOf(name), 10), 0)
	}
	whole := sha256.Sum256(text)
	copy(sum[:], whole[:])
	return sum
}

// EntryOf is what is kept in mind of a backup.
func EntryOf(b Backup) Entry {
	e := Entry{
		Host: b.Host, ID: b.ID, Identity: b.Identity(), MachineID: b.Manifest.Host.MachineID, Run: b.Manifest.Run,
		Status: b.Manifest.Status, Damage: b.Damage, SizeBytes: b.SizeBytes, Encryption: b.Manifest.Encryption,
	}
	if b.Manifest.Source.Guest != nil {
		e.Guest = *b.Manifest.Source.Guest
	}
	for _, x := range b.Manifest.Extents {
		e.Entries += x.Entries
	}
	sizes := make(map[string]int64, len(b.Manifest.Files))
	names := make([]string, 0, len(b.Manifest.Files))
	for _, file := range b.Manifest.Files {
		sizes[file.Name] = file.SizeBytes
		names = append(names, file.Name)
	}
	e.files = digest(names, func(name string) int64 { return sizes[name] })
	return e
}

// EntryOfUnreadable is what is kept in mind of a backup whose manifest cannot be used, by the files in its folder. It is of no source.
func EntryOfUnreadable(ctx context.Context, s store.Store, host string, u Unreadable) (Entry, error) {
	e := Entry{Host: host, ID: u.ID, Damage: u.Err.Error()}
	objects, err := s.List(ctx, e.Path())
	if err != nil {
		return e, fmt.Errorf("list the files of %s: %w", u.ID, err)
	}
	for _, o := range objects {
		e.SizeBytes += o.SizeBytes
	}
	return e, nil
}

// History is all backups of one source, whatever names it had, and of the volumes that were restored as it.
type History struct {
	Identity Identity
	Ref      Ref     // the name in the newest backup that is not dated ahead
	Entries  []Entry // the newest first; never empty, and not to be changed
}

// Newest returns the newest backup that is not dated ahead; ok is false when all are.
func (h History) Newest(now time.Time) (_ Entry, ok bool) {
	for _, e := range h.Entries {
		if !e.IsAhead(now) {
			return e, true
		}
	}
	return Entry{}, false
}

// Stock is what one store holds of one host, sorted by what it is of. It is read once; what is added and removed after
// that is kept up to date in it. It is safe for concurrent use.
type Stock struct {
	Host       string
	Unreadable []Unreadable
	Unfinished []Unfinished
	Now        time.Time // as Filter has it
	IsPart     bool      // only some sources were looked at

	restoredAs map[Identity]Identity // as Filter has it

	mu         sync.Mutex
	histories  map[Identity][]Entry // the newest first; replaced and never changed, so that readers need no lock
	sizeBytes  int64
	unreadable map[string]error // why, by ID
}

// ReadStock reads what a store holds of a host: of all sources, or of those that match. A filter may not choose otherwise.
func ReadStock(ctx context.Context, s store.Store, host string, filter Filter) (*Stock, error) {
	listing, err := List(ctx, s, host, filter)
	if err != nil {
		return nil, err
	}
	x := newStock(host)
	x.IsPart, x.restoredAs = filter.Match != nil, filter.RestoredAs
	for _, e := range listing.Backups {
		x.put(e)
	}
	x.finish(listing)
	return x, nil
}

func newStock(host string) *Stock {
	return &Stock{Host: host, histories: map[Identity][]Entry{}, unreadable: map[string]error{}}
}

// shared has entries hold the same text once, and not the manifest that it was cut out of.
type shared struct {
	texts       map[string]string
	encryptions map[string]*Encryption // by all that is in them
}

func newShared() shared { return shared{map[string]string{}, map[string]*Encryption{}} }

func (s shared) text(text string) string {
	if known, ok := s.texts[text]; ok {
		return known
	}
	text = strings.Clone(text)
	s.texts[text] = text
	return text
}

func (s shared) share(e Entry) Entry {
	e.Host, e.MachineID, e.Run = s.text(e.Host), s.text(e.MachineID), s.text(e.Run)
	e.Identity, e.Status = Identity(s.text(string(e.Identity))), Status(s.text(string(e.Status)))
	e.ID.Ref.VG, e.ID.Ref.Name = s.text(e.ID.Ref.VG), s.text(e.ID.Ref.Name)
	g := e.Guest
	e.Guest = Guest{ID: s.text(g.ID), Name: s.text(g.Name), Kind: s.text(g.Kind), Disk: s.text(g.Disk), Alias: s.text(g.Alias)}
	if e.Encryption != nil {
		key := fmt.Sprintf("%q", *e.Encryption)
		if s.encryptions[key] == nil {
			s.encryptions[key] = e.Encryption
		}
		e.Encryption = s.encryptions[key]
	}
	return e
}

// line is under which identity the backups of a source are: its own, or that of the volume that it was restored as.
func (x *Stock) line(identity Identity) Identity { return cmp.Or(x.restoredAs[identity], identity) }

// put takes an entry while the stock is being read.
func (x *Stock) put(e Entry) {
	e.Identity = x.line(e.Identity)
	x.histories[e.Identity] = append(x.histories[e.Identity], e)
	x.sizeBytes += e.SizeBytes
}

func (x *Stock) finish(listing *Listing) {
	x.Unreadable, x.Unfinished, x.Now = listing.Unreadable, listing.Unfinished, listing.Now
	for _, u := range x.Unreadable {
		x.unreadable[u.ID.String()] = u.Err
	}
	for _, entries := range x.histories {
		slices.SortFunc(entries, newestFirst)
	}
}

func newestFirst(a, b Entry) int { return cmp.Or(b.ID.Time.Compare(a.ID.Time), a.ID.Compare(b.ID)) }

// Add enters a backup that was made.
func (x *Stock) Add(b Backup) {
	e := EntryOf(b)
	e.Identity = x.line(e.Identity)
	x.mu.Lock()
	defer x.mu.Unlock()
	old := x.histories[e.Identity]
	at, _ := slices.BinarySearchFunc(old, e, newestFirst)
	x.histories[e.Identity] = slices.Insert(slices.Clone(old), at, e)
	x.sizeBytes += e.SizeBytes
}

// Remove takes out a backup that was removed.
func (x *Stock) Remove(e Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.Identity = x.line(e.Identity)
	had := x.histories[e.Identity]
	left := slices.DeleteFunc(slices.Clone(had), func(have Entry) bool { return have.ID == e.ID })
	if len(left) < len(had) { // and was not one that cannot be read
		x.sizeBytes -= e.SizeBytes
	}
	if x.histories[e.Identity] = left; len(left) == 0 {
		delete(x.histories, e.Identity)
	}
}

// MarkDamaged notes what was found wrong with a backup.
func (x *Stock) MarkDamaged(e Entry, damage string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.Identity = x.line(e.Identity)
	marked := slices.Clone(x.histories[e.Identity])
	if i := slices.IndexFunc(marked, func(have Entry) bool { return have.ID == e.ID }); i >= 0 {
		marked[i].Damage = damage
	}
	x.histories[e.Identity] = marked
}

// History returns the backups of one source, the newest first. They are not to be changed.
func (x *Stock) History(identity Identity) []Entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.histories[x.line(identity)]
}

// Histories returns those of which a backup has a name that is wanted, whole; nil takes all. They are in the order of
// names, and of identities where two share one.
func (x *Stock) Histories(wanted func(Ref) bool) []History {
	x.mu.Lock()
	defer x.mu.Unlock()
	var list []History
	for identity, entries := range x.histories {
		if wanted == nil || slices.ContainsFunc(entries, func(e Entry) bool { return wanted(e.ID.Ref) }) {
			h := History{Identity: identity, Ref: entries[0].ID.Ref, Entries: entries}
			if newest, ok := h.Newest(x.Now); ok {
				h.Ref = newest.ID.Ref
			}
			list = append(list, h)
		}
	}
	slices.SortFunc(list, func(a, b History) int {
		return cmp.Or(strings.Compare(a.Ref.String(), b.Ref.String()), cmp.Compare(a.Identity, b.Identity))
	})
	return list
}

// Entries returns the backups of the names that are wanted, in the order of ID.Compare; nil takes all.
func (x *Stock) Entries(wanted func(Ref) bool) []Entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	var list []Entry
	for _, entries := range x.histories {
		for _, e := range entries {
			if wanted == nil || wanted(e.ID.Ref) {
				list = append(list, e)
			}
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return a.ID.Compare(b.ID) })
	return list
}

// Holds tells whether there is a backup of that identity and time, readable or not.
func (x *Stock) Holds(e Entry) bool {
	if x.WhyUnreadable(e.ID) != nil {
		return true
	}
	return slices.ContainsFunc(x.History(e.Identity), func(have Entry) bool { return have.ID == e.ID })
}

// WhyUnreadable says why nobody can read what is in the place of a backup, or nil.
func (x *Stock) WhyUnreadable(id ID) error { return x.unreadable[id.String()] }

// SizeBytes is that of all backups.
func (x *Stock) SizeBytes() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.sizeBytes
}

// MarkLacking marks the backups of a source as damaged that count as good and whose files the store does not hold, each of
// its size, and returns them; from then on they are not good in the stock. It also reads the manifest of the newest good backup,
// if that was only known. The store is only read: one request for each name that the source had, and one for that manifest.
func (x *Stock) MarkLacking(ctx context.Context, s store.Store, identity Identity) (lacking []Entry, err error) {
	entries := x.History(identity)
	listed := map[Ref]map[string][]store.Object{} // by the time in their path
	read := false                                 // the manifest of the newest good one
	for _, e := range entries {
		if !e.IsGood() {
			continue
		}
		byTime, isListed := listed[e.ID.Ref]
		if !isListed {
			if byTime, err = filesByTime(ctx, s, x.Host, e.ID.Ref); err != nil {
				return lacking, fmt.Errorf("compare the files of %s in %s: %w", e.ID.Ref, s, err)
			}
			listed[e.ID.Ref] = byTime
		}
		damage, err := e.compare(ctx, s, byTime[FormatTime(e.ID.Time)])
		if err != nil {
			return lacking, err
		}
		if damage == "" && !read && !e.IsAhead(x.Now) {
			damage, err = e.reread(ctx, s)
			read = damage == ""
		}
		if err != nil {
			return lacking, err
		}
		if damage != "" {
			x.MarkDamaged(e, damage)
			e.Damage = damage
			lacking = append(lacking, e)
		}
	}
	return lacking, nil
}

// reread says what is wrong with a manifest that was read some other time: nothing older is to go on account of one that only
// was good.
func (e Entry) reread(ctx context.Context, s store.Store) (damage string, err error) {
	if !e.known {
		return "", nil
	}
	_, _, err = readEntry(ctx, s, e.Host, e.ID)
	if err != nil && !errors.Is(err, store.ErrNotExist) && !IsVerdict(err) {
		return "", fmt.Errorf("read the manifest of %s: %w", e.ID, err)
	}
	return damageOf(err), nil
}

// filesByTime lists all files of all backups of a name.
func filesByTime(ctx context.Context, s store.Store, host string, ref Ref) (map[string][]store.Object, error) {
	folder := path.Join(host, ref.String())
	objects, err := s.List(ctx, folder)
	if err != nil {
		return nil, err
	}
	byTime := map[string][]store.Object{}
	for _, o := range objects {
		when, _, _ := strings.Cut(strings.TrimPrefix(o.Key, folder+"/"), "/")
		byTime[when] = append(byTime[when], o)
	}
	return byTime, nil
}

// compare says what a backup lacks of its files, given what there is in its folder. Only where the two differ is the
// manifest read again. A claim is there for as long as a bucket holds every object.
func (e Entry) compare(ctx context.Context, s store.Store, objects []store.Object) (damage string, err error) {
	sizes := map[string]int64{}
	var names []string
	for _, o := range objects {
		if name := path.Base(o.Key); name != ManifestName && name != SignatureName && name != ClaimName {
			sizes[name] = o.SizeBytes
			names = append(names, name)
		}
	}
	if digest(names, func(name string) int64 { return sizes[name] }) == e.files {
		return "", nil
	}
	b, err := e.Load(ctx, s)
	if err != nil && !errors.Is(err, store.ErrNotExist) && !IsVerdict(err) {
		return "", err // the store does not say what it holds
	}
	if err == nil {
		err = b.checkHeld(objects) // more than the manifest has harms nobody
	}
	return damageOf(err), nil
}

// IsVerdict tells whether an error says something of the manifest that was read, and not of the store.
func IsVerdict(err error) bool {
	var newer *FormatError
	return errors.Is(err, ErrDamaged) || errors.Is(err, ErrUntrusted) || errors.As(err, &newer)
}

// damageOf is what an error says is wrong with a backup, empty for nothing.
func damageOf(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimPrefix(err.Error(), ErrDamaged.Error()+": ") // which goes without saying of damage
}
