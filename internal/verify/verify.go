// Package verify checks stored backups: that the files are there and have the sums of the manifest, that archives and
// images are whole, that each index is that of its archive, and that the parts of a volume fit together. It says which
// files of a backup are damaged and which entries inside them are lost, and makes a lost index again. The formats are
// described in docs/format.md.
package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/store"
)

// Level says how much of a backup is read.
type Level int

// Levels, each with what the ones before it check but for the sums, of which a sample has only those of small files.
const (
	// Quick reads the header of every member of the archives and images, and all other files whole.
	Quick Level = iota
	// Sample does that, and inflates a part of the archives' members.
	Sample
	// Sums reads every file and compares its sums. What is damaged is then inflated, to tell what is lost.
	Sums
	// Full does that, and inflates everything: the structure of each tar stream, and every entry against the index.
	Full
)

// levelNames are what files have for the levels, in their order.
var levelNames = []string{"quick", "sample", "sums", "full"}

// MarshalText names the level.
func (l Level) MarshalText() ([]byte, error) {
	if l < Quick || l > Full {
		return nil, fmt.Errorf("there is no level %d", int(l))
	}
	return []byte(levelNames[l]), nil
}

// UnmarshalText takes a name that MarshalText gives.
func (l *Level) UnmarshalText(text []byte) error {
	i := slices.Index(levelNames, string(text))
	if i < 0 {
		return fmt.Errorf("there is no level %q", text)
	}
	*l = Level(i)
	return nil
}

// Options of Backup; the zero value is a quick check.
type Options struct {
	Level Level
	// SamplePercent is how much of each archive Sample inflates, 1 to 100.
	SamplePercent int
	// Seed chooses the sample.
	Seed uint64
	// Parallel is how many files are checked at a time, 0 for two. Each holds up to 100 MiB.
	Parallel int
	// Decrypt opens encrypted files for the checks of what is in them; nil is for who has no key, and checks sums alone.
	Decrypt browse.DecryptFunc
	// OnRead is called, from several goroutines, with the bytes read since it was last called.
	OnRead func(bytes int64)
}

// Result says what was seen of one backup. It is good when there are no findings.
type Result struct {
	Findings  []Finding
	Lost      []Lost // entries that cannot be restored whole, hard links to such included
	Omitted   int64  // lost entries beyond those listed
	Notes     []string
	ReadBytes int64
	// Repair says that RepairIndexes has something to do.
	Repair bool
}

// Good says whether nothing was found.
func (r *Result) Good() bool { return len(r.Findings) == 0 }

// Finding is one thing that is wrong.
type Finding struct {
	File    string // of the backup; empty when it is about the backup as a whole
	Message string
}

// Lost is one entry of an archive.
type Lost struct {
	Extent string
	Path   string // empty when its name is lost too
	Reason string
}

// lostKept bounds the lost entries that are listed; the rest is counted.
const lostKept = 100_000

// Backup checks one backup. The error is that of a context that ended or of a store that does not answer at all; what is
// wrong with the backup is in the result.
func Backup(ctx context.Context, s store.Store, b catalog.Backup, opts Options) (Result, error) {
	if opts.Parallel <= 0 {
		opts.Parallel = 2
	}
	if opts.Decrypt == nil {
		opts.Decrypt = browse.Decrypt(nil, true)
	}
	v := &verifier{store: s, backup: b, opts: opts, sound: map[string]bool{}}
	if err := v.run(ctx); err != nil {
		return Result{}, fmt.Errorf("verify %s in %s: %w", b.ID, s, err)
	}
	return v.merge(), nil
}

// verifier checks one backup, in two rounds: first the files on which the checks of others depend.
type verifier struct {
	store  store.Store
	backup catalog.Backup
	opts   Options
	result Result
	files  []*fileCheck
	sound  map[string]bool // files of the first round that are what the manifest says
}

func (v *verifier) run(ctx context.Context) error {
	v.result.Findings = append(v.result.Findings, checkLayout(v.backup.Manifest)...)
	held, err := v.list(ctx)
	if err != nil {
		return err
	}
	first, second := v.plan(held)
	for _, round := range [][]*fileCheck{first, second} {
		v.files = append(v.files, round...)
		if err := v.check(ctx, round); err != nil {
			return err
		}
		for _, f := range round {
			v.sound[f.file.Name] = len(f.findings) == 0
		}
	}
	return nil
}

// list returns the sizes of the files that the store holds, and tells of those that the manifest does not list.
func (v *verifier) list(ctx context.Context) (map[string]int64, error) {
	objects, err := v.store.List(ctx, v.backup.Path())
	if err != nil {
		return nil, err
	}
	held := map[string]int64{}
	for _, o := range objects {
		name := strings.TrimPrefix(o.Key, v.backup.Path()+"/")
		held[name] = o.SizeBytes
		if _, ok := v.backup.Manifest.File(name); !ok && name != catalog.ManifestName && name != catalog.SignatureName {
			v.result.Notes = append(v.result.Notes, fmt.Sprintf("%s is not in the manifest", path.Base(name)))
		}
	}
	return held, nil
}

// plan says how each file is to be checked. What is not there needs no more checking.
func (v *verifier) plan(held map[string]int64) (first, second []*fileCheck) {
	m := v.backup.Manifest
	kinds := kindsOf(m)
	for _, file := range m.Files {
		f := &fileCheck{v: v, file: file, kind: kinds[file.Name]}
		size, ok := held[file.Name]
		switch {
		case !ok:
			f.missing = true
			f.find("it is missing")
		case size != file.SizeBytes:
			f.find("it holds %d bytes, and %d by the manifest", size, file.SizeBytes)
		}
		if f.kind.what == whatTree || f.kind.what == whatImage {
			second = append(second, f)
		} else {
			first = append(first, f)
		}
	}
	return first, second
}

func (v *verifier) check(ctx context.Context, files []*fileCheck) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(v.opts.Parallel)
	for _, f := range files {
		group.Go(func() error {
			err := f.run(ctx)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				f.find("it cannot be read: %v", err)
			}
			return nil
		})
	}
	return group.Wait()
}

// merge puts the results of the files together, in the order of the manifest.
func (v *verifier) merge() Result {
	order := map[string]int{}
	for i, file := range v.backup.Manifest.Files {
		order[file.Name] = i
	}
	slices.SortFunc(v.files, func(a, b *fileCheck) int { return order[a.file.Name] - order[b.file.Name] })
	r := &v.result
	notes := map[string]bool{}
	for _, f := range v.files {
		for _, message := range f.findings {
			r.Findings = append(r.Findings, Finding{File: f.file.Name, Message: message})
		}
		room := min(len(f.lost), lostKept-len(r.Lost))
		r.Lost = append(r.Lost, f.lost[:room]...)
		r.Omitted += f.omitted + int64(len(f.lost)-room)
		r.ReadBytes += f.readBytes.Load()
		if f.note != "" {
			notes[f.note] = true
		}
		r.Repair = r.Repair || f.repairable()
	}
	r.Notes = append(r.Notes, slices.Sorted(maps.Keys(notes))...)
	return *r
}

// errSums is the finding of a file whose content is not what was stored.
var errSums = errors.New("its sums are not those in the manifest")
