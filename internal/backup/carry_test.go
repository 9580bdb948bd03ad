package backup

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/archive"
	"voltar/internal/agefile"
	"voltar/internal/catalog"
	"voltar/internal/placement"
	"voltar/internal/placement/placementtest"
	"voltar/internal/store"
	"voltar/report"
)

// carrySite is a host with a directory of some members, and places to keep it.
type carrySite struct {
	*site
	tree   string
	marked map[string]string // by place
}

func newCarrySite(t *testing.T, destinations ...string) *carrySite {
	t.Helper()
	s := &carrySite{site: newSite(t, destinations...), tree: t.TempDir(), marked: map[string]string{}}
	s.withSources(t, Sources{Directories: []Directory{{Name: "tree", Path: s.tree, Level: archive.LevelFast}}})
	s.opts.Fresh = 30 * 24 * time.Hour
	s.opts.MarkDamaged = func(place, what string) error {
		s.marked[place] = what
		return nil
	}
	for _, name := range []string{"a", "b", "c"} {
		s.write(t, name, name)
	}
	return s
}

// write fills a file of 5 MiB, with times that do not change.
func (s *carrySite) write(t *testing.T, name, seed string) {
	t.Helper()
	data := make([]byte, 5<<20)
	_, _ = rand.NewChaCha8([32]byte([]byte(strings.Repeat(seed, 32)))).Read(data)
	for i := range data {
		data[i] &= 15
	}
	path := filepath.Join(s.tree, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, placementtest.FirstNight, placementtest.FirstNight); err != nil {
		t.Fatal(err)
	}
}

// night backs the directory up.
func (s *carrySite) night(t *testing.T, n int) report.Volume {
	t.Helper()
	s.Now = func() time.Time { return placementtest.FirstNight.AddDate(0, 0, n) }
	result, err := s.Run(t.Context(), []string{"@directory/tree"})
	if err != nil {
		t.Fatal(err)
	}
	if v := result.Volumes[0]; v.Status != report.VolumeOK {
		t.Fatalf("night %d: %s, %+v", n, v.Status, v.Error)
	}
	return result.Volumes[0]
}

// archiveOf returns the path of a night's archive on a destination.
func (s *carrySite) archiveOf(t *testing.T, on string, n int) string {
	t.Helper()
	id := catalog.ID{Ref: catalog.Source{Kind: catalog.SourceDirectory, Name: "tree"}.Ref(), Time: placementtest.FirstNight.AddDate(0, 0, n)}
	return filepath.Join(s.dir, on, id.Path(placementtest.Host.Name), "tree.tar.gz")
}

func gunzip(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// The second night carries over what did not change, on all destinations, and finds what changed under the same times.
func TestWhatDidNotChangeIsCarriedOver(t *testing.T) {
	s := newCarrySite(t, "sealed", "disk", "second")
	var err error
	if s.on("sealed").Recipients, err = agefile.ParseRecipients([]string{"age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa"}); err != nil {
		t.Fatal(err)
	}
	if v := s.night(t, 0); v.Carried != nil {
		t.Errorf("the first night: %+v", v.Carried)
	}
	s.write(t, "b", "x")
	v := s.night(t, 1)
	c := v.Carried
	if c == nil || c.From != "@directory/tree@"+catalog.FormatTime(placementtest.FirstNight) || c.Members < 4 || c.NewMembers < 1 || c.NewBytes < 1<<20 ||
		c.NewBytes > c.Bytes || len(v.Warnings) > 0 {
		t.Fatalf("%+v, %+v", c, v.Warnings)
	}
	want := gunzip(t, s.archiveOf(t, "disk", 1))
	data, err := os.ReadFile(filepath.Join(s.tree, "b"))
	// By its beginning first: the race detector looks at all bytes of each comparison.
	if at := bytes.Index(want, data[:min(len(data), 64)]); err != nil || at < 0 || !bytes.HasPrefix(want[at:], data) {
		t.Errorf("what changed without another time is not in the archive, %v", err)
	}
	carried, err := os.ReadFile(s.archiveOf(t, "disk", 1))
	if err != nil {
		t.Fatal(err)
	}
	s.opts.Fresh = 0
	if v := s.night(t, 2); v.Carried != nil {
		t.Errorf("carried is %+v where everything is made anew", v.Carried)
	}
	for _, on := range []string{"disk", "second"} {
		if fresh, err := os.ReadFile(s.archiveOf(t, on, 2)); err != nil || !bytes.Equal(fresh, carried) {
			t.Errorf("%s: the archive that took over is not the one that is made afresh, %v", on, err)
		}
	}
}

// What has rotted is made anew, its backup counts as good no more, and the report says so; the next night goes on from there.
func TestWhatHasRottedIsMadeAnew(t *testing.T) {
	for _, part := range []string{"tree.tar.gz", "tree.index.gz"} {
		t.Run(part, func(t *testing.T) {
			s := newCarrySite(t, "disk")
			s.night(t, 0)
			whole := gunzip(t, s.archiveOf(t, "disk", 0))
			rotten := filepath.Join(filepath.Dir(s.archiveOf(t, "disk", 0)), part)
			data, err := os.ReadFile(rotten)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			if err := os.WriteFile(rotten, data, 0o600); err != nil {
				t.Fatal(err)
			}
			v := s.night(t, 1)
			place := filepath.Dir(rotten)
			if len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0].Message, "is damaged") || !strings.Contains(v.Warnings[0].Hint, "voltar verify") ||
				len(s.marked) != 1 || !strings.Contains(s.marked[place], part) {
				t.Errorf("%+v; marked %q", v.Warnings, s.marked)
			}
			if !bytes.Equal(gunzip(t, s.archiveOf(t, "disk", 1)), whole) {
				t.Error("tonight's archive is not that of the tree")
			}
			if good, err := os.ReadFile(s.archiveOf(t, "disk", 1)); err != nil || part == "tree.tar.gz" && bytes.Equal(good, data) {
				t.Errorf("tonight's archive is the rotten one, %v", err)
			}
			s.opts.Damage = s.marked
			if v := s.night(t, 2); v.Carried == nil || v.Carried.From != "@directory/tree@"+catalog.FormatTime(placementtest.FirstNight.AddDate(0, 0, 1)) ||
				v.Carried.NewMembers != 0 || len(v.Warnings) != 0 {
				t.Errorf("%+v, %+v", v.Carried, v.Warnings)
			}
		})
	}
}

// That a damaged backup cannot be remembered is told, too.
func TestDamageThatCannotBeRememberedIsTold(t *testing.T) {
	s := newCarrySite(t, "disk")
	s.night(t, 0)
	file := s.archiveOf(t, "disk", 0)
	if err := os.Truncate(file, 5<<20); err != nil {
		t.Fatal(err)
	}
	s.opts.MarkDamaged = func(string, string) error { return errors.New("no room for a note") }
	v := s.night(t, 1)
	if len(v.Warnings) != 2 || !strings.Contains(v.Warnings[1].Message, "no room for a note") {
		t.Errorf("%+v", v.Warnings)
	}
}

// deniedStore lets nobody read archives.
type deniedStore struct{ store.Store }

func (s deniedStore) Unwrap() store.Store { return s.Store }

func (s deniedStore) Open(ctx context.Context, key string) (store.Reader, error) {
	if strings.HasSuffix(key, ".tar.gz") {
		return nil, fs.ErrPermission
	}
	return s.Store.Open(ctx, key)
}

// A previous backup that cannot be read costs time, and nothing else.
func TestWhatCannotBeReadIsNotCarried(t *testing.T) {
	s := newCarrySite(t, "disk")
	s.night(t, 0)
	s.on("disk").Store = deniedStore{s.on("disk").Store}
	v := s.night(t, 1)
	if len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0].Message, "could be carried over from") || len(s.marked) != 0 || v.Carried != nil {
		t.Errorf("%+v; %+v; marked %q", v.Warnings, v.Carried, s.marked)
	}
}

// unwrittenStore takes no manifest.
type unwrittenStore struct{ deniedStore }

func (s unwrittenStore) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	if path.Base(key) == catalog.ManifestName {
		return nil, errors.New("interrupted")
	}
	return s.Store.Create(ctx, key, opts)
}

// A backup that failed is not called complete by a warning.
func TestAFailedBackupIsNotSaidToHaveTakenLonger(t *testing.T) {
	s := newCarrySite(t, "disk")
	s.night(t, 0)
	s.on("disk").Store = unwrittenStore{deniedStore{s.on("disk").Store}}
	s.Now = func() time.Time { return placementtest.FirstNight.AddDate(0, 0, 1) }
	result, _ := s.Run(t.Context(), []string{"@directory/tree"})
	if v := result.Volumes[0]; v.Status != report.VolumeFailed || len(v.Warnings) != 0 {
		t.Errorf("%s: %+v", v.Status, v.Warnings)
	}
}

// forge replaces the first night's backup on a destination by one that holds other files under the sums of the true ones: all that whoever
// may write there can do. The other files are those of the first night of another site; parts are what is replaced.
func (s *carrySite) forge(t *testing.T, other *carrySite, parts ...string) (b catalog.Backup) {
	t.Helper()
	const n = 0
	read := func(of *carrySite, name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(filepath.Dir(of.archiveOf(t, "disk", n)), name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	forged := map[string][]byte{"tree.tar.gz": read(other, "tree.tar.gz")}
	lines := [2][]memberLine{membersOf(t, s.archiveOf(t, "disk", n)), membersOf(t, other.archiveOf(t, "disk", n))}
	index := string(gunzip(t, filepath.Join(filepath.Dir(other.archiveOf(t, "disk", n)), "tree.index.gz")))
	for i, m := range lines[1] {
		stored, is := forged["tree.tar.gz"][m.Offset:m.Offset+m.Length], lines[0][i]
		copy(stored[m.Length-8:], read(s, "tree.tar.gz")[is.Offset+is.Length-8:is.Offset+is.Length-4]) // the CRC
		sum := sha256.Sum256(stored)
		index = strings.NewReplacer(m.SHA256, is.SHA256, m.Stored, hex.EncodeToString(sum[:16])).Replace(index)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write([]byte(index)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	forged["tree.index.gz"] = packed.Bytes()
	m, err := catalog.ParseManifest(read(s, catalog.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Files {
		if data, ok := forged[m.Files[i].Name]; ok {
			sum := sha256.Sum256(data)
			m.Files[i].SizeBytes, m.Files[i].SHA256 = int64(len(data)), hex.EncodeToString(sum[:])
		}
	}
	if forged[catalog.ManifestName], err = m.Encode(); err != nil {
		t.Fatal(err)
	}
	for _, part := range parts {
		if err := os.WriteFile(filepath.Join(filepath.Dir(s.archiveOf(t, "disk", n)), part), forged[part], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return catalog.Backup{
		Host: placementtest.Host.Name, ID: m.ID(), Manifest: m, ManifestSum: sha256.Sum256(forged[catalog.ManifestName]),
	}
}

// memberLine is what an index says of a member.
type memberLine struct {
	Offset, Length int64
	SHA256, Stored string
}

func membersOf(t *testing.T, archived string) (list []memberLine) {
	t.Helper()
	for line := range bytes.Lines(gunzip(t, strings.TrimSuffix(archived, ".tar.gz")+".index.gz")) {
		var l struct{ Member *memberLine }
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatal(err)
		}
		if l.Member != nil && (len(list) == 0 || list[len(list)-1] != *l.Member) {
			list = append(list, *l.Member)
		}
	}
	return list
}

// What this host wrote itself is carried without being decompressed. Whatever else a destination returns is found out.
func TestWhatADestinationForgesIsFoundOut(t *testing.T) {
	oneFile := func(t *testing.T, seed string) *carrySite {
		t.Helper()
		s := newCarrySite(t, "disk")
		if err := errors.Join(os.Remove(filepath.Join(s.tree, "b")), os.Remove(filepath.Join(s.tree, "c"))); err != nil {
			t.Fatal(err)
		}
		s.write(t, "a", seed)
		return s
	}
	other := oneFile(t, "x")
	other.night(t, 0)
	whole := []string{"tree.tar.gz", "tree.index.gz", catalog.ManifestName}
	for name, c := range map[string]struct {
		parts    []string
		forget   bool   // the state folder is gone
		believe  bool   // the forged backup is what this host wrote, as far as it knows
		finds    string // in the warning; "" for none
		deceived bool   // tonight's archive is not that of the tree
	}{
		"nothing":                       {},
		"nothing, and no note":          {forget: true},
		"the index":                     {parts: whole[1:2], finds: "tree.index.gz"},
		"the index and the archive":     {parts: whole[:2], finds: "tree.tar.gz"},
		"the archive":                   {parts: whole[:1], finds: "tree.tar.gz"},
		"the manifest":                  {parts: whole[2:], finds: "tree."},
		"everything":                    {parts: whole, finds: "wrong checksum (CRC-32"},
		"everything, and no note":       {parts: whole, forget: true, finds: "wrong checksum (CRC-32"},
		"everything, and also the note": {parts: whole, believe: true, deceived: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := oneFile(t, "a")
			dir := filepath.Join(t.TempDir(), "written")
			s.opts.Written = catalog.NewWritten(dir)
			s.night(t, 0)
			afresh, err := os.ReadFile(s.archiveOf(t, "disk", 0))
			if err != nil {
				t.Fatal(err)
			}
			forged := s.forge(t, other, c.parts...)
			if c.forget {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
			if c.believe {
				if err := s.opts.Written.Note(s.on("disk").Store, forged, catalog.Space{}); err != nil {
					t.Fatal(err)
				}
			}
			v := s.night(t, 1)
			if c.finds == "" && (len(v.Warnings) > 0 || v.Carried == nil || v.Carried.NewMembers > 0) {
				t.Errorf("%+v, %+v", v.Carried, v.Warnings)
			}
			if c.finds != "" && (len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0].Message, c.finds) || len(s.marked) != 1) {
				t.Errorf("%+v; marked %q", v.Warnings, s.marked)
			}
			tonight, err := os.ReadFile(s.archiveOf(t, "disk", 1))
			if err != nil || bytes.Equal(tonight, afresh) == c.deceived {
				t.Errorf("tonight's archive is the one made afresh: %t, %v", bytes.Equal(tonight, afresh), err)
			}
		})
	}
}

// sharingStore is a disk on a filesystem whose files can share their blocks, for as long as it does.
type sharingStore struct {
	store.Store
	does        bool
	sharedBytes int64
	freeBytes   int64 // that it says to have; 0 for as much as it has
}

func (s *sharingStore) Usage(ctx context.Context) (store.Usage, error) {
	u, err := s.Store.Usage(ctx)
	if s.freeBytes > 0 {
		u.FreeBytes = s.freeBytes
	}
	return u, err
}

func (s *sharingStore) Unwrap() store.Store { return s.Store }

func (s *sharingStore) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	w, err := s.Store.Create(ctx, key, opts)
	return &sharingWriter{w, s}, err
}

func (s *sharingStore) Shares(context.Context) bool { return s.does }

// Pieces are known of no object: what is tested here is what was counted as it was written.
func (s *sharingStore) Pieces(context.Context, string) ([]store.Piece, error) { return nil, nil }

type sharingWriter struct {
	store.Writer
	store *sharingStore
}

func (w *sharingWriter) Share(data []byte, with store.Reader, offset int64) (bool, error) {
	held := make([]byte, len(data))
	if _, err := with.ReadAt(held, offset); err != nil || !bytes.Equal(held, data) {
		return false, errors.New("the other object does not hold that")
	}
	_, err := w.Write(data)
	if w.store.does {
		w.store.sharedBytes += int64(len(data))
	}
	return w.store.does, err
}

// What is carried over shares its place on the destination that it comes from, and there alone. That this ends is told, once.
func TestWhatIsCarriedOverIsShared(t *testing.T) {
	s := newCarrySite(t, "disk", "second")
	s.opts.Written = catalog.NewWritten(filepath.Join(t.TempDir(), "written"))
	var disks []*sharingStore
	for _, on := range []string{"disk", "second"} {
		disks = append(disks, &sharingStore{Store: s.on(on).Store, does: true})
		s.on(on).Store = disks[len(disks)-1]
	}
	for n, c := range []struct {
		does, isNew bool // the disk shares; everything is made anew
		warns       bool
	}{{does: true}, {does: true}, {does: true, isNew: true}, {does: false, warns: true}, {does: false}, {does: true}} {
		for _, d := range disks {
			d.does = c.does
		}
		s.opts.Fresh = 30 * 24 * time.Hour
		if c.isNew {
			s.opts.Fresh = 0
		}
		v := s.night(t, n)
		var want int64
		if c.does && v.Carried != nil {
			want = v.Carried.Bytes
		}
		if got := v.Copies; got[0].SharedBytes != want || got[1].SharedBytes != 0 || (n == 1 && want == 0) {
			t.Errorf("night %d: %+v share their place, of %+v", n, got, v.Carried)
		}
		if told := len(v.Warnings) == 1 && strings.Contains(v.Warnings[0].Message, "on disk, what did not change is written again"); told != c.warns {
			t.Errorf("night %d: %+v", n, v.Warnings)
		}
	}
}

// What rotted is looked for in the backups before, which may have it in the same place: those in which it is as bad are marked, others are not.
func TestWhatRottedIsFollowed(t *testing.T) {
	flip := func(t *testing.T, s *carrySite, n int) {
		t.Helper()
		path := s.archiveOf(t, "disk", n)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1 // in the middle of the second of three files: all nights have it at the same place
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		rotten []int // nights
		anew   int   // the night in which that file was another before; 0 for none
		marked []int
	}{
		"all":                        {rotten: []int{0, 1, 2}, marked: []int{0, 1, 2}},
		"the previous one alone":     {rotten: []int{2}, marked: []int{2}},
		"some":                       {rotten: []int{1, 2}, marked: []int{1, 2}},
		"not those of another file":  {rotten: []int{0, 2}, anew: 1, marked: []int{2}},
		"those that are not in line": {rotten: []int{0, 2}, marked: []int{0, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newCarrySite(t, "disk")
			for n := range 3 {
				if c.anew > 0 && n == c.anew {
					s.write(t, "b", "other")
				}
				s.night(t, n)
			}
			for _, n := range c.rotten {
				flip(t, s, n)
			}
			v := s.night(t, 3)
			var marked []int
			for n := range 3 {
				if what := s.marked[filepath.Dir(s.archiveOf(t, "disk", n))]; strings.Contains(what, "wrong checksum") {
					marked = append(marked, n)
				}
			}
			if !slices.Equal(marked, c.marked) || len(s.marked) != len(marked) || len(v.Warnings) != min(len(marked), 2) {
				t.Errorf("marked are %v of %q; %+v", marked, s.marked, v.Warnings)
			}
			if tonight := gunzip(t, s.archiveOf(t, "disk", 3)); len(tonight) < 15<<20 {
				t.Errorf("tonight's archive has %d bytes", len(tonight))
			}
		})
	}
}

// A night that shares most of what it stores needs no room for all of it, where the one before it did so too. One that does not share does.
func TestANightThatSharesFitsWhereAllOfItDoesNot(t *testing.T) {
	s := newCarrySite(t, "disk", "second")
	s.opts.Written = catalog.NewWritten(filepath.Join(t.TempDir(), "written"))
	for _, on := range []string{"disk", "second"} {
		s.on(on).Store = &sharingStore{Store: s.on(on).Store, does: on == "disk"}
	}
	s.night(t, 0)
	v := s.night(t, 1)
	for _, on := range []string{"disk", "second"} {
		s.on(on).Store.(*sharingStore).freeBytes = v.StoredBytes / 2
	}
	s.Now = func() time.Time { return placementtest.FirstNight.AddDate(0, 0, 2) }
	result, err := s.Run(t.Context(), []string{"@directory/tree"})
	if err != nil {
		t.Fatal(err)
	}
	if c := result.Volumes[0].Copies; c[0].Error != nil || c[1].Error == nil || !strings.Contains(c[1].Error.Message, "no space left") {
		t.Errorf("%+v", c)
	}
	s.on("disk").Store.(*sharingStore).does = false
	s.on("second").Store.(*sharingStore).freeBytes = 0
	s.night(t, 3) // shares nothing, and nothing says before that it will not
	s.on("disk").Store.(*sharingStore).freeBytes = v.StoredBytes / 2
	s.Now = func() time.Time { return placementtest.FirstNight.AddDate(0, 0, 4) }
	if result, err = s.Run(t.Context(), []string{"@directory/tree"}); err != nil {
		t.Fatal(err)
	}
	if c := result.Volumes[0].Copies; c[0].Error == nil || c[1].Error != nil {
		t.Errorf("after a night that shared nothing: %+v", c)
	}
}

// A copy shares with what lies there already what it has in common with it, and is the same to the byte.
func TestACopySharesWhatLiesThere(t *testing.T) {
	s := newCarrySite(t, "disk", "far", "plain")
	all := s.opts.Destinations
	s.opts.Destinations = all[:1]
	s.night(t, 0)
	s.write(t, "b", "x")
	s.night(t, 1)
	s.opts.Destinations = all
	far, plain := &sharingStore{Store: s.on("far").Store, does: true}, &sharingStore{Store: s.on("plain").Store}
	s.on("far").Store, s.on("plain").Store = far, plain
	for _, to := range []string{"far", "plain"} {
		first := CopyRequest{From: "disk", To: to, Pick: func(l *catalog.Stock) ([]catalog.Entry, error) { return l.Entries(nil)[1:], nil }}
		if lines, err := s.Copy(t.Context(), first); err != nil || len(lines) != 1 || lines[0].State != placement.CopyDone || lines[0].SharedBytes != 0 {
			t.Fatalf("%+v, %v", lines, err)
		}
		far.freeBytes = 7 << 20 // all of the other needs more
		lines, err := s.Copy(t.Context(), CopyRequest{From: "disk", To: to})
		if err != nil || len(lines) != 2 || lines[0].State != placement.CopyThere || lines[1].State != placement.CopyDone {
			t.Fatalf("%+v, %v", lines, err)
		}
		if to == "far" && (lines[0].SharedBytes != 0 || lines[1].SharedBytes != far.sharedBytes) || to == "plain" && lines[1].SharedBytes != 0 {
			t.Errorf("%+v on %s, where %d bytes are shared", lines, to, far.sharedBytes)
		}
		for n := range 2 {
			want, err := os.ReadFile(s.archiveOf(t, "disk", n))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(s.archiveOf(t, to, n)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("night %d: the copy on %s is another, %v", n, to, err)
			}
		}
	}
	if far.sharedBytes < 8<<20 || far.sharedBytes > 12<<20 || plain.sharedBytes != 0 { // two of three files
		t.Errorf("%d and %d bytes are shared", far.sharedBytes, plain.sharedBytes)
	}
}
