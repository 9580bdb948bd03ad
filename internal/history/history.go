// Package history keeps past runs: one file of report JSON (docs/report-json.md) for each run, named after the run's start and
// its ID. Drills and restores, which are kept for longer, have a folder of their own within that of all others. Files are written
// whole or not at all, and readable by their owner alone. One that is damaged is set aside under another name and told of, and is
// in nobody's way. Runs that are dated ahead (package clock) come after all others.
package history

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"voltar/internal/clock"
	"voltar/internal/durable"
	"voltar/report"
)

// Last stands for the newest run wherever a run's ID is asked for.
const Last = "last"

// ErrNotFound is wrapped by the error of Load for a run that is not kept.
var ErrNotFound = errors.New("no such run")

// proofsFolder has drills and restores.
const proofsFolder = "proofs"

const (
	suffix        = ".json"
	damagedSuffix = ".damaged"
	timeLayout    = "20060102T150405Z"
	filePerm      = 0o600
	folderPerm    = 0o700
)

// Store is the folder of past runs. It is safe for use by several processes at once.
type Store struct {
	dir   string
	files *durable.FS
	now   func() time.Time
}

// New returns the history in a folder, which is made when it is needed. files is durable.Host(nil) and now is time.Now
// but for tests.
func New(dir string, files *durable.FS, now func() time.Time) *Store {
	return &Store{dir: dir, files: files, now: now}
}

// idForm keeps run IDs fit for file names.
var idForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func validID(id string) bool { return idForm.MatchString(id) && id != Last }

// Save keeps a run, in place of an earlier state of the same run.
func (s *Store) Save(run report.Run) error {
	if !validID(run.ID) {
		return fmt.Errorf("cannot keep run %q in the history: its ID is not fit for a file name", run.ID)
	}
	data, err := report.JSON(run)
	if err != nil {
		return fmt.Errorf("run %s: %w", run.ID, err)
	}
	dir := s.dir
	if IsProof(run) {
		dir = filepath.Join(dir, proofsFolder)
	}
	if err := s.files.MkdirAll(dir, folderPerm); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	name := run.Started.UTC().Format(timeLayout) + "_" + run.ID + suffix
	if err := s.files.WriteFile(filepath.Join(dir, name), data, filePerm); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// names lists the files of runs, as paths in the folder, newest first, those that are dated ahead behind them.
func (s *Store) names() ([]string, error) {
	var names []string
	for _, folder := range []string{".", proofsFolder} {
		entries, err := os.ReadDir(filepath.Join(s.dir, folder))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot list the history: %w", err)
		}
		for _, e := range entries {
			if _, _, ok := split(e.Name()); ok {
				names = append(names, filepath.Join(folder, e.Name()))
			}
		}
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(filepath.Base(b), filepath.Base(a)) })
	now := s.now()
	isAhead := func(name string) bool {
		started, _, _ := split(name)
		return clock.IsAhead(started, now)
	}
	past := slices.DeleteFunc(slices.Clone(names), isAhead)
	ahead := slices.DeleteFunc(names, func(name string) bool { return !isAhead(name) })
	return append(past, ahead...), nil
}

// split takes the name of a file apart. What has another form is not a run's file.
func split(name string) (started time.Time, id string, ok bool) {
	name = filepath.Base(name)
	stamp, id, found := strings.Cut(strings.TrimSuffix(name, suffix), "_")
	started, err := time.Parse(timeLayout, stamp)
	return started, id, found && err == nil && validID(id) && strings.HasSuffix(name, suffix)
}

// Earlier gives the runs before now, newest first, as List does: what can be compared with, and what tells when
// something last went well.
func (s *Store) Earlier() ([]report.Run, error) {
	runs, err := s.List(0)
	now := s.now()
	return slices.DeleteFunc(runs, func(r report.Run) bool { return clock.IsAhead(r.Started, now) }), err
}

// List gives the newest runs, newest first, limit of them at most; 0 means all. Those that are dated ahead come last. Runs
// that cannot be read are left out and named in the error, beside which the others are returned: a caller shows it and
// goes on.
func (s *Store) List(limit int) ([]report.Run, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var runs []report.Run
	var errs []error
	for _, name := range names {
		if limit > 0 && len(runs) == limit {
			break
		}
		run, err := s.read(name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // pruned by another process just now
		case err != nil:
			errs = append(errs, err)
		default:
			runs = append(runs, run)
		}
	}
	return runs, errors.Join(errs...)
}

// Load gives one run by its ID, or the newest for Last. Where the newest is damaged, it is the newest that can be read,
// beside an error that names the damaged one.
func (s *Store) Load(id string) (report.Run, error) {
	if id == Last {
		runs, err := s.List(1)
		if len(runs) == 0 {
			return report.Run{}, errors.Join(err, fmt.Errorf("%w: the history is empty", ErrNotFound))
		}
		return runs[0], err
	}
	names, err := s.names()
	if err != nil {
		return report.Run{}, err
	}
	for _, name := range names {
		if _, have, _ := split(name); have == id {
			return s.read(name)
		}
	}
	return report.Run{}, fmt.Errorf("%w: %q", ErrNotFound, id)
}

func (s *Store) read(name string) (report.Run, error) {
	path := filepath.Join(s.dir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		return report.Run{}, fmt.Errorf("cannot read the history: %w", err)
	}
	run, err := report.ParseJSON(data)
	if errors.Is(err, report.ErrSchema) {
		return report.Run{}, fmt.Errorf("history %s: %w", path, err) // of a newer voltar: whole, and not ours to touch
	}
	if err == nil && !strings.HasSuffix(name, "_"+run.ID+suffix) {
		err = fmt.Errorf("it holds the run %q", run.ID)
	}
	if err != nil {
		err = fmt.Errorf("history %s: %w; set aside as %s", path, err, filepath.Base(name)+damagedSuffix)
		return report.Run{}, errors.Join(err, s.files.Rename(path, path+damagedSuffix))
	}
	return run, nil
}

// Kept bounds what stays of one kind of runs.
type Kept struct {
	Runs   int       // the first of List
	Before time.Time // those that began before it go
}

// Prune removes the runs beyond what is kept, of drills and restores by a bound of their own: many of these cost no night its
// place. The first of either kind stays. It returns how many it removed.
func (s *Store) Prune(others, proofs Kept) (removed int, err error) {
	names, err := s.names()
	if err != nil {
		return 0, err
	}
	seen := map[bool]int{}
	for _, name := range names {
		isProof := filepath.Dir(name) == proofsFolder
		kept := others
		if isProof {
			kept = proofs
		}
		started, _, _ := split(name)
		i := seen[isProof]
		seen[isProof]++
		if i == 0 || i < kept.Runs && !started.Before(kept.Before) {
			continue
		}
		if err := s.files.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, fmt.Errorf("history: %w", err)
		}
		removed++
	}
	return removed, nil
}
