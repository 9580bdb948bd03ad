package backup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/hostcmd"
	"voltar/internal/placement/placementtest"
	"voltar/internal/quiesce"
	"voltar/internal/store"
	"voltar/internal/store/disk"
	"voltar/report"
)

// withSources gives a site what it needs to back up directories, dumps and streams.
func (s *site) withSources(t *testing.T, sources Sources) {
	t.Helper()
	s.opts.Sources = sources
	s.Pool = archive.NewPool(1)
	t.Cleanup(s.Pool.Close)
	s.Quieter = quiesce.New(hostcmd.New(hostcmd.Options{}), quiesce.Options{})
}

// hookedStore calls hook with each write of an archive, or before one is begun.
type hookedStore struct {
	store.Store
	create func(ctx context.Context)
	write  func()
}

func (s hookedStore) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	if !strings.HasSuffix(key, ".gz") {
		return s.Store.Create(ctx, key, opts)
	}
	if s.create != nil {
		s.create(ctx)
	}
	w, err := s.Store.Create(ctx, key, opts)
	return hookedWriter{w, s.write}, err
}

type hookedWriter struct {
	store.Writer
	write func()
}

func (w hookedWriter) Write(p []byte) (int, error) {
	if w.write != nil {
		w.write()
	}
	return w.Writer.Write(p)
}

// A log that grows while its live directory is archived is in a complete backup, with a warning that names it.
func TestALiveDirectoryMayChange(t *testing.T) {
	s := newSite(t, "disk")
	dir := t.TempDir()
	log := filepath.Join(dir, "app.log")
	if err := os.WriteFile(log, make([]byte, 64<<20), 0o600); err != nil { // more than is read ahead
		t.Fatal(err)
	}
	s.withSources(t, Sources{Directories: []Directory{{Name: "logs", Path: dir, Level: archive.LevelFast}}})
	var once sync.Once
	s.on("disk").Store = hookedStore{Store: s.on("disk").Store, write: func() {
		once.Do(func() {
			if err := os.Truncate(log, 1<<20); err != nil {
				t.Error(err)
			}
		})
	}}
	result, err := s.Run(t.Context(), []string{"@directory/logs"})
	if err != nil {
		t.Fatal(err)
	}
	v := result.Volumes[0]
	if v.Status != report.VolumeOK || v.DamagedCount != 0 || len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0].Message, `"app.log" (ends early`) {
		t.Errorf("%s, %d damaged, warnings %+v, %+v", v.Status, v.DamagedCount, v.Warnings, v.Error)
	}
	if text := s.manifest(t, "disk"); !strings.Contains(text, `"status": "`+string(catalog.StatusComplete)) {
		t.Errorf("the manifest does not say that the backup is complete: %s", text)
	}
}

// Whatever is backed up ends when it has taken as long as it may, and the run goes on.
func TestEverySourceEndsInTime(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	echo := []Dump{{Dump: quiesce.Dump{Name: "text", Command: []string{"echo", "text"}, Timeout: time.Hour}, Level: archive.LevelFast}}
	sources := Sources{
		Directories: []Directory{{Name: "tree", Path: dir, Level: archive.LevelFast}}, Dumps: echo, Streams: echo,
	}
	for _, c := range []struct {
		bound string
		set   func(*Options)
	}{
		{"longer than max_duration", func(o *Options) { o.MaxDuration = time.Millisecond }},
		{"max_run_duration", func(o *Options) { o.MaxRunDuration = time.Millisecond }},
	} {
		for _, name := range []string{"@directory/tree", "@dump/text", "@stream/text"} {
			t.Run(c.bound+" "+name, func(t *testing.T) {
				s := newSite(t, "disk")
				s.withSources(t, sources)
				c.set(&s.opts)
				s.on("disk").Store = hookedStore{Store: s.on("disk").Store, create: func(ctx context.Context) { <-ctx.Done() }}
				var result *report.Run
				var err error
				if stream, found := strings.CutPrefix(name, "@stream/"); found {
					result, err = s.Stream(t.Context(), stream)
				} else {
					result, err = s.Run(t.Context(), []string{name})
				}
				if err != nil {
					t.Fatal(err)
				}
				v := result.Volumes[0]
				if v.Status != report.VolumeFailed || v.Error == nil || !strings.Contains(v.Error.Message, c.bound) || v.Error.Hint == "" {
					t.Errorf("%s %s: %+v", v.Name, v.Status, v.Error)
				}
			})
		}
	}
}

// A run that no destination takes fails for the destinations' own reasons, and each stands once.
func TestOnlyTheDestinationsSayWhyNoneTakesTheRun(t *testing.T) {
	s := newSite(t, "disk")
	dir := t.TempDir()
	s.withSources(t, Sources{Directories: []Directory{{Name: "tree", Path: dir}}})
	if err := catalog.Claim(t.Context(), s.on("disk").Store, catalog.Host{Name: placementtest.Host.Name, MachineID: "machine-2"}, s.Now()); err != nil {
		t.Fatal(err)
	}
	result, err := s.Run(t.Context(), []string{"@directory/tree"})
	if err == nil || len(result.Errors) != 1 || !strings.HasPrefix(result.Errors[0].Message, "destination disk: ") {
		t.Errorf("%v; the report has %+v", err, result.Errors)
	}
	s.opts.Destinations = nil
	if result, err = s.Run(t.Context(), []string{"@directory/tree"}); err == nil || len(result.Errors) != 1 {
		t.Errorf("without destinations: %v; the report has %+v", err, result.Errors)
	}
}

// A destination whose folder cannot be told costs a directory no backup on the others.
func TestADirectoryBesideDestinationsThatCannotBeUsed(t *testing.T) {
	s := newSite(t, "disk", "file/below", "loop/below")
	tree := filepath.Join(s.dir, "tree")
	if err := errors.Join(os.Mkdir(tree, 0o700), os.WriteFile(filepath.Join(tree, "text"), nil, 0o600), os.WriteFile(filepath.Join(s.dir, "file"), nil, 0o600),
		os.Symlink("loop", filepath.Join(s.dir, "loop"))); err != nil {
		t.Fatal(err)
	}
	s.withSources(t, Sources{Directories: []Directory{{Name: "tree", Path: tree, Level: archive.LevelFast}}})
	result, err := s.Run(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	v := result.Volumes[0]
	s.manifest(t, "disk")
	if len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0].Message, "destination loop/below") || v.Warnings[0].Hint == "" {
		t.Errorf("%s, warnings %+v, %+v", v.Status, v.Warnings, v.Error)
	}
}

// A folder that held backups and is made anew is told once; the first one of all is no news.
func TestADestinationThatLostItsFolder(t *testing.T) {
	s := newSite(t, "disk")
	tree := t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "text"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.withSources(t, Sources{Directories: []Directory{{Name: "tree", Path: tree, Level: archive.LevelFast}}})
	s.opts.Written = catalog.NewWritten(filepath.Join(s.dir, "written"))
	for night, want := range []int{0, 1, 0} {
		s.Now = func() time.Time { return placementtest.FirstNight.AddDate(0, 0, 5+night) }
		if want > 0 {
			if err := os.RemoveAll(filepath.Join(s.dir, "disk")); err != nil {
				t.Fatal(err)
			}
		}
		opened, err := disk.Open(disk.Options{Path: filepath.Join(s.dir, "disk")}) // as each run does
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = opened.Close() })
		s.on("disk").Store = opened
		result, err := s.Run(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		for _, w := range result.Warnings {
			if strings.Contains(w.Message, "gone or lie elsewhere") && strings.Contains(w.Message, "(sources: 1), was missing") && w.Hint != "" {
				told++
			}
		}
		if told != want {
			t.Errorf("night %d: %+v, want it told %d times", night, result.Warnings, want)
		}
	}
}
