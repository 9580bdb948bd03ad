package verify

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"voltar/archive"
	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/store"
	"voltar/internal/store/disk"
)

var levels = map[string]Options{
	"quick": {Level: Quick}, "sample": {Level: Sample, SamplePercent: 100, Seed: 1}, "sums": {Level: Sums}, "full": {Level: Full},
}

func made(t *testing.T, spec browsetest.Spec) (catalog.Backup, *disk.Store) {
	t.Helper()
	s := browsetest.Open(t, t.TempDir())
	return browsetest.Make(t, s, spec), s
}

// small fills a tree with few files, for tests that need no large one.
func small(t *testing.T) func(string) {
	return func(dir string) {
		for _, name := range []string{"a", "b", "c"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func mustVerify(t *testing.T, s store.Store, b catalog.Backup, opts Options) Result {
	t.Helper()
	r, err := Backup(t.Context(), s, b, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func texts(r Result) string {
	var all []string
	for _, f := range r.Findings {
		all = append(all, f.File+": "+f.Message)
	}
	return strings.Join(all, "\n")
}

func TestGoodBackupsAreGoodAtEveryLevel(t *testing.T) {
	b, s := made(t, browsetest.Spec{})
	whole := browsetest.Make(t, s, browsetest.Spec{LV: "volume-00000002", Whole: true, Fill: small(t)})
	for name, opts := range levels {
		t.Run(name, func(t *testing.T) {
			for _, b := range []catalog.Backup{b, whole} {
				if r := mustVerify(t, s, b, opts); !r.Good() || r.Repair || len(r.Lost) > 0 || len(r.Notes) > 0 {
					t.Errorf("%s: %+v", b.ID, r)
				}
			}
		})
	}
	if r := mustVerify(t, s, b, Options{Level: Sums}); r.ReadBytes < b.Manifest.FileBytes() {
		t.Errorf("%d bytes read for the sums of %d", r.ReadBytes, b.Manifest.FileBytes())
	}
	if r := mustVerify(t, s, b, Options{Level: Quick}); r.ReadBytes > b.Manifest.FileBytes()/4 {
		t.Errorf("a quick check read %d bytes of %d", r.ReadBytes, b.Manifest.FileBytes())
	}
	// What is read for the structure is summed up in the same pass: only heads and the ends of buffers are read twice.
	if r := mustVerify(t, s, b, Options{Level: Full}); r.ReadBytes > b.Manifest.FileBytes()*12/10 {
		t.Errorf("a full check read %d bytes of %d", r.ReadBytes, b.Manifest.FileBytes())
	}
}

func TestEveryDamageIsFound(t *testing.T) {
	flip := func(d []byte) []byte { d[len(d)/2] ^= 1; return d }
	spoil := func(d []byte) []byte { d[len(d)-8] ^= 1; return d } // the checksum: some compressed bits say nothing
	cut := func(d []byte) []byte { return d[:len(d)-1] }
	p1 := func(m *catalog.Manifest) catalog.Extent { return m.Extents[1] }
	for _, c := range []struct {
		name   string
		file   func(m *catalog.Manifest) string
		change func(d []byte) []byte
		found  []string // levels at which it is
		repair bool
	}{
		{"an archive", func(m *catalog.Manifest) string { return p1(m).Archive }, spoil, []string{"sample", "sums", "full"}, false},
		{"the end of an archive", func(m *catalog.Manifest) string { return p1(m).Archive }, cut,
			[]string{"quick", "sample", "sums", "full"}, false},
		{"the head of a member", func(m *catalog.Manifest) string { return p1(m).Archive }, func(d []byte) []byte { d[17] ^= 1; return d },
			[]string{"quick", "sample", "sums", "full"}, false},
		{"an image", func(m *catalog.Manifest) string { return m.Extents[2].Archive }, spoil, []string{"sums", "full"}, false},
		{"a boot area", func(m *catalog.Manifest) string { return p1(m).BootArea }, flip,
			[]string{"quick", "sample", "sums", "full"}, false},
		{"an index", func(m *catalog.Manifest) string { return p1(m).Index.Name }, flip,
			[]string{"quick", "sample", "sums", "full"}, true},
		{"the table", func(*catalog.Manifest) string { return "volume-00000001.sfdisk" }, flip,
			[]string{"quick", "sample", "sums", "full"}, false},
		{"the list of sums", func(*catalog.Manifest) string { return "volume-00000001.checksum" }, flip,
			[]string{"quick", "sample", "sums", "full"}, true},
		{"the recipe", func(*catalog.Manifest) string { return catalog.RecipeName }, flip,
			[]string{"quick", "sample", "sums", "full"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, s := made(t, browsetest.Spec{Fill: small(t)})
			name := c.file(b.Manifest)
			browsetest.Spoil(t, s, b, name, c.change)
			for level, opts := range levels {
				r := mustVerify(t, s, b, opts)
				want := slices.Contains(c.found, level)
				if r.Good() == want || r.Repair != (want && c.repair) {
					t.Errorf("%s: good %v, repair %v: %s", level, r.Good(), r.Repair, texts(r))
				}
				for _, f := range r.Findings {
					if f.File != name {
						t.Errorf("%s: a finding in %s: %s", level, f.File, f.Message)
					}
				}
			}
			if err := os.Remove(filepath.Join(s.Folder(), b.Path(), name)); err != nil {
				t.Fatal(err)
			}
			for level, opts := range levels {
				if r := mustVerify(t, s, b, opts); !strings.Contains(texts(r), name+": it is missing") {
					t.Errorf("%s: missing, and found only %s", level, texts(r))
				}
			}
		})
	}
}

func TestLostEntriesAreNamed(t *testing.T) {
	for level, opts := range map[string]Options{"sums": levels["sums"], "full": levels["full"]} {
		t.Run(level, func(t *testing.T) {
			b, s := made(t, browsetest.Spec{})
			browsetest.Spoil(t, s, b, b.Manifest.Extents[1].Archive, func(d []byte) []byte {
				d[bytes.Index(d, browsetest.Noise("1", 64))+1<<20] ^= 1 // noise is stored as it is
				return d
			})
			r := mustVerify(t, s, b, opts)
			var lost []string
			for _, l := range r.Lost {
				lost = append(lost, l.Extent+":"+l.Path)
			}
			if want := []string{"p1:var/data/big1", "p1:var/data/link1"}; !slices.Equal(lost, want) {
				t.Errorf("lost %q, want %q\n%s", lost, want, texts(r))
			}
			if !strings.Contains(texts(r), errSums.Error()) || !strings.Contains(texts(r), "damaged member at byte") {
				t.Errorf("found %s", texts(r))
			}
		})
	}
}

func TestAnIndexOfAnotherArchiveIsFound(t *testing.T) {
	b, s := made(t, browsetest.Spec{Fill: small(t), Edit: func(m *catalog.Manifest) { m.Extents[1].Entries++ }})
	if r := mustVerify(t, s, b, levels["quick"]); !strings.Contains(texts(r), "entries, and 5 by the manifest") {
		t.Errorf("found %s", texts(r))
	}
	b, s = made(t, browsetest.Spec{Fill: small(t)})
	other, from := made(t, browsetest.Spec{Fill: func(dir string) {
		for _, name := range []string{"a", "b", "x"} {
			// Noise, so that the archive is longer, whatever the times in it compress to.
			if err := os.WriteFile(filepath.Join(dir, name), browsetest.Noise(name, 5000), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}})
	x := b.Manifest.Extents[1]
	data, err := os.ReadFile(filepath.Join(from.Folder(), other.Path(), x.Index.Name))
	if err != nil {
		t.Fatal(err)
	}
	browsetest.Spoil(t, s, b, x.Index.Name, func([]byte) []byte { return data })
	for i, f := range other.Manifest.Files { // as if the manifest vouched for it
		if f.Name == x.Index.Name {
			b.Manifest.Files[i] = f
		}
	}
	x.Index.BlocksOffset = other.Manifest.Extents[1].Index.BlocksOffset
	r := mustVerify(t, s, b, levels["full"])
	if !strings.Contains(texts(r), x.Archive+": the archive has") {
		t.Errorf("found %s", texts(r))
	}
}

func TestFilesOfAnotherBackupAreToldOf(t *testing.T) {
	b, s := made(t, browsetest.Spec{Fill: small(t)})
	if err := os.WriteFile(filepath.Join(s.Folder(), b.Path(), "stray"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := mustVerify(t, s, b, Options{}); !r.Good() || !slices.Equal(r.Notes, []string{"stray is not in the manifest"}) {
		t.Errorf("%+v", r)
	}
}

func TestLayoutIsHeldAgainstItself(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(m *catalog.Manifest)
		want string
	}{
		{"beyond the end", func(m *catalog.Manifest) { m.Extents[2].SizeBytes++ }, "p2 ends at byte"},
		{"an overlap", func(m *catalog.Manifest) { m.Extents[1].SizeBytes++ }, "p2 begins inside of p1"},
		{"no index", func(m *catalog.Manifest) { m.Extents[1].Index = nil }, "has no index"},
		{"a place that the table does not have", func(m *catalog.Manifest) { m.Extents[1].OffsetBytes += 512; m.Extents[1].SizeBytes -= 512 },
			"partition 1 is at bytes"},
		{"another type", func(m *catalog.Manifest) { m.Extents[2].PartType = "X" }, "partition 2 is of type TYPE-2"},
		{"another identifier", func(m *catalog.Manifest) { m.Extents[2].PartUUID = "X" }, "partition 2 is of type"},
		{"another table", func(m *catalog.Manifest) { m.Table.ID = "X" }, "it is a table gpt DISK-ID"},
		{"no such partition", func(m *catalog.Manifest) { m.Extents[2].Number, m.Extents[2].Name = 3, "p3" }, "it lacks partition 3"},
		{"no table", func(m *catalog.Manifest) { m.Table = nil }, "knows of no partition table"},
		{"an image of another size", func(m *catalog.Manifest) { m.Extents[2].SizeBytes -= 512 }, "the image holds"},
		{"a false success", func(m *catalog.Manifest) { m.Extents[2].DamagedCount = 1 }, "called complete"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, s := made(t, browsetest.Spec{Fill: small(t)})
			c.edit(b.Manifest)
			for level, opts := range levels {
				if r := mustVerify(t, s, b, opts); !strings.Contains(texts(r), c.want) {
					t.Errorf("%s: found %q, want %q", level, texts(r), c.want)
				}
			}
		})
	}
}

func TestExpansionIsRefused(t *testing.T) {
	b, s := made(t, browsetest.Spec{Fill: small(t)})
	name := b.Manifest.Extents[1].BootArea
	browsetest.Spoil(t, s, b, name, func([]byte) []byte { return browsetest.Gzip(t, make([]byte, bootAreaMaxBytes+1), 9) })
	if r := mustVerify(t, s, b, levels["quick"]); !strings.Contains(texts(r), archive.ErrExpansion.Error()) {
		t.Errorf("found %s", texts(r))
	}
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	b, s := made(t, browsetest.Spec{Fill: small(t)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Backup(ctx, s, b, Options{Level: Full}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// dying is a store that writes nothing from its n-th commit on, as after a crash.
type dying struct {
	store.Store
	commits int
}

var errDead = errors.New("dead")

func (d *dying) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	w, err := d.Store.Create(ctx, key, opts)
	return &dyingWriter{w, d}, err
}

type dyingWriter struct {
	store.Writer
	store *dying
}

func (w *dyingWriter) Commit(ctx context.Context) (store.Object, error) {
	if w.store.commits == 0 {
		return store.Object{}, errors.Join(errDead, w.Abort())
	}
	w.store.commits--
	return w.Writer.Commit(ctx)
}

// reread reads the backup as it stands in the store now.
func reread(t *testing.T, s store.Store) catalog.Backup {
	t.Helper()
	l, err := catalog.List(t.Context(), s, browsetest.Host, catalog.Filter{})
	if err != nil || len(l.Backups) != 1 || len(l.Unreadable)+len(l.Unfinished) > 0 {
		t.Fatalf("%+v, %v", l, err)
	}
	b, err := l.Backups[0].Load(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRepairMakesALostIndexAgain(t *testing.T) {
	for _, whole := range []bool{true, false} {
		for name, spoil := range map[string]func(t *testing.T, file string){
			"lost": func(t *testing.T, file string) {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			},
			"damaged": func(t *testing.T, file string) {
				if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			},
		} {
			t.Run(name, func(t *testing.T) {
				b, s := made(t, browsetest.Spec{Whole: whole})
				x := b.Manifest.Extents[len(b.Manifest.Extents)/2]
				before, err := os.ReadFile(filepath.Join(s.Folder(), b.Path(), x.Index.Name))
				if err != nil {
					t.Fatal(err)
				}
				spoil(t, filepath.Join(s.Folder(), b.Path(), x.Index.Name))
				written, amended, err := RepairIndexes(t.Context(), s, b, Keys{})
				if err != nil {
					t.Fatal(err)
				}
				want := []string{x.Index.Name, "volume-00000001.checksum", catalog.ManifestName}
				if !slices.Equal(written, want) {
					t.Errorf("wrote %q, want %q", written, want)
				}
				again := reread(t, s)
				if !slices.Equal(again.Manifest.Files, amended.Manifest.Files) || again.SizeBytes != amended.SizeBytes {
					t.Errorf("amended %+v, stored %+v", amended, again)
				}
				if r := mustVerify(t, s, again, levels["full"]); !r.Good() || len(r.Notes) > 0 {
					t.Errorf("afterwards: %s %q", texts(r), r.Notes)
				}
				for i, f := range b.Manifest.Files {
					changed := slices.Contains(want, f.Name)
					if same := f == again.Manifest.Files[i]; same == changed {
						t.Errorf("%s: the same %v", f.Name, same)
					}
				}
				i := slices.IndexFunc(again.Manifest.Extents, func(e catalog.Extent) bool { return e.Name == x.Name })
				if got := again.Manifest.Extents[i].Index; !got.Rebuilt || len(again.Manifest.Warnings) != 1 {
					t.Errorf("%+v, warnings %q", got, again.Manifest.Warnings)
				}
				if len(before) == 0 {
					t.Error("the index was empty")
				}
				if written, _, err := RepairIndexes(t.Context(), s, again, Keys{}); err != nil || len(written) > 0 {
					t.Errorf("a second time: wrote %q, %v", written, err)
				}
			})
		}
	}
}

func TestRepairLeavesAValidBackupWhereverItDies(t *testing.T) {
	for commits := range 3 {
		b, s := made(t, browsetest.Spec{Fill: small(t)})
		x := b.Manifest.Extents[1]
		if err := os.Remove(filepath.Join(s.Folder(), b.Path(), x.Index.Name)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := RepairIndexes(t.Context(), &dying{s, commits}, b, Keys{}); !errors.Is(err, errDead) {
			t.Fatalf("after %d commits: %v", commits, err)
		}
		stands := reread(t, s)
		r := mustVerify(t, s, stands, levels["full"])
		for _, f := range r.Findings {
			if f.File != x.Index.Name && f.File != "volume-00000001.checksum" {
				t.Errorf("after %d commits: %s", commits, texts(r))
			}
		}
		if !r.Repair {
			t.Errorf("after %d commits nothing is left to repair", commits)
		}
		if _, _, err := RepairIndexes(t.Context(), s, stands, Keys{}); err != nil {
			t.Fatalf("after %d commits, again: %v", commits, err)
		}
		if r := mustVerify(t, s, reread(t, s), levels["full"]); !r.Good() {
			t.Errorf("after %d commits, repaired: %s", commits, texts(r))
		}
	}
}

func TestRepairPutsTheListOfSumsRight(t *testing.T) {
	b, s := made(t, browsetest.Spec{Fill: small(t)})
	browsetest.Spoil(t, s, b, "volume-00000001.checksum", func([]byte) []byte { return nil })
	if _, _, err := RepairIndexes(t.Context(), s, b, Keys{}); err != nil {
		t.Fatal(err)
	}
	if r := mustVerify(t, s, reread(t, s), levels["full"]); !r.Good() {
		t.Error(texts(r))
	}
}

func TestRepairRefuses(t *testing.T) {
	lose := func(t *testing.T, s *disk.Store, b catalog.Backup) {
		if err := os.Remove(filepath.Join(s.Folder(), b.Path(), b.Manifest.Extents[1].Index.Name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, s *disk.Store, b catalog.Backup)
		want  string
	}{
		{"a damaged archive", func(t *testing.T, s *disk.Store, b catalog.Backup) {
			// The checksum: of the compressed bytes, some say nothing, and which depends on the times of the files.
			browsetest.Spoil(t, s, b, b.Manifest.Extents[1].Archive, func(d []byte) []byte { d[len(d)-8] ^= 1; return d })
		}, "damaged member"},
		{"another archive", func(t *testing.T, s *disk.Store, b catalog.Backup) {
			browsetest.Spoil(t, s, b, b.Manifest.Extents[1].Archive, func(d []byte) []byte { d[9] ^= 1; return d }) // the OS in the header
		}, errSums.Error()},
		{"a manifest of a newer version", func(t *testing.T, s *disk.Store, b catalog.Backup) {
			browsetest.Spoil(t, s, b, catalog.ManifestName, func(d []byte) []byte {
				return bytes.Replace(d, []byte(`"voltar":`), []byte(`"news": 1, "voltar":`), 1)
			})
		}, "without losing something"},
		{"a manifest that has changed", func(t *testing.T, s *disk.Store, b catalog.Backup) {
			sum := []byte(b.Manifest.Files[0].SHA1)
			browsetest.Spoil(t, s, b, catalog.ManifestName, func(d []byte) []byte {
				return bytes.Replace(d, sum, bytes.Repeat([]byte("0"), len(sum)), 1)
			})
		}, "somebody else has changed it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, s := made(t, browsetest.Spec{Fill: small(t)})
			lose(t, s, b)
			c.spoil(t, s, b)
			before, err := os.ReadFile(filepath.Join(s.Folder(), b.Path(), catalog.ManifestName))
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := RepairIndexes(t.Context(), s, b, Keys{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one of %q", err, c.want)
			}
			after, err := os.ReadFile(filepath.Join(s.Folder(), b.Path(), catalog.ManifestName))
			if err != nil || !bytes.Equal(before, after) {
				t.Errorf("the manifest was written: %v", err)
			}
			if _, err := os.Stat(filepath.Join(s.Folder(), b.Path(), b.Manifest.Extents[1].Index.Name)); err == nil {
				t.Error("an index was written")
			}
		})
	}
}

func FuzzTable(f *testing.F) {
	f.Add("label: gpt\nlabel-id: X\ndevice: /dev/v\nsector-size: 4096\n\n/dev/v1 : start=1, size=2, type=a, uuid=b, name=\"c,\"\n")
	f.Add("label: dos\nsector-size: 0\nx : start=9223372036854775807")
	f.Fuzz(func(t *testing.T, text string) {
		m := &catalog.Manifest{Table: &catalog.Table{}, Extents: []catalog.Extent{{Name: "p1", Number: 1, SizeBytes: 1}}}
		_ = checkTable(text, m)
		_ = checkSumList(text, m)
		_, _, lines, err := parseTable(text)
		for _, l := range lines {
			if err == nil && (l.number < 1 || l.startBytes < 0 || l.endBytes < l.startBytes) {
				t.Errorf("%+v of %q", l, text)
			}
		}
	})
}
