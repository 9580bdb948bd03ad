package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write golden files anew")

// made is what WriteTree made of a tree.
type made struct {
	archive, index []byte
	stats          TreeStats
}

func writeTreeOf(t testing.TB, dir string, opts TreeOptions) made {
	t.Helper()
	var archive, index bytes.Buffer
	stats, err := writeTreeTo(t, context.Background(), dir, &archive, &index, opts)
	if err != nil {
		t.Fatal(err)
	}
	if stats.ArchiveBytes != int64(archive.Len()) || stats.IndexBytes != int64(index.Len()) {
		t.Errorf("stats say %d and %d bytes, %d and %d were written", stats.ArchiveBytes, stats.IndexBytes,
			archive.Len(), index.Len())
	}
	return made{archive.Bytes(), index.Bytes(), stats}
}

func writeTreeTo(t testing.TB, ctx context.Context, dir string, out, index io.Writer, opts TreeOptions) (TreeStats, error) {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return WriteTree(ctx, root, out, index, opts)
}

func gunzip(t testing.TB, data []byte) []byte {
	t.Helper()
	zr, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// oneTar is an entry as the standard library reads it.
type oneTar struct {
	*tar.Header
	data []byte
}

func readTar(t testing.TB, m made) map[string]oneTar {
	t.Helper()
	entries := make(map[string]oneTar)
	tr := tar.NewReader(bytes.NewReader(gunzip(t, m.archive)))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		var data []byte
		if h.Size < 1<<30 { // sparse files may be larger
			data, err = io.ReadAll(tr)
			must(t, err)
		}
		entries[h.Name] = oneTar{h, data}
	}
}

// readIndex reads an index and holds it against docs/format.md and the archive.
func readIndex(t testing.TB, m made) (entries []Entry, members []Member) {
	t.Helper()
	tarStream := gunzip(t, m.archive)
	var blocks []Block
	var total indexTotal
	scanner := bufio.NewScanner(bytes.NewReader(gunzip(t, m.index[m.stats.IndexBlocksOffset:])))
	scanner.Buffer(nil, 1<<24)
	for scanner.Scan() {
		line, err := parseLine(scanner.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		switch line.Kind {
		case lineBlock:
			blocks = append(blocks, line.Block)
		case lineTotal:
			total = line.Total
		}
	}
	for i, b := range blocks {
		var inBlock int
		known := map[int64]Member{}
		for _, raw := range bytes.Split(bytes.TrimSpace(gunzipOne(t, m.index[b.Offset:b.Offset+b.LengthBytes])), []byte("\n")) {
			line, err := parseLine(raw)
			if err != nil {
				t.Fatal(err)
			}
			switch line.Kind {
			case lineMember:
				if len(known) == 0 && line.Member.TarOffset != b.TarOffset {
					t.Errorf("block %d begins with the member at %d, its line says %d", i, line.Member.TarOffset, b.TarOffset)
				}
				known[line.Member.TarOffset] = line.Member
				if len(members) == 0 || members[len(members)-1] != line.Member {
					members = append(members, line.Member)
				}
			case lineEntry:
				e := line.Entry
				if inBlock == 0 && e.Path != b.FirstPath {
					t.Errorf("block %d begins with %q, its line says %q", i, e.Path, b.FirstPath)
				}
				inBlock++
				if n := len(entries); n > 0 && ComparePaths(entries[n-1].Path, e.Path) >= 0 {
					t.Errorf("%q comes after %q", e.Path, entries[n-1].Path)
				}
				checkEntryInTar(t, &e, tarStream, known)
				entries = append(entries, e)
			}
		}
		if inBlock != b.Entries {
			t.Errorf("block %d holds %d entries, its line says %d", i, inBlock, b.Entries)
		}
	}
	checkMembers(t, m, members, tarStream)
	want := indexTotal{int64(len(entries)), int64(len(members)), int64(len(tarStream)), int64(len(m.archive)), true}
	if total != want || m.stats.Entries != want.Entries || m.stats.TarBytes != want.TarBytes {
		t.Errorf("total %+v, stats %+v, want %+v", total, m.stats, want)
	}
	return entries, members
}

func gunzipOne(t testing.TB, data []byte) []byte {
	t.Helper()
	r := bytes.NewReader(data)
	zr, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	zr.Multistream(false)
	plain, err := io.ReadAll(zr)
	if err != nil || r.Len() != 0 {
		t.Fatalf("%d bytes behind the member, %v", r.Len(), err)
	}
	return plain
}

// checkEntryInTar looks whether the header is where the index says, in members that the block names.
func checkEntryInTar(t testing.TB, e *Entry, stream []byte, known map[int64]Member) {
	t.Helper()
	if e.TarOffset < 0 {
		return
	}
	if got := stream[e.TarOffset+257:][:8]; string(got) != "ustar\x0000" {
		t.Errorf("%q: no header at %d", e.Path, e.TarOffset)
	}
	for at := e.TarOffset; at < e.TarOffset+e.TarBytes; {
		var in *Member
		for _, m := range known {
			if m.TarOffset <= at && at < m.TarOffset+m.TarBytes {
				in = &m
			}
		}
		if in == nil {
			t.Errorf("%q: no member in its block holds offset %d", e.Path, at)
			return
		}
		at = in.TarOffset + in.TarBytes
	}
}

func checkMembers(t testing.TB, m made, members []Member, stream []byte) {
	t.Helper()
	var offset, tarOffset int64
	for i, member := range members {
		if member.Offset != offset || member.TarOffset != tarOffset {
			t.Fatalf("member %d at %d and %d, want %d and %d", i, member.Offset, member.TarOffset, offset, tarOffset)
		}
		raw := m.archive[offset : offset+member.LengthBytes]
		plain := gunzipOne(t, raw)
		if !bytes.Equal(plain, stream[tarOffset:tarOffset+member.TarBytes]) {
			t.Fatalf("member %d inflates to something else", i)
		}
		if len(plain) > MemberMaxBytes {
			t.Errorf("member %d holds %d bytes", i, len(plain))
		}
		offset, tarOffset = offset+member.LengthBytes, tarOffset+member.TarBytes
	}
	if offset != int64(len(m.archive)) || tarOffset != int64(len(stream)) {
		t.Errorf("members end at %d and %d, want %d and %d", offset, tarOffset, len(m.archive), len(stream))
	}
}

func writeFile(t testing.TB, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(path, uint32(mode)); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// richTree makes a tree with everything that an archive can hold. It needs root.
func richTree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	writeFile(t, at("etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\n"), 0o644)
	writeFile(t, at("etc/empty"), nil, 0o600)
	writeFile(t, at("etc/high-id"), nil, 0o600)
	writeFile(t, at("bin/su"), bytes.Repeat([]byte("elf"), 1000), 0o4755)
	writeFile(t, at("bin/caps"), []byte("x"), 0o755)
	writeFile(t, at("-rf"), []byte("dash"), 0o644)
	writeFile(t, at("new\nline"), []byte("nl"), 0o644)
	writeFile(t, at("latin\xe9"), []byte("latin"), 0o644)
	writeFile(t, at("ünïcode"), []byte("utf8"), 0o644)
	writeFile(t, at(strings.Repeat("long/", 30)+strings.Repeat("n", 200)), []byte("long"), 0o644)
	big := make([]byte, 9<<20+123)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(big[:5<<20])
	writeFile(t, at("big"), big, 0o644)
	must(t, os.Mkdir(at("tmp"), 0o755))
	must(t, unix.Chmod(at("tmp"), 0o1777))
	must(t, os.Symlink("../etc/passwd", at("bin/link")))
	must(t, os.Symlink(strings.Repeat("t", 150), at("bin/longlink")))
	must(t, os.Symlink("\xff", at("bin/oddlink")))
	must(t, os.Link(at("bin/su"), at("etc/su-too")))
	must(t, os.Link(at("bin/link"), at("etc/link-too")))
	must(t, os.Link(at("big"), at("etc/big-too")))
	must(t, unix.Mkfifo(at("fifo"), 0o640))
	must(t, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(at("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	// The path of a socket's address is short; that of a test's folder is not.
	proc := fmt.Sprintf("/proc/self/fd/%d/socket", openDir(t, dir))
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: proc}))
	must(t, unix.Close(fd))
	sparse(t, at("sparse/middle"), 1<<20, 300<<10, 64<<10)
	sparse(t, at("sparse/end"), 1<<20, 1<<20-4096, 4096)
	sparse(t, at("sparse/hole"), 3<<30, 0, 0)
	sparse(t, at("sparse/late"), 9<<30, 9<<30-5000, 5000)
	sparse(t, at("sparse/latin\xe9"), 1<<20, 0, 4096)
	must(t, unix.Lsetxattr(at("etc/passwd"), "user.comment", []byte("two\nlines=\x00\xff"), 0))
	must(t, unix.Lsetxattr(at("etc/passwd"), "user.empty", nil, 0))
	must(t, unix.Lsetxattr(at("etc/passwd"), "user.odd=name", []byte("v"), 0))
	must(t, unix.Lsetxattr(at("etc"), "user.dir", []byte("d"), 0))
	must(t, unix.Lsetxattr(at("bin/link"), "trusted.link", []byte("l"), 0))
	run(t, "setcap", "cap_net_raw+ep", at("bin/caps"))
	run(t, "setfacl", "-m", "u:12345:rw,g:54321:r,m::rw", at("etc/passwd"))
	run(t, "setfacl", "-m", "g:4000000000:r", at("etc/high-id"))
	run(t, "setfacl", "-d", "-m", "u:99:rwx", at("etc"))
	must(t, os.Lchown(at("bin/link"), 7, 8))
	must(t, os.Chown(at("etc/empty"), 4000000000, 2097152))
	for name, when := range map[string]time.Time{
		"etc/passwd": time.Unix(1700000000, 123456789), "etc/empty": time.Unix(-86400, 500000000),
		"tmp": time.Unix(1<<32+5, 1), "bin/su": time.Unix(1000000000, 0),
	} {
		must(t, os.Chtimes(at(name), when, when))
	}
	return dir
}

func openDir(t testing.TB, dir string) int {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return int(f.Fd())
}

// sparse makes a file of holes but for one piece of data.
func sparse(t testing.TB, path string, size, offset, length int64) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.Create(path)
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte{'s'}, int(length)), offset)
	must(t, err)
	must(t, f.Truncate(size))
	must(t, f.Sync())
	must(t, f.Close())
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// describe says all about a tree that a restore should bring back, a line for each entry.
func describe(t testing.TB, dir string) []string {
	t.Helper()
	var lines []string
	first := map[uint64]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		name, _ := filepath.Rel(dir, path)
		if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			return nil
		}
		line := fmt.Sprintf("%q mode %o owner %d:%d mtime %d.%09d rdev %d", name, st.Mode, st.Uid, st.Gid, st.Mtim.Sec,
			st.Mtim.Nsec, st.Rdev)
		if !d.IsDir() {
			line += fmt.Sprintf(" size %d links %d", st.Size, st.Nlink)
			if other, ok := first[st.Ino]; ok {
				line += " same as " + other
			} else {
				first[st.Ino] = name
			}
		}
		if d.Type().IsRegular() {
			line += describeData(t, path, st.Size)
		} else if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			must(t, err)
			line += fmt.Sprintf(" to %q", target)
		}
		buf := make([]byte, 1<<16)
		n, err := unix.Llistxattr(path, buf)
		must(t, err)
		names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
		sort.Strings(names)
		for _, x := range names {
			value := make([]byte, 1<<16)
			n, err := unix.Lgetxattr(path, x, value)
			must(t, err)
			if !strings.Contains(x, "=") {
				line += fmt.Sprintf(" %s=%q", x, value[:n])
			}
		}
		lines = append(lines, line)
		return nil
	}))
	return lines
}

// describeData sums up data and says where the holes are.
func describeData(t testing.TB, path string, size int64) string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	sum := sha256.New()
	segments, err := dataSegments(t.Context(), int(f.Fd()), size, Limits{}.withDefaults().SparsePieces)
	must(t, err)
	for _, s := range segments {
		_, err := io.Copy(sum, io.NewSectionReader(f, s.offset, s.length))
		must(t, err)
	}
	return fmt.Sprintf(" data %v %x", segments, sum.Sum(nil)[:8])
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("device nodes, owners and capabilities need root: run the tests as root, or in the lab")
	}
}

func TestExtractedByTarAndBsdtarIsTheSameTree(t *testing.T) {
	needRoot(t)
	src := richTree(t)
	m := writeTreeOf(t, src, TreeOptions{})
	if m.stats.DamagedCount != 0 {
		t.Errorf("damaged: %+v", m.stats.Damaged)
	}
	file := filepath.Join(t.TempDir(), "a.tar.gz")
	must(t, os.WriteFile(file, m.archive, 0o600))
	want := describe(t, src)
	for name, c := range map[string]struct {
		command []string
		cannot  []string // entries that the program is known not to bring back in full
	}{
		"tar": {command: []string{"tar", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-xzpf", file, "-C"}},
		"bsdtar": {
			command: []string{"bsdtar", "-xpf", file, "--numeric-owner", "-C"},
			// The root's mtime; fractions before 1970; ids above 2^31 in ACLs.
			cannot: []string{`"."`, `"etc/empty"`, `"etc/high-id"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dst := t.TempDir()
			run(t, c.command[0], append(c.command[1:], dst)...)
			known := func(line string) bool {
				name, _, _ := strings.Cut(line, " mode ")
				return slices.Contains(c.cannot, name)
			}
			got, want := slices.DeleteFunc(describe(t, dst), known), slices.DeleteFunc(slices.Clone(want), known)
			for i := range max(len(got), len(want)) {
				var g, w string
				if i < len(got) {
					g = got[i]
				}
				if i < len(want) {
					w = want[i]
				}
				if g != w {
					t.Errorf("got  %s\nwant %s", g, w)
				}
			}
		})
	}
}

func TestIndexAgreesWithArchive(t *testing.T) {
	needRoot(t)
	src := richTree(t)
	m := writeTreeOf(t, src, TreeOptions{})
	entries, _ := readIndex(t, m)
	inTar := readTar(t, m)
	for _, e := range entries {
		name := e.Path
		if e.Type == TypeDir {
			name += "/"
		}
		h, ok := inTar[name]
		if ok == (e.TarOffset < 0) {
			t.Errorf("%q: in the stream %v, offset %d", e.Path, ok, e.TarOffset)
		}
		if !ok {
			continue
		}
		delete(inTar, name)
		if h.Linkname != e.Linkname || h.Size != e.SizeBytes || uint32(h.Uid) != e.UID || !h.ModTime.Equal(e.MTime) {
			t.Errorf("header %+v, index %+v", h.Header, e)
		}
	}
	if len(inTar) > 0 {
		t.Errorf("not in the index: %v", inTar)
	}
	byPath := map[string]Entry{}
	for _, e := range entries {
		byPath[e.Path] = e
	}
	if e := byPath["etc/su-too"]; e.Type != TypeHardlink || e.DataOffset != byPath["bin/su"].TarOffset {
		t.Errorf("hard link %+v", e)
	}
	if e := byPath["etc/passwd"]; string(e.OddXattrs["user.odd=name"]) != "v" {
		t.Errorf("odd attributes %+v", e)
	}
	if e := byPath["socket"]; e.Type != TypeSocket {
		t.Errorf("socket %+v", e)
	}
	if n := m.stats.NotStored; n[NotStoredSocket] != 1 || n[NotStoredXattr] != 1 {
		t.Errorf("not stored: %v", n)
	}
	if e := byPath["sparse/late"]; e.SizeBytes != 9<<30 || e.StoredBytes > 8192 {
		t.Errorf("sparse %+v", e)
	}
}
