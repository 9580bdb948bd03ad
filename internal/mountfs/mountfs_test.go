package mountfs

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"voltar/archive"
	"voltar/internal/agefile"
	"voltar/internal/browse"
	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/internal/store/disk"
)

// seen is a filesystem as the kernel sees it, without one.
type seen struct {
	t    *testing.T
	root *fusefs.Inode
	log  *bytes.Buffer
}

func see(t *testing.T, f *FS, log *bytes.Buffer) seen {
	t.Helper()
	fusefs.NewNodeFS(f.root, f.options("test"))
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return seen{t, f.root.(interface{ EmbeddedInode() *fusefs.Inode }).EmbeddedInode(), log}
}

// options with a small cache, so that it is emptied all the time.
func options() (Options, *bytes.Buffer) {
	log := &bytes.Buffer{}
	return Options{CacheBytes: 10 << 20, Log: slog.New(slog.NewTextHandler(log, nil))}, log
}

func source(s *disk.Store, b catalog.Backup, identities *agefile.Identities) Backup {
	return Backup{ID: b.ID, Good: b.IsGood(), Open: func(context.Context) (*browse.Backup, error) {
		return browse.New(s, b, browse.Opener(browse.Decrypt(identities, false))), nil
	}}
}

// one shows one backup.
func one(t *testing.T, s *disk.Store, b catalog.Backup, identities *agefile.Identities) seen {
	t.Helper()
	opts, log := options()
	f, err := NewOne(t.Context(), source(s, b, identities), opts)
	if err != nil {
		t.Fatal(err)
	}
	return see(t, f, log)
}

func (s seen) lookup(path string) (*fusefs.Inode, fuse.Attr, syscall.Errno) {
	at, attr := s.root, fuse.Attr{}
	for name := range strings.SplitSeq(path, "/") {
		if path == "." {
			var out fuse.AttrOut
			errno := at.Operations().(fusefs.NodeGetattrer).Getattr(s.t.Context(), nil, &out)
			return at, out.Attr, errno
		}
		var out fuse.EntryOut
		child, errno := at.Operations().(fusefs.NodeLookuper).Lookup(s.t.Context(), name, &out)
		if errno != 0 {
			return nil, attr, errno
		}
		at, attr = child, out.Attr
	}
	return at, attr, 0
}

func (s seen) must(path string) (*fusefs.Inode, fuse.Attr) {
	s.t.Helper()
	inode, attr, errno := s.lookup(path)
	if errno != 0 {
		s.t.Fatalf("%q: %v\n%s", path, errno, s.log)
	}
	return inode, attr
}

// names lists a folder.
func (s seen) names(path string) (names []string) {
	s.t.Helper()
	for _, e := range s.list(path) {
		names = append(names, e.Name)
	}
	return names
}

// list lists a folder, without what all folders have.
func (s seen) list(path string) (list []fuse.DirEntry) {
	s.t.Helper()
	inode, _ := s.must(path)
	h, _, errno := inode.Operations().(fusefs.NodeOpendirHandler).OpendirHandle(s.t.Context(), 0)
	if errno != 0 {
		s.t.Fatalf("%q: %v\n%s", path, errno, s.log)
	}
	defer func() {
		if r, ok := h.(fusefs.FileReleasedirer); ok {
			r.Releasedir(s.t.Context(), 0)
		}
	}()
	for {
		e, errno := h.(fusefs.FileReaddirenter).Readdirent(s.t.Context())
		if errno != 0 {
			s.t.Fatalf("%q: %v\n%s", path, errno, s.log)
		}
		if e == nil {
			return list
		}
		if e.Name != "." && e.Name != ".." {
			list = append(list, *e)
		}
	}
}

type opened interface {
	fusefs.FileReader
	fusefs.FileLseeker
	fusefs.FileReleaser
}

func (s seen) open(path string) (opened, syscall.Errno) {
	s.t.Helper()
	inode, _ := s.must(path)
	h, _, errno := inode.Operations().(fusefs.NodeOpener).Open(s.t.Context(), syscall.O_RDONLY)
	if errno != 0 {
		return nil, errno
	}
	s.t.Cleanup(func() { release(s.t, h.(opened)) })
	return h.(opened), 0
}

func release(t *testing.T, h opened) {
	t.Helper()
	if errno := h.Release(context.Background()); errno != 0 {
		t.Error(errno)
	}
}

func readAt(h opened, length, offset int64) ([]byte, syscall.Errno) {
	buffer := bytes.Repeat([]byte{0xee}, int(length))
	r, errno := h.Read(context.Background(), buffer, offset)
	if errno != 0 {
		return nil, errno
	}
	data, _ := r.Bytes(buffer)
	return data, 0
}

// compareFile reads a file at its beginning, its end, and random places, and holds what it gets against the data.
func (s seen) compareFile(path string, want []byte, random *rand.Rand) {
	s.t.Helper()
	h, errno := s.open(path)
	if errno != 0 {
		s.t.Fatalf("%q: %v\n%s", path, errno, s.log)
	}
	size := int64(len(want))
	offsets := []int64{0, max(0, size-100), size, size + 4096}
	for range 6 {
		offsets = append(offsets, random.Int64N(size+1))
	}
	for _, offset := range offsets {
		length := 1 + random.Int64N(1<<random.IntN(21))
		got, errno := readAt(h, length, offset)
		from := want[min(offset, size):min(offset+length, size)]
		if errno != 0 || !bytes.Equal(got, from) {
			s.t.Fatalf("%q: %d bytes at %d are not the same: %d bytes, %v", path, length, offset, len(got), errno)
		}
	}
	var all []byte
	for offset := int64(0); offset <= size; offset += 128 << 10 {
		part, errno := readAt(h, 128<<10, offset)
		if errno != 0 {
			s.t.Fatalf("%q: %v\n%s", path, errno, s.log)
		}
		all = append(all, part...)
	}
	if !bytes.Equal(all, want) {
		s.t.Errorf("%q, read in sequence, is not the same", path)
	}
}

// compareTree holds a folder against the one that it is the backup of, entry by entry.
func (s seen) compareTree(at, original string, random *rand.Rand) {
	s.t.Helper()
	inodes := map[uint64]uint64{} // shown, by the original's
	entries := 0
	err := filepath.WalkDir(original, func(file string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		entries++
		rel, err := filepath.Rel(original, file)
		if err != nil {
			return err
		}
		s.compareEntry(filepath.Join(at, rel), file, inodes, random)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	numbers := map[uint64]bool{}
	for _, n := range inodes {
		numbers[n] = true
	}
	if len(numbers) != len(inodes) || entries < len(inodes) {
		s.t.Errorf("%d inodes are shown as %d", len(inodes), len(numbers))
	}
}

func (s seen) compareEntry(shown, file string, inodes map[uint64]uint64, random *rand.Rand) {
	s.t.Helper()
	var want unix.Stat_t
	if err := unix.Lstat(file, &want); err != nil {
		s.t.Fatal(err)
	}
	inode, got := s.must(shown)
	isDir := want.Mode&unix.S_IFMT == unix.S_IFDIR
	isOwn := got.Mode == want.Mode && got.Uid == want.Uid && got.Gid == want.Gid && int64(got.Mtime) == want.Mtim.Sec &&
		int64(got.Mtimensec) == want.Mtim.Nsec && uint64(got.Rdev) == want.Rdev && (isDir || uint64(got.Nlink) == want.Nlink && int64(got.Size) == want.Size)
	if !isOwn {
		s.t.Errorf("%q is shown as %+v, should be %+v", shown, got, want)
	}
	if have, known := inodes[want.Ino]; known && have != got.Ino {
		s.t.Errorf("%q has inode %d, its other name %d", shown, got.Ino, have)
	}
	inodes[want.Ino] = got.Ino
	switch want.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		s.compareNames(shown, file)
	case unix.S_IFLNK:
		target, err := os.Readlink(file)
		link, errno := inode.Operations().(fusefs.NodeReadlinker).Readlink(s.t.Context())
		if err != nil || errno != 0 || string(link) != target {
			s.t.Errorf("%q leads to %q, should lead to %q: %v %v", shown, link, target, err, errno)
		}
	case unix.S_IFREG:
		data, err := os.ReadFile(file)
		if err != nil {
			s.t.Fatal(err)
		}
		s.compareFile(shown, data, random)
	}
}

func (s seen) compareNames(shown, folder string) {
	s.t.Helper()
	list, err := os.ReadDir(folder)
	if err != nil {
		s.t.Fatal(err)
	}
	var want []string
	for _, d := range list {
		want = append(want, d.Name())
	}
	slices.Sort(want)
	for _, e := range s.list(shown) {
		if _, attr := s.must(filepath.Join(shown, e.Name)); attr.Ino != e.Ino || attr.Mode&unix.S_IFMT != e.Mode {
			s.t.Errorf("%q in %q is listed as inode %d of type %o, and is %d of %o", e.Name, shown, e.Ino, e.Mode, attr.Ino, attr.Mode)
		}
	}
	if got := s.names(shown); !slices.Equal(got, want) {
		s.t.Errorf("%q has %q, should have %q", shown, got, want)
	}
}

// fillRandomly makes a tree of everything that one who is not root can make.
func fillRandomly(t *testing.T, dir string, random *rand.Rand) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	folders, files := []string{dir}, []string{}
	for i := range 300 {
		folder := folders[random.IntN(len(folders))]
		name := filepath.Join(folder, fmt.Sprintf("%c%d%s", 'a'+rune(random.IntN(26)), i, []string{"", ".x", "\xff", " y", "-"}[random.IntN(5)]))
		switch kind := random.IntN(12); {
		case kind < 3:
			check(os.Mkdir(name, 0o755))
			folders = append(folders, name)
		case kind == 3:
			check(os.Symlink("../"+filepath.Base(name), name))
		case kind == 4 && len(files) > 0:
			check(os.Link(files[random.IntN(len(files))], name))
		case kind == 5:
			check(unix.Mkfifo(name, 0o640))
		case kind == 6:
			check(os.WriteFile(name, nil, 0o600))
			for range random.IntN(5) {
				f, err := os.OpenFile(name, os.O_WRONLY, 0)
				check(err)
				_, err = f.WriteAt(browsetest.Noise(name, random.IntN(9000)), random.Int64N(1<<20))
				check(err)
				check(f.Truncate(1<<20 + random.Int64N(100000)))
				check(f.Close())
			}
			files = append(files, name)
		default:
			size := random.IntN(1 << random.IntN(18))
			check(os.WriteFile(name, browsetest.Noise(name, size), os.FileMode(0o400+random.IntN(0o400))&0o777|0o400))
			files = append(files, name)
		}
		if random.IntN(4) == 0 {
			mtime := unix.NsecToTimespec(random.Int64N(2e18) - 1e17)
			check(unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{mtime, mtime}, unix.AT_SYMLINK_NOFOLLOW))
		}
	}
}

// What is shown of a random tree is the tree, whether it is encrypted or not.
func TestShowsWhatWasBackedUp(t *testing.T) {
	t.Parallel()
	recipients, identities := browsetest.NewKey(t)
	for _, c := range []struct {
		name string
		spec browsetest.Spec
	}{
		{"partition", browsetest.Spec{}},
		{"encrypted", browsetest.Spec{For: recipients}},
		{"whole", browsetest.Spec{Whole: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(21, uint64(len(c.name))))
			original := ""
			c.spec.Fill = func(dir string) {
				original = dir
				browsetest.Tree(t, dir)
				fillRandomly(t, dir, random)
			}
			store := browsetest.Open(t, t.TempDir())
			s := one(t, store, browsetest.Make(t, store, c.spec), identities)
			at := "p1"
			if c.spec.Whole {
				at = "files"
			}
			s.compareTree(at, original, random)
			if _, _, errno := s.lookup(filepath.Join(at, "etc/nothing")); errno != syscall.ENOENT {
				t.Errorf("what is not there: %v", errno)
			}
			if s.log.Len() > 0 {
				t.Error(s.log)
			}
			if c.spec.Whole {
				return
			}
			if names := s.names("."); !slices.Equal(names, []string{"boot.img", "p1", "p2.img"}) {
				t.Errorf("%q", names)
			}
			if _, attr := s.must("p2.img"); attr.Size != browsetest.ImageBytes {
				t.Errorf("%+v", attr)
			}
			s.compareFile("p2.img", browsetest.Image(), random)
		})
	}
}

func TestHolesAreShown(t *testing.T) {
	t.Parallel()
	store := browsetest.Open(t, t.TempDir())
	s := one(t, store, browsetest.Make(t, store, browsetest.Spec{}), &agefile.Identities{})
	h, errno := s.open("p1/var/sparse")
	if errno != 0 {
		t.Fatal(errno)
	}
	seek := func(offset int64, whence uint32) int64 {
		to, errno := h.Lseek(t.Context(), uint64(offset), whence)
		if errno == syscall.ENXIO {
			return -1
		}
		return int64(to)
	}
	data := seek(0, unix.SEEK_DATA)
	if data < 1<<20 || data > 3<<20 || seek(data, unix.SEEK_DATA) != data {
		t.Errorf("data begins at %d", data)
	}
	hole := seek(data, unix.SEEK_HOLE)
	if hole <= 3<<20 || hole > 4<<20 || seek(0, unix.SEEK_HOLE) != 0 || seek(hole, unix.SEEK_HOLE) != hole {
		t.Errorf("the hole behind the data begins at %d", hole)
	}
	if seek(hole, unix.SEEK_DATA) != -1 || seek(8<<20, unix.SEEK_HOLE) != -1 {
		t.Error("there is something behind the data")
	}
	if h, _ := s.open("p1/var/data/big0"); h != nil {
		if to, errno := h.Lseek(t.Context(), 7, unix.SEEK_HOLE); errno != 0 || to != 5<<20 {
			t.Errorf("a file without holes: %d %v", to, errno)
		}
	}
}

// A member that is damaged costs the files in it, and no other one; the log says which.
func TestDamageCostsWhatItHits(t *testing.T) {
	t.Parallel()
	store := browsetest.Open(t, t.TempDir())
	b := browsetest.Make(t, store, browsetest.Spec{})
	browsetest.Spoil(t, store, b, "volume-00000001.p1.tar.gz", func(data []byte) []byte {
		data[len(data)/2] ^= 1 // in the second of three files that do not get smaller
		return data
	})
	browsetest.Spoil(t, store, b, "volume-00000001.p2.img.gz", func(data []byte) []byte {
		data[5<<20] ^= 1 // in the second member
		return data
	})
	s := one(t, store, b, &agefile.Identities{})
	all := func(path string) ([]byte, syscall.Errno) {
		h, errno := s.open(path)
		if errno != 0 {
			return nil, errno
		}
		return readAt(h, 16<<20, 0)
	}
	for i, want := range []syscall.Errno{0, syscall.EIO, 0} {
		data, errno := all(fmt.Sprintf("p1/var/data/big%d", i))
		if errno != want || errno == 0 && !bytes.Equal(data, browsetest.Noise(fmt.Sprint(i), 5<<20)) {
			t.Errorf("big%d: %d bytes, %v, want %v", i, len(data), errno, want)
		}
	}
	if data, errno := all("p1/etc/passwd"); errno != 0 || string(data) != "root:x:0:0\n" {
		t.Errorf("%q %v", data, errno)
	}
	h, errno := s.open("p2.img")
	if errno != 0 {
		t.Fatal(errno)
	}
	if data, errno := readAt(h, 4<<20, 0); errno != 0 || !bytes.Equal(data, browsetest.Image()[:4<<20]) {
		t.Errorf("the good part of the image: %v", errno)
	}
	if _, errno := readAt(h, 4<<20, 100); errno != syscall.EIO {
		t.Errorf("the bad part of the image: %v", errno)
	}
	log := s.log.String()
	if !strings.Contains(log, "p1:/var/data/big1 of vg/volume-00000001@") || !strings.Contains(log, "damaged member at byte") ||
		!strings.Contains(log, "p2.img of vg/volume-00000001@") || strings.Contains(log, "big0") || strings.Count(log, "\n") != 2 {
		t.Errorf("log: %s", log)
	}
}

// What was known to be wrong when it was backed up is zeros in the archive, and nobody gets those for data.
func TestWhatWasDamagedBeforeIsRefused(t *testing.T) {
	t.Parallel()
	store := browsetest.Open(t, t.TempDir())
	s := one(t, store, browsetest.Make(t, store, browsetest.Spec{Edit: func(m *catalog.Manifest) {
		m.Status = catalog.StatusDamaged
		m.Extents[2].Damaged = []catalog.Damage{{OffsetBytes: 1 << 20, LengthBytes: 4096, Reason: "cannot read"}}
		m.Extents[2].DamagedCount = 1
	}}), &agefile.Identities{})
	h, errno := s.open("p2.img")
	if errno != 0 {
		t.Fatal(errno)
	}
	for _, c := range []struct {
		offset, length int64
		want           syscall.Errno
	}{{0, 1 << 20, 0}, {1 << 20, 1, syscall.EIO}, {1<<20 - 1, 2, syscall.EIO}, {1<<20 + 4095, 1, syscall.EIO}, {1<<20 + 4096, 100, 0}} {
		if _, errno := readAt(h, c.length, c.offset); errno != c.want {
			t.Errorf("%d bytes at %d: %v, want %v", c.length, c.offset, errno, c.want)
		}
	}
}

func TestFilesThatWereDamagedBeforeAreRefused(t *testing.T) {
	t.Parallel()
	if _, err := openFile(t.Context(), nil, archive.Entry{Type: archive.TypeFile, Damaged: "ends early"}); err == nil || !strings.Contains(err.Error(), "ends early") {
		t.Errorf("error %v", err)
	}
}

func TestSeveralBackups(t *testing.T) {
	t.Parallel()
	store := browsetest.Open(t, t.TempDir())
	_, strangers := browsetest.NewKey(t)
	mine, _ := browsetest.NewKey(t)
	var backups []Backup
	for i, spec := range []browsetest.Spec{
		{LV: "a", Whole: true}, {LV: "a", Whole: true, Time: browsetest.Night.AddDate(0, 0, 1)}, {LV: "a", Whole: true, Time: browsetest.Night.AddDate(0, 0, 2)},
		{VG: "other", LV: "b", For: mine},
	} {
		spec.Fill = func(dir string) {
			if err := os.WriteFile(filepath.Join(dir, "night"), fmt.Append(nil, i), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b := source(store, browsetest.Make(t, store, spec), strangers)
		b.Good = i < 2
		backups = append(backups, b)
	}
	gone := backups[0]
	gone.ID.Ref.Name = "gone"
	gone.Open = func(context.Context) (*browse.Backup, error) { return nil, errors.New("the store is down") }
	opts, log := options()
	s := see(t, NewAll(t.Context(), append(backups, gone), opts), log)
	for path, want := range map[string][]string{
		".":    {"other", "vg"},
		"vg":   {"a", "gone"},
		"vg/a": {"2026-11-20T010001Z", "2026-11-21T010001Z", "2026-11-22T010001Z", "latest"},
		// Whoever has no key sees what there is, and not what is in it.
		"other/b":                       {"2026-11-20T010001Z"},
		"other/b/2026-11-20T010001Z":    {"boot.img", "p1", "p2.img"},
		"vg/a/2026-11-22T010001Z":       {"files"},
		"vg/a/2026-11-22T010001Z/files": {"night"},
	} {
		if got := s.names(path); !slices.Equal(got, want) {
			t.Errorf("%s has %q, should have %q", path, got, want)
		}
	}
	link, attr := s.must("vg/a/latest")
	target, _ := link.Operations().(fusefs.NodeReadlinker).Readlink(t.Context())
	if string(target) != "2026-11-21T010001Z" || attr.Mode != syscall.S_IFLNK|0o777 {
		t.Errorf("latest leads to %q: %o", target, attr.Mode)
	}
	if log.Len() > 0 {
		t.Errorf("entering what is good fails: %s", log)
	}
	if _, _, errno := s.lookup("other/b/2026-11-20T010001Z/p1"); errno != syscall.EACCES || !strings.Contains(log.String(), "age1") {
		t.Errorf("without a key: %v %s", errno, log)
	}
	if _, _, errno := s.lookup("vg/gone/2026-11-20T010001Z/files"); errno != syscall.EIO || !strings.Contains(log.String(), "the store is down") {
		t.Errorf("without an answer: %v %s", errno, log)
	}
}

// More is open than in use only within the bound, and nothing when the filesystem is closed.
func TestWhatIsOpenIsBounded(t *testing.T) {
	t.Parallel()
	on := browsetest.Open(t, t.TempDir())
	b := browsetest.Make(t, on, browsetest.Spec{Whole: true, Fill: func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
	}})
	var isOpen int
	counting := func(context.Context) (*browse.Backup, error) {
		opener := browse.Opener(browse.Decrypt(&agefile.Identities{}, false))
		return browse.New(on, b, func(ctx context.Context, s store.Store, b catalog.Backup, name string) (browse.File, error) {
			f, err := opener(ctx, s, b, name)
			isOpen++
			return &counted{f, &isOpen}, err
		}), nil
	}
	var backups []Backup
	for i := range 2 * idleOpen {
		id := b.ID
		id.Ref.Name = fmt.Sprintf("lv%02d", i)
		backups = append(backups, Backup{ID: id, Open: counting})
	}
	opts, log := options()
	f := NewAll(t.Context(), backups, opts)
	s := see(t, f, log)
	h, errno := s.open("vg/lv00/2026-11-20T010001Z/files/file")
	if errno != 0 {
		t.Fatal(errno)
	}
	for i := range backups {
		if data, errno := s.open(fmt.Sprintf("vg/lv%02d/2026-11-20T010001Z/files/file", i)); errno != 0 {
			t.Fatal(errno)
		} else if i > 0 {
			release(t, data)
		}
	}
	if most := 2 * (idleOpen + 1); isOpen > most {
		t.Errorf("%d files are open, at most %d should be", isOpen, most)
	}
	if data, errno := readAt(h, 10, 0); errno != 0 || string(data) != "data" {
		t.Errorf("what is in use: %q %v %s", data, errno, log)
	}
}

// counted counts the files that are open.
type counted struct {
	browse.File
	n *int
}

func (c *counted) Close() error {
	*c.n--
	return c.File.Close()
}

func TestNothingCanBeWritten(t *testing.T) {
	t.Parallel()
	store := browsetest.Open(t, t.TempDir())
	s := one(t, store, browsetest.Make(t, store, browsetest.Spec{}), &agefile.Identities{})
	for _, path := range []string{"p1/etc/passwd", "p2.img"} {
		inode, _ := s.must(path)
		if _, _, errno := inode.Operations().(fusefs.NodeOpener).Open(t.Context(), syscall.O_RDWR); errno != syscall.EROFS {
			t.Errorf("%s: %v", path, errno)
		}
	}
}

func TestOneBackupWithoutItsKeyIsRefused(t *testing.T) {
	t.Parallel()
	store := browsetest.Open(t, t.TempDir())
	recipients, _ := browsetest.NewKey(t)
	opts, _ := options()
	b := browsetest.Make(t, store, browsetest.Spec{For: recipients})
	if _, err := NewOne(t.Context(), source(store, b, &agefile.Identities{}), opts); !errors.Is(err, browse.ErrEncrypted) {
		t.Errorf("error %v", err)
	}
}

func TestFolderToMountAt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, make := range map[string]func(path string) error{
		"full": func(path string) error { return os.MkdirAll(filepath.Join(path, "x"), 0o755) },
		"file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
	} {
		if err := make(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"full": "it is not empty", "file": "it is no folder", "none": "it is not there"} {
		if _, err := CheckFolder(filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if _, err := CheckFolder("/proc"); err == nil || !strings.Contains(err.Error(), "something is mounted there") {
		t.Errorf("a mountpoint: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("empty", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if path, err := CheckFolder(filepath.Join(dir, "link")); err != nil || filepath.Base(path) != "empty" {
		t.Errorf("an empty folder: %q %v", path, err)
	}
}

// A name that no file can have makes its folder unreadable, which the log tells; it does not hide what follows. FAT has names of more
// than 255 bytes.
func TestNameThatNoFileCanHave(t *testing.T) {
	for name, isShown := range map[string]bool{
		strings.Repeat("é", 255): true, strings.Repeat("n", 1025): false, strings.Repeat("n", 5000): false, "..": false, `\u0000`: false,
	} {
		s := browsetest.Open(t, t.TempDir())
		b := browsetest.Make(t, s, browsetest.Spec{Whole: true, Fill: func(dir string) {
			for _, file := range []string{"a", "m", "z"} {
				if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}})
		relineIndex(t, s, b, `"path":"m"`, `"path":"`+name+`"`)
		shown := one(t, s, b, nil)
		inode, _ := shown.must("files")
		h, _, errno := inode.Operations().(fusefs.NodeOpendirHandler).OpendirHandle(t.Context(), 0)
		for range 5 { // and what all folders have
			if errno == 0 {
				_, errno = h.(fusefs.FileReaddirenter).Readdirent(t.Context())
			}
		}
		h.(fusefs.FileReleasedirer).Releasedir(t.Context(), 0)
		if (errno == 0) != isShown || errno != 0 && errno != syscall.EIO || strings.Contains(shown.log.String(), "no name that a file can have") == isShown {
			t.Errorf("%.20q: %v\n%s", name, errno, shown.log)
		}
	}
}

// relineIndex changes a text in the only block of a backup's index.
func relineIndex(t *testing.T, s *disk.Store, b catalog.Backup, from, to string) {
	t.Helper()
	index := b.Manifest.Extents[0].Index
	browsetest.Spoil(t, s, b, index.Name, func(data []byte) []byte {
		block, list := gunzip(t, data[:index.BlocksOffset]), gunzip(t, data[index.BlocksOffset:])
		changed := bytes.Replace(block, []byte(from), []byte(to), 1)
		if bytes.Equal(block, changed) {
			t.Fatalf("the index has no %s: %s", from, block)
		}
		packed := browsetest.Gzip(t, changed, 6)
		list = bytes.Replace(list, fmt.Appendf(nil, `"length":%d`, index.BlocksOffset), fmt.Appendf(nil, `"length":%d`, len(packed)), 1)
		index.BlocksOffset = int64(len(packed))
		packed = append(packed, browsetest.Gzip(t, list, 6)...)
		for i := range b.Manifest.Files {
			if f := &b.Manifest.Files[i]; f.Name == index.Name {
				f.SizeBytes = int64(len(packed))
			}
		}
		return packed
	})
}

func gunzip(t *testing.T, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What others have mounted is not to be unmounted for a mount of backups.
func TestNobodyIsToldToUnmountAnothersFilesystem(t *testing.T) {
	for _, folder := range []string{"/", "/proc"} {
		_, err := CheckFolder(folder)
		if hints := say.Hints(err); err == nil || !strings.Contains(err.Error(), "something is mounted there") || !slices.Equal(hints, []string{"name another folder"}) {
			t.Errorf("%s: %v, %q", folder, err, hints)
		}
	}
}
