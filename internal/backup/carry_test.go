package backup

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"voltar/archive"
	"voltar/internal/agefile"
	"voltar/internal/catalog"
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

// The second night takes over what did not change, on all destinations, and finds what changed under the same times.
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

// An earlier backup that cannot be read costs time, and nothing else.
func TestWhatCannotBeReadIsNotCarried(t *testing.T) {
	s := newCarrySite(t, "disk")
	s.night(t, 0)
	s.on("disk").Store = deniedStore{s.on("disk").Store}
	v := s.night(t, 1)
	if len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0].Message, "could be taken over from") || len(s.marked) != 0 || v.Carried != nil {
		t.Errorf("%+v; %+v; marked %q", v.Warnings, v.Carried, s.marked)
	}
}
