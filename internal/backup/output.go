package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/owned"
	"voltar/internal/store"
	"voltar/report"
)

// output is the backup of one volume on its way to every destination. A destination that fails drops out with its
// cause, and the rest go on; only when the last one has failed does writing fail.
type output struct {
	branches []*branch
	open     bool // nothing is encrypted: what is written says what the rest is
}

// branch is the output on one destination.
type branch struct {
	target  *target
	draft   *catalog.Draft // nil when it could not be begun
	settled owned.Undo     // ends the folder's place in the journal
	files   []catalog.File
	copy    report.Copy
	stands  bool // the manifest is written

	mu  sync.Mutex
	err error // why it dropped out
}

// failure returns why the branch dropped out, or nil.
func (b *branch) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *branch) alive() bool { return b.failure() == nil }

// drop takes the branch out of the output. The first cause counts.
func (b *branch) drop(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
}

// prepareOutput makes room on every destination that can be written to, before there is a snapshot to wait for that.
func (v *volumeRun) prepareOutput(ctx context.Context) error {
	for _, t := range v.run.targets {
		b := &branch{target: t, copy: report.Copy{Destination: t.Name}}
		v.out.branches = append(v.out.branches, b)
		err := t.out()
		if err == nil {
			err = v.makeRoom(ctx, b)
		}
		if err != nil {
			b.drop(err)
		}
	}
	return v.out.failure()
}

// maxBegins bounds how often a backup is begun that meets another run of the same name each time.
const maxBegins = 5

// openOutput begins the backup of a volume, of one and the same time, on every destination that was prepared. Where another
// run of the same name has just taken that time, a later one is taken.
func (v *volumeRun) openOutput(ctx context.Context) error {
	for from, try := v.time, 1; ; try++ {
		prepared := v.out.alive()
		met := v.beginAll(ctx, prepared, from, try == maxBegins)
		if !met {
			return v.out.failure()
		}
		if err := v.out.close(ctx, v.run); err != nil {
			return err
		}
		for _, b := range prepared {
			b.draft = nil
		}
		from = v.id.Time.Add(time.Duration(1+rand.N(2*try)) * time.Second) // two that have met part ways
	}
}

// beginAll begins the backup on each of the branches, of the first time from one on that is free on all. It tells whether
// another run was met, which ends the branch only at the last try.
func (v *volumeRun) beginAll(ctx context.Context, branches []*branch, from time.Time, last bool) (met bool) {
	var stores []store.Store
	for _, b := range branches {
		stores = append(stores, b.target.Store)
	}
	at, failed := catalog.FreeTime(ctx, stores, v.run.opts.Host, v.ref(), from)
	v.id = catalog.ID{Ref: v.ref(), Time: at}
	for i, b := range branches {
		err := failed[i]
		if err == nil {
			err = v.run.beginOn(ctx, b, v.id, v.run.id)
		}
		switch {
		case errors.Is(err, catalog.ErrTaken) && !last:
			met = true
		case err != nil:
			b.drop(err)
		}
	}
	return met
}

// beginOn journals the folder of a backup on a destination and begins it. The tags name the run that made it.
func (r *run) beginOn(ctx context.Context, b *branch, id catalog.ID, madeBy string) (err error) {
	if b.settled, err = r.owner.Folder(b.target.Store, id.Path(r.opts.Host)); err != nil {
		return err
	}
	tags := map[string]string{"volume": id.Ref.String(), "host": r.opts.Host, "run": madeBy}
	b.draft, err = catalog.Begin(ctx, b.target.Store, r.opts.Host, id, r.id, tags)
	if err != nil && !errors.Is(err, catalog.ErrLeft) {
		return errors.Join(err, b.settled(ctx))
	}
	return err
}

// alive returns the branches that still take data.
func (o *output) alive() []*branch {
	var list []*branch
	for _, b := range o.branches {
		if b.alive() {
			list = append(list, b)
		}
	}
	return list
}

// failure returns why no destination is left, or nil while one is.
func (o *output) failure() error {
	if len(o.alive()) > 0 {
		return nil
	}
	all := []error{errNoDestination}
	for _, b := range o.branches {
		all = append(all, fmt.Errorf("destination %s: %w", b.target.Name, b.failure()))
	}
	return errors.Join(all...)
}

var errNoDestination = errors.New("no destination took the backup")

// close lets every branch go: what was written without a manifest is removed, and its place in the journal ends; what cannot
// be removed stays there, for recovery.
func (o *output) close(ctx context.Context, r *run) error {
	var all []error
	for _, b := range o.branches {
		if b.draft == nil {
			continue
		}
		err := b.draft.Abort(ctx)
		if errors.Is(err, store.ErrDown) {
			if !b.stands {
				b.target.note(unfinishedNote)
			}
			continue
		}
		if err != nil {
			all = append(all, fmt.Errorf("destination %s: %w", b.target.Name, err))
			continue
		}
		all = append(all, b.settled(ctx))
	}
	return errors.Join(all...)
}

// write stores one file of the backup, of at most maxBytes (0 when nothing is known). What produce writes goes to every
// live branch, encrypted to those that want it so, and is summed on the way; the file counts only when each store took
// exactly what was sent. What is returned describes it as it was produced.
func (o *output) write(ctx context.Context, name string, maxBytes int64, produce func(io.Writer) error) (catalog.File, error) {
	file, err := o.create(ctx, name, maxBytes)
	if err != nil {
		return catalog.File{}, err
	}
	defer file.abort()
	if err := produce(file); err != nil {
		return catalog.File{}, err
	}
	return file.commit(ctx)
}

// create begins one file on every live branch. The caller must commit or abort it.
func (o *output) create(ctx context.Context, name string, maxBytes int64) (*outputFile, error) {
	f := &outputFile{output: o, name: name}
	for _, b := range o.alive() {
		s, err := o.createOn(ctx, b, name, maxBytes)
		if err != nil {
			b.drop(fmt.Errorf("create %s: %w", name, err))
			continue
		}
		f.sinks = append(f.sinks, s)
		if s.sealed == nil && f.sums == nil {
			f.sums = archive.NewSums()
		}
	}
	if err := o.failure(); err != nil {
		f.abort()
		return nil, err
	}
	return f, nil
}

// createOn begins one file on a branch, under another name where it is encrypted.
func (o *output) createOn(ctx context.Context, b *branch, name string, maxBytes int64) (sink, error) {
	if o.open || !b.encrypts() {
		w, err := b.draft.Create(ctx, name, store.PutOptions{MaxBytes: maxBytes})
		return sink{b, w, nil}, err
	}
	if maxBytes > 0 {
		maxBytes = b.target.Recipients.StoredBytes(maxBytes)
	}
	w, err := b.draft.Create(ctx, name+catalog.AgeSuffix, store.PutOptions{MaxBytes: maxBytes})
	if err != nil {
		return sink{}, err
	}
	sealed, err := newSealed(b.target.Recipients, w)
	if err != nil {
		return sink{}, errors.Join(err, w.Abort())
	}
	return sink{b, w, sealed}, nil
}

// outputFile is one file on its way.
type outputFile struct {
	output *output
	name   string
	bytes  int64
	sums   *archive.Sums // of what was produced; nil where every branch encrypts it
	sinks  []sink
}

// sink is an outputFile on one branch.
type sink struct {
	branch *branch
	writer store.Writer
	sealed *sealed // what encrypts it; nil where nothing does
}

func (s sink) Write(p []byte) (int, error) {
	if s.sealed != nil {
		return s.sealed.Write(p)
	}
	return s.writer.Write(p)
}

// commit makes the file stand on the branch, when the store holds just what was sent. plain describes what was produced.
func (s sink) commit(ctx context.Context, plain catalog.File) (file catalog.File, err error) {
	file = plain
	if s.sealed != nil {
		if file, err = s.sealed.finish(plain.Name + catalog.AgeSuffix); err != nil {
			return file, err
		}
		if file.PlainSizeBytes != plain.SizeBytes {
			return file, fmt.Errorf("%d bytes were encrypted of %d", file.PlainSizeBytes, plain.SizeBytes)
		}
	}
	if tagger, ok := s.writer.(store.TagWriter); ok {
		tagger.SetTag("sha1", file.SHA1)
	}
	object, err := s.writer.Commit(ctx)
	if err == nil && object.SizeBytes != file.SizeBytes {
		err = fmt.Errorf("the store holds %d bytes where %d were sent", object.SizeBytes, file.SizeBytes)
	}
	return file, err
}

func (f *outputFile) Write(p []byte) (int, error) {
	f.bytes += int64(len(p))
	if f.sums != nil {
		_, _ = f.sums.Write(p) // never fails
	}
	for _, s := range f.sinks {
		if !s.branch.alive() {
			continue
		}
		if _, err := s.Write(p); err != nil {
			s.branch.drop(fmt.Errorf("write %s: %w", f.name, err))
		}
	}
	if err := f.output.failure(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// commit makes the file stand on every live branch, and enters it in their lists of files.
func (f *outputFile) commit(ctx context.Context) (catalog.File, error) {
	file := catalog.File{Name: f.name, SizeBytes: f.bytes}
	if f.sums != nil {
		sums := f.sums.Sum()
		file.SHA1, file.SHA256 = sums.SHA1, sums.SHA256
	}
	for _, s := range f.sinks {
		if !s.branch.alive() {
			continue
		}
		stored, err := s.commit(ctx, file)
		if err != nil {
			s.branch.drop(fmt.Errorf("store %s: %w", f.name, err))
			continue
		}
		s.branch.files = append(s.branch.files, stored)
	}
	return file, f.output.failure()
}

// abort throws away what was not committed. A branch that cannot even do that drops out.
func (f *outputFile) abort() {
	if f.sums != nil {
		f.sums.Sum() // ends its goroutine
	}
	for _, s := range f.sinks {
		if s.sealed != nil {
			s.sealed.sums.Sum()
		}
		if err := s.writer.Abort(); err != nil {
			s.branch.drop(fmt.Errorf("abandon %s: %w", f.name, err))
		}
	}
}
