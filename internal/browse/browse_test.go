package browse

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"voltar/archive"
	"voltar/internal/agefile"
	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/store/disk"
)

// keyless opens files as one who has no keys.
var keyless = Opener(Decrypt(&agefile.Identities{}, false))

// made returns a backup of a volume with two partitions and the store that it is in.
func made(t *testing.T, spec browsetest.Spec) (*Backup, catalog.Backup, *disk.Store) {
	t.Helper()
	s := browsetest.Open(t, t.TempDir())
	b := browsetest.Make(t, s, spec)
	return New(s, b, keyless), b, s
}

func mustParse(t *testing.T, b *Backup, text string) Place {
	t.Helper()
	p, err := b.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParsePlaces(t *testing.T) {
	extents := func(states ...catalog.Extent) *Backup {
		return &Backup{backup: catalog.Backup{Manifest: &catalog.Manifest{Extents: states}}}
	}
	files := func(name string) catalog.Extent { return catalog.Extent{Name: name, State: catalog.StateFiles} }
	parted := extents(catalog.Extent{Name: "boot", State: catalog.StateImage}, files("p1"), files("p2"))
	whole := extents(files(""))
	single := extents(catalog.Extent{Name: "boot", State: catalog.StateImage}, files("p1"))
	for _, c := range []struct {
		name         string
		b            *Backup
		text         string
		extent, path string
		whole, fails bool
	}{
		{name: "a partition's file", b: parted, text: "p1:/etc/passwd", extent: "p1", path: "etc/passwd"},
		{name: "without a slash", b: parted, text: "p2:etc", extent: "p2", path: "etc"},
		{name: "a partition alone", b: parted, text: "p1", extent: "p1", path: ".", whole: true},
		{name: "with a colon", b: parted, text: "boot:", extent: "boot", path: ".", whole: true},
		{name: "its root", b: parted, text: "p1:/", extent: "p1", path: "."},
		{name: "upwards stays inside", b: parted, text: "p1:/../../etc/", extent: "p1", path: "etc"},
		{name: "a colon in a name", b: whole, text: "/p1:/x", path: "p1:/x"},
		{name: "an unpartitioned volume", b: whole, text: "/etc//x/", path: "etc/x"},
		{name: "the only filesystem", b: single, text: "/etc", extent: "p1", path: "etc"},
		{name: "one of several", b: parted, text: "/etc", fails: true},
		{name: "no such extent", b: parted, text: "p9:/etc", fails: true},
		{name: "no path", b: whole, text: "etc", fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := c.b.Parse(c.text)
			if c.fails {
				if !errors.Is(err, ErrUsage) || !strings.Contains(say.Text(err), "hint: say ") {
					t.Fatalf("%+v, error %v, want one of usage with a hint", p, err)
				}
				return
			}
			if err != nil || p.Extent.Name != c.extent || p.Path != c.path || p.Whole != c.whole {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
}

func TestOpenFollowsLinksAsTheGuestWould(t *testing.T) {
	b, _, _ := made(t, browsetest.Spec{Fill: func(dir string) {
		browsetest.Tree(t, dir)
		for name, target := range map[string]string{"up": "../../../etc/passwd", "abs": "/lib/os-release", "chain": "abs", "gone": "nowhere"} {
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}})
	release, passwd := "NAME=\"Guest\"\n", "root:x:0:0\n"
	sparse := make([]byte, 8<<20)
	copy(sparse[3<<20:], "in the middle")
	big := string(browsetest.Noise("1", 5<<20))
	for _, c := range []struct {
		path, want string
		err        error
	}{
		{path: "usr/lib/os-release", want: release},
		{path: "etc/os-release", want: release},
		{path: "lib/os-release", want: release},
		{path: "chain", want: release},
		{path: "up", want: passwd},
		{path: "var/sparse", want: string(sparse)},
		{path: "var/data/link1", want: big},
		{path: "home/user/new\nline \x1b[31m\xff", want: "odd"},
		{path: "gone", err: fs.ErrNotExist},
		{path: "etc/nothing", err: fs.ErrNotExist},
		{path: "etc/passwd/x", err: fs.ErrNotExist},
		{path: "etc", err: ErrUsage},
		{path: "lib", err: ErrUsage},
	} {
		t.Run(c.path, func(t *testing.T) {
			tree, err := b.Tree(t.Context(), mustParse(t, b, "p1").Extent)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			r, _, err := tree.Open(t.Context(), c.path)
			if c.err != nil {
				if !errors.Is(err, c.err) {
					t.Errorf("error %v, want %v", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || string(got) != c.want {
				t.Errorf("%d bytes of %d, %v", len(got), len(c.want), err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	tree, err := b.Tree(t.Context(), mustParse(t, b, "p1").Extent)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if _, _, err := tree.Open(t.Context(), "etc/loop"); err == nil || !strings.Contains(err.Error(), "too many symbolic links") {
		t.Errorf("a link to itself: %v", err)
	}
	if e, err := tree.Lookup(t.Context(), "etc/os-release", false); err != nil || e.Type != archive.TypeSymlink {
		t.Errorf("not followed: %+v, %v", e, err)
	}
}

// A file that was changed or exchanged can look well by itself. A signature vouches for the sums in the manifest.
func TestCheckedReadsWhatTheManifestVouchesFor(t *testing.T) {
	s := browsetest.Open(t, t.TempDir())
	backup := browsetest.Make(t, s, browsetest.Spec{Whole: true})
	decrypt := Decrypt(&agefile.Identities{}, false)
	archived := backup.Manifest.Extents[0].Archive
	read := func(open OpenFunc) error {
		file, err := open(t.Context(), s, backup, archived)
		if err == nil {
			err = file.Close()
		}
		return err
	}
	if err := read(Checked(decrypt)); err != nil {
		t.Error(err)
	}
	// The time in a gzip header, which nobody looks at.
	browsetest.Spoil(t, s, backup, archived, func(d []byte) []byte { d[4] ^= 1; return d })
	if err := read(Opener(decrypt)); err != nil {
		t.Error(err)
	}
	if err := read(Checked(decrypt)); !errors.Is(err, catalog.ErrDamaged) || len(say.Hints(err)) == 0 {
		t.Errorf("one that was changed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Checked(decrypt)(ctx, s, backup, archived); !errors.Is(err, context.Canceled) {
		t.Errorf("one who gave up: %v", err)
	}
}

func TestImageIsReadToItsEnd(t *testing.T) {
	b, meta, s := made(t, browsetest.Spec{})
	read := func() ([]byte, error) {
		r, err := b.Image(t.Context(), mustParse(t, b, "p2").Extent)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	if got, err := read(); err != nil || !bytes.Equal(got, browsetest.Image()) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if _, err := b.Image(t.Context(), mustParse(t, b, "p1").Extent); !errors.Is(err, ErrUsage) {
		t.Errorf("an extent that is no image: %v", err)
	}
	for i := range meta.Manifest.Extents { // one that says more than there is, and one that says less
		meta.Manifest.Extents[i].SizeBytes++
	}
	if _, err := read(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short image: %v", err)
	}
	for i := range meta.Manifest.Extents {
		meta.Manifest.Extents[i].SizeBytes -= 2
	}
	if _, err := read(); !errors.Is(err, archive.ErrExpansion) {
		t.Errorf("a long image: %v", err)
	}
	browsetest.Spoil(t, s, meta, meta.Manifest.Extents[2].Archive, func(data []byte) []byte { return data[:len(data)-1] })
	if _, err := read(); !errors.Is(err, catalog.ErrDamaged) {
		t.Errorf("an image of another size: %v", err)
	}
}

// extracted takes everything out into a new folder.
func extracted(t *testing.T, b *Backup, places []Place, opts ExtractOptions) (string, []Extracted, error) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	done, err := b.Extract(t.Context(), root, places, opts)
	return dir, done, err
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(dir, path)
			list = append(list, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestExtractPlaces(t *testing.T) {
	b, _, _ := made(t, browsetest.Spec{})
	dir, done, err := extracted(t, b, []Place{mustParse(t, b, "p1:/etc/pass*"), mustParse(t, b, "p1:/var/data/link2")}, ExtractOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"p1/etc/passwd", "p1/var/data/link2"}; !slices.Equal(files(t, dir), want) {
		t.Errorf("%q, want %q", files(t, dir), want)
	}
	if len(done) != 1 || !done[0].Good() || done[0].Folder != "p1" {
		t.Errorf("%+v", done)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "p1/var/data/link2")); err != nil || !bytes.Equal(got, browsetest.Noise("2", 5<<20)) {
		t.Errorf("a hard link whose file was not asked for: %d bytes, %v", len(got), err)
	}
	if _, _, err := extracted(t, b, []Place{mustParse(t, b, "p2")}, ExtractOptions{}); !errors.Is(err, ErrUsage) {
		t.Errorf("an image: %v", err)
	}
	if _, _, err := extracted(t, b, []Place{mustParse(t, b, "p1:/nothing")}, ExtractOptions{}); err == nil {
		t.Error("no error for a path that is not there")
	}
}

func TestExtractUnpartitionedGoesIntoTheFolderItself(t *testing.T) {
	b, _, _ := made(t, browsetest.Spec{Whole: true, Fill: func(dir string) {
		file := filepath.Join(dir, "file")
		if err := errors.Join(os.WriteFile(file, []byte("x"), 0o604), os.Chmod(file, 0o604)); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}})
	dir, _, err := extracted(t, b, nil, ExtractOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "file")); err != nil || info.Mode() != 0o604 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestExtractDoesNotLeaveItsFolder(t *testing.T) {
	s := browsetest.Open(t, t.TempDir())
	meta := browsetest.Make(t, s, browsetest.Spec{Fill: func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}})
	outside := t.TempDir()
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "p1")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := New(s, meta, keyless).Extract(t.Context(), root, nil, ExtractOptions{KeepGoing: true}); err == nil {
		t.Error("a symbolic link was taken for the folder of a partition")
	}
	for _, name := range []string{"..", "../x", "/x", "a/b"} {
		meta.Manifest.Extents[1].Name = name // as no manifest that was read can have it
		if _, err := New(s, meta, keyless).Extract(t.Context(), root, nil, ExtractOptions{KeepGoing: true}); err == nil {
			t.Errorf("an extent named %q was extracted", name)
		}
	}
	if got := files(t, outside); len(got) > 0 {
		t.Errorf("%q outside", got)
	}
}

// A store that others can write to may hold anything under the name of an archive.
func TestHostileArchivesStayInTheirFolder(t *testing.T) {
	b, meta, s := made(t, browsetest.Spec{Fill: func(string) {}})
	outside := t.TempDir()
	var hostile bytes.Buffer
	w := tar.NewWriter(&hostile)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "../escaped"},
		{Typeflag: tar.TypeReg, Name: outside + "/absolute"},
		{Typeflag: tar.TypeSymlink, Name: "out", Linkname: outside},
		{Typeflag: tar.TypeReg, Name: "out/through-a-link"},
		{Typeflag: tar.TypeLink, Name: "hard", Linkname: "../../escaped"},
		{Typeflag: tar.TypeLink, Name: "harder", Linkname: "out/x"},
		{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeReg, Name: "good"},
	} {
		h.Mode = 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	browsetest.Spoil(t, s, meta, meta.Manifest.Extents[1].Archive, func([]byte) []byte { return browsetest.Gzip(t, hostile.Bytes(), 6) })
	browsetest.Spoil(t, s, meta, meta.Manifest.Extents[1].Index.Name, func([]byte) []byte { return nil })
	dir, done, err := extracted(t, b, nil, ExtractOptions{KeepGoing: true})
	if !errors.Is(err, archive.ErrIncomplete) {
		t.Fatalf("error %v, want ErrIncomplete", err)
	}
	if len(done[0].Stats.Failures) != 5 {
		t.Errorf("failures %v", done[0].Stats.Failures)
	}
	if got, want := files(t, dir), []string{"p1/good", "p1/out"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := append(files(t, outside), files(t, filepath.Dir(dir))...); slices.ContainsFunc(got, func(name string) bool {
		return strings.HasSuffix(name, "escaped") || strings.HasSuffix(name, "absolute") || strings.HasSuffix(name, "link")
	}) {
		t.Errorf("%q", got)
	}
}

// damagedMember returns the member in the middle of the archive's data and the entries that it holds part of.
func damagedMember(t *testing.T, b *Backup) (archive.Member, []string) {
	t.Helper()
	tree, err := b.Tree(t.Context(), mustParse(t, b, "p1").Extent)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	members, err := tree.Index().Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := members[len(members)/2]
	var lost []string
	data := map[int64]bool{}
	for e, err := range tree.Index().All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.TarOffset < m.TarOffset+m.TarBytes && e.TarOffset+e.TarBytes > m.TarOffset && e.TarOffset >= 0 {
			lost = append(lost, e.Path)
			data[e.TarOffset] = true
		} else if e.Type == archive.TypeHardlink && data[e.DataOffset] {
			lost = append(lost, e.Path)
		}
	}
	return m, lost
}

func TestKeepGoingTakesOutAllBesideTheDamage(t *testing.T) {
	for name, spoil := range map[string]func(data []byte, m archive.Member) []byte{
		// Of the checksum: some compressed bits say nothing.
		"a flipped byte": func(d []byte, m archive.Member) []byte { d[m.Offset+m.LengthBytes-8] ^= 1; return d },
		"missing bytes": func(d []byte, m archive.Member) []byte {
			return slices.Delete(d, int(m.Offset+100), int(m.Offset+300))
		},
		"cut off": func(d []byte, m archive.Member) []byte { return d[:m.Offset+50] },
	} {
		t.Run(name, func(t *testing.T) {
			b, meta, s := made(t, browsetest.Spec{})
			whole, _, err := extracted(t, b, nil, ExtractOptions{})
			if err != nil {
				t.Fatal(err)
			}
			m, lost := damagedMember(t, b)
			if len(lost) < 2 {
				t.Fatalf("a member with %q has no hard link to what is lost", lost)
			}
			browsetest.Spoil(t, s, meta, meta.Manifest.Extents[1].Archive, func(d []byte) []byte { return spoil(d, m) })
			if _, _, err := extracted(t, b, nil, ExtractOptions{}); err == nil {
				t.Error("no error without going on")
			}
			dir, done, err := extracted(t, b, nil, ExtractOptions{KeepGoing: true})
			if !errors.Is(err, archive.ErrIncomplete) {
				t.Fatalf("error %v, want ErrIncomplete", err)
			}
			listed := map[string]bool{}
			for _, f := range done[0].Stats.Failures {
				listed[f.Path] = true
			}
			for _, path := range lost {
				if !listed[path] {
					t.Errorf("%q is lost and not listed", path)
				}
			}
			if name == "a flipped byte" && len(listed) != len(lost) {
				t.Errorf("listed %v, want %q", listed, lost)
			}
			for _, file := range files(t, whole) {
				path := strings.TrimPrefix(file, "p1/")
				want, _ := os.ReadFile(filepath.Join(whole, file))
				got, err := os.ReadFile(filepath.Join(dir, file))
				if info, lerr := os.Lstat(filepath.Join(dir, file)); lerr == nil && info.Mode()&fs.ModeSymlink != 0 {
					continue
				}
				switch {
				case listed[path] && err == nil:
					t.Errorf("%q is listed as lost, and there", path)
				case !listed[path] && (err != nil || !bytes.Equal(got, want)):
					t.Errorf("%q: %d bytes of %d, %v", path, len(got), len(want), err)
				}
			}
		})
	}
}

func TestKeepGoingWithoutAnIndex(t *testing.T) {
	b, meta, s := made(t, browsetest.Spec{})
	browsetest.Spoil(t, s, meta, meta.Manifest.Extents[1].Index.Name, func(d []byte) []byte { return d[:len(d)-3] })
	if _, _, err := extracted(t, b, nil, ExtractOptions{}); !errors.Is(err, ErrNoIndex) {
		t.Errorf("error %v, want ErrNoIndex", err)
	}
	dir, done, err := extracted(t, b, []Place{mustParse(t, b, "p1:/etc")}, ExtractOptions{KeepGoing: true})
	if err != nil || len(done) != 1 || len(done[0].Notes) != 1 || done[0].Good() {
		t.Fatalf("%+v, %v", done, err)
	}
	if got := files(t, dir); !slices.Contains(got, "p1/etc/passwd") {
		t.Errorf("%q", got)
	}
}

func TestExtractEndsWithItsContext(t *testing.T) {
	b, _, _ := made(t, browsetest.Spec{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := b.Extract(ctx, root, nil, ExtractOptions{KeepGoing: true}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
