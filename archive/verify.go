package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"slices"
)

// VerifyLevel says how much of an archive Verify reads.
type VerifyLevel int

// Levels of Verify.
const (
	// VerifyQuick reads the header and the length of each member and all of the index, and compares the two.
	VerifyQuick VerifyLevel = iota
	// VerifySample does that, and inflates a part of the members and compares the entries in them with the index.
	VerifySample
	// VerifyFull inflates everything and compares every entry with the index.
	VerifyFull
)

// VerifyOptions of Verify.
type VerifyOptions struct {
	Level VerifyLevel
	// SamplePercent is how much of the archive VerifySample inflates, 1 to 100; at least one member.
	SamplePercent int
	// Seed chooses the members of a sample.
	Seed uint64
	// Workers as of ReaderOptions.
	Workers int
	// OnProgress is called with the entries that are done.
	OnProgress func(entries int64)
}

// VerifyResult says what Verify saw. The archive is good when there are no findings.
type VerifyResult struct {
	Members         int64 // whose headers were read
	MembersInflated int64 // with an index; 0 without
	Entries         int64
	TarBytes        int64
	Damage          []MemberError
	Lost            []Failure // entries that cannot be restored whole, hard links to such included
	LostOmitted     int64     // beyond those listed
	Findings        []string  // all that is wrong, in words; the first 100,000, of 16 MiB together

	found, listed listBudget // of Findings and Lost
}

// Good says whether nothing was found.
func (v *VerifyResult) Good() bool { return len(v.Findings) == 0 }

func (v *VerifyResult) find(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if v.found.take(len(text)) {
		v.Findings = append(v.Findings, text)
	}
}

func (v *VerifyResult) lose(path string, err error) {
	if v.listed.take(len(path) + len(err.Error())) {
		v.Lost = append(v.Lost, Failure{Path: path, Err: err})
	} else {
		v.LostOmitted++
	}
}

// Verify checks the sizeBytes of an archive: the checksums and lengths of its members, the structure of the tar stream,
// and the index against both, entry by entry. Without an index, which may be nil, only VerifyFull says much. The error
// is that of a source that cannot be read or of a context that ended; what is wrong with the archive is in the result.
func Verify(ctx context.Context, src io.ReaderAt, sizeBytes int64, index *Index, opts VerifyOptions) (VerifyResult, error) {
	v := &verifier{ctx: ctx, src: src, size: sizeBytes, index: index, opts: opts}
	limits := defaultLimits()
	v.lost = newLinkTable(&spill{dir: os.TempDir(), limit: limits.SpillBytes}, limits.LinkBytes)
	defer v.lost.close()
	v.firsts = firstNames{newPathTable(limits)}
	defer v.firsts.close()
	err := v.run()
	if err != nil {
		err = fmt.Errorf("verify: %w", err)
	}
	return v.res, err
}

type verifier struct {
	ctx     context.Context
	src     io.ReaderAt
	size    int64
	index   *Index
	opts    VerifyOptions
	res     VerifyResult
	members []Member
	lost    *linkTable // entries whose data is lost, by their offset as inode, as hard links name it
	t       *tarReader

	named    []int64 // the offsets of what hard links name, by the index; none where there are too many
	allNamed bool    // named has them all
	firsts   firstNames
}

func (v *verifier) run() error {
	if v.index != nil {
		if err := v.readIndex(); err != nil {
			return err
		}
		if err := v.headers(); err != nil {
			return err
		}
	}
	switch v.opts.Level {
	case VerifyFull:
		return v.full()
	case VerifySample:
		return v.sample()
	}
	if v.index == nil {
		return v.chain()
	}
	return nil
}

// readIndex reads all of the index.
func (v *verifier) readIndex() (err error) {
	v.members, err = v.index.audit(v.ctx, func(path string, err error) {
		if path != "" {
			err = fmt.Errorf("%q %w", path, err)
		}
		v.res.find("index: %v", err)
	})
	if v.index.ArchiveBytes() != v.size {
		v.res.find("the archive has %d bytes, the index says %d", v.size, v.index.ArchiveBytes())
	}
	return err
}

// headers compares the header of each member with the index.
func (v *verifier) headers() error {
	head := make([]byte, memberHeadBytes)
	for _, m := range v.members {
		if v.ctx.Err() != nil {
			return context.Cause(v.ctx)
		}
		v.res.Members++
		if n, err := v.src.ReadAt(head, m.Offset); n < len(head) {
			if err != io.EOF && err != nil {
				return err
			}
			v.lostMember(m, io.ErrUnexpectedEOF)
			continue
		}
		if m.Offset+m.LengthBytes > v.size {
			v.lostMember(m, io.ErrUnexpectedEOF)
			continue
		}
		header, err := parseMemberHeader(head)
		if err == nil && header.declares && (header.storedBytes != m.LengthBytes || header.tarBytes != m.TarBytes) {
			err = errors.New("its header declares other lengths than the index")
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil // a longer header than voltar writes
		}
		if err != nil {
			v.lostMember(m, err)
		}
	}
	return nil
}

func (v *verifier) lostMember(m Member, err error) {
	if v.opts.Level == VerifyFull {
		return // which inflates it and says so
	}
	d := MemberError{Offset: m.Offset, LengthBytes: m.LengthBytes, TarOffset: m.TarOffset, TarBytes: m.TarBytes, Err: err}
	v.noteDamage(d)
}

func (v *verifier) noteDamage(d MemberError) {
	if len(v.res.Damage) < failuresKept {
		v.res.Damage = append(v.res.Damage, d)
	}
	v.res.find("%v", &d)
}

// chain steps from header to header where there is no index.
func (v *verifier) chain() error {
	head := make([]byte, memberHeadBytes)
	for offset := int64(0); offset < v.size || offset == 0; {
		if v.ctx.Err() != nil {
			return context.Cause(v.ctx)
		}
		n, err := v.src.ReadAt(head, offset)
		if n < len(head) && err != nil && err != io.EOF {
			return err
		}
		header, err := parseMemberHeader(head[:n])
		if err != nil {
			v.res.find("no member at byte %d: %v", offset, err)
			return nil
		}
		v.res.Members++
		if !header.declares {
			v.res.find("the member at byte %d does not declare its length: only a full check can tell", offset)
			return nil
		}
		v.res.TarBytes += header.tarBytes
		if offset += header.storedBytes; offset > v.size {
			v.res.find("the archive ends %d bytes inside of its last member", offset-v.size)
		}
	}
	return nil
}

// full reads the whole archive.
func (v *verifier) full() error {
	opts := ReaderOptions{Workers: v.opts.Workers, KeepGoing: true}
	if len(v.members) > 0 {
		opts.Members = v.members
		v.res.MembersInflated = int64(len(v.members))
		if last := v.members[len(v.members)-1]; last.Offset+last.LengthBytes < v.size {
			v.res.find("%d bytes behind the last member", v.size-last.Offset-last.LengthBytes)
		}
	}
	var entries iter.Seq2[Entry, error]
	if v.index != nil {
		entries = v.index.All(v.ctx)
		v.named, v.allNamed = v.index.hardLinks(v.ctx)
	}
	return v.read(opts, entries, true)
}

// sample reads some members and compares what begins in them.
func (v *verifier) sample() error {
	if len(v.members) == 0 {
		return v.full() // as there is no list to choose from
	}
	want := max(1, len(v.members)*min(max(v.opts.SamplePercent, 1), 100)/100)
	rng := rand.New(rand.NewPCG(v.opts.Seed, 0))
	chosen := make([]Member, 0, want)
	for _, i := range rng.Perm(len(v.members))[:want] {
		chosen = append(chosen, v.members[i])
	}
	slices.SortFunc(chosen, func(a, b Member) int { return cmp.Compare(a.Offset, b.Offset) })
	v.res.MembersInflated = int64(want)
	opts := ReaderOptions{Workers: v.opts.Workers, KeepGoing: true, Members: chosen}
	return v.read(opts, v.index.All(v.ctx), false)
}

// read goes through the tar stream beside the index.
func (v *verifier) read(opts ReaderOptions, entries iter.Seq2[Entry, error], whole bool) error {
	r, err := NewReader(v.ctx, v.src, v.size, opts)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // its error was that of a read
	v.t = &tarReader{r: r, whole: whole, badEntry: func(err error) error { v.res.find("%v", err); return nil },
		damaged: func(d *MemberError) { v.noteDamage(*d) }}
	if entries != nil {
		v.t.cursor = newCursor(entries,
			func(e Entry) error {
				if whole && e.TarOffset >= 0 {
					return v.missing(e)
				}
				return nil
			},
			func(error) error { return nil }) // found by readIndex already
		defer v.t.cursor.stop()
	}
	for {
		e, err := v.t.next()
		if v.ctx.Err() != nil {
			return context.Cause(v.ctx)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			v.res.find("%v", err)
			break
		}
		v.res.Entries++
		if err := v.entry(e, whole); err != nil {
			return err
		}
		if v.opts.OnProgress != nil {
			v.opts.OnProgress(v.res.Entries)
		}
	}
	v.res.TarBytes = r.given
	if v.t.cursor != nil && whole {
		err = v.t.cursor.finish()
	}
	return err
}

// missing lists an entry that the index has and the stream does not.
func (v *verifier) missing(e Entry) error {
	err := errLost
	if len(v.res.Damage) == 0 {
		err = errors.New("in the index, but not in the archive")
		v.res.find("%q: %v", e.Path, err)
	}
	v.res.lose(e.Path, err)
	return v.noteLost(e.TarOffset, e.Path)
}

// noteLost remembers an entry whose data is lost, for the hard links to it.
func (v *verifier) noteLost(offset int64, path string) error {
	return v.lost.put(inodeKey{inode: uint64(offset)}, firstName{path: path, tarOffset: offset, left: math.MaxUint32})
}

// entry checks one entry, reading its data.
func (v *verifier) entry(e *tarEntry, whole bool) error {
	path, err := cleanPath(e.Path)
	if err != nil {
		v.res.find("%v", err)
		path = e.Path
	}
	if err := v.readData(e, path, whole); err != nil {
		return err
	}
	if v.t.cursor == nil || !e.exact {
		return nil
	}
	in, ok, err := v.t.cursor.take(e.TarOffset)
	if err != nil {
		return err
	}
	if !ok {
		if len(v.res.Damage) == 0 {
			v.res.find("%q: in the archive, but not in the index", path)
		}
		return nil
	}
	if what := difference(e, path, in, v.index.total); what != "" {
		v.res.find("%q: %s differs between archive and index", path, what)
	}
	if e.Type != TypeHardlink {
		return v.noteNamed(e, path)
	}
	target, lost, err := v.lost.take(inodeKey{inode: uint64(in.DataOffset)})
	if lost {
		v.res.lose(path, fmt.Errorf("lost: it is a hard link to %q", target.path))
	}
	if lost || err != nil || !whole || len(v.res.Damage) > 0 {
		return err
	}
	leads, err := v.firsts.leads(in)
	if !leads {
		v.res.find("%q: %v", path, errLeadsElsewhere)
	}
	return err
}

// noteNamed remembers an entry that hard links name.
func (v *verifier) noteNamed(e *tarEntry, path string) error {
	if !v.allNamed {
		return v.firsts.note(e, path)
	}
	if _, found := slices.BinarySearch(v.named, e.TarOffset); found {
		return v.firsts.note(e, path)
	}
	return nil
}

func (v *verifier) readData(e *tarEntry, path string, whole bool) error {
	for known := false; ; {
		_, err := v.t.data(math.MaxInt64)
		var lost *lostData
		switch {
		case err == nil:
		case err == io.EOF:
			return nil
		case errors.As(err, &lost):
			var skip *skipped
			if !whole && errors.As(err, &skip) {
				continue
			}
			if !e.exact || known {
				continue
			}
			known = true
			v.res.lose(path, err)
			if err := v.noteLost(e.TarOffset, path); err != nil {
				return err
			}
		case v.ctx.Err() != nil:
			return context.Cause(v.ctx)
		default:
			v.res.lose(path, err)
			return nil // next meets it as well
		}
	}
}

// difference names the first thing in which an entry is not as its line in the index says.
func difference(e *tarEntry, path string, in Entry, total indexTotal) string {
	link := e.Linkname
	if e.Type == TypeHardlink {
		if clean, err := cleanPath(link); err == nil {
			link = clean
		}
	}
	for _, c := range []struct {
		what string
		same bool
	}{
		{"path", path == in.Path}, {"type", e.Type == in.Type}, {"mode", e.Mode == in.Mode},
		{"owner", e.UID == in.UID && e.GID == in.GID}, {"time", e.MTime.Equal(in.MTime)},
		{"size", e.SizeBytes == in.SizeBytes}, {"stored size", e.StoredBytes == in.StoredBytes},
		{"link", link == in.Linkname}, {"length", e.TarBytes == in.TarBytes},
		{"having of attributes", !total.TellsAttrs || e.HasAttrs == in.HasAttrs},
		{"device", e.DevMajor == in.DevMajor && e.DevMinor == in.DevMinor},
	} {
		if !c.same {
			return c.what
		}
	}
	return ""
}
