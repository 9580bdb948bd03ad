package placement

import (
	"context"
	"errors"
	"fmt"
	"io"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/owned"
	"voltar/internal/store"
)

// Output is one backup on its way to every destination. A destination that fails drops out with its cause, and the rest go
// on; only when the last one has failed does writing fail.
type Output struct {
	ID catalog.ID // of the backup

	run       *Run
	places    []*place  // all that it was to go to
	branches  []*branch // where it was begun
	plaintext bool      // nothing is encrypted: what is written says what the rest is
}

// branch is the output at one place.
type branch struct {
	*place
	draft   *catalog.Draft
	settled owned.Undo // ends the folder's place in the journal
	files   []catalog.File
	carried carriedBytes // of the files
}

// carriedBytes counts what of a backup lies in the previous one on the same destination, and what of that shares its place.
type carriedBytes struct{ all, shared int64 }

// beginAt journals the folder of the backup on a destination and begins it. The tags name the run that made it.
func (o *Output) beginAt(ctx context.Context, at *place, madeBy string) error {
	host := o.run.Host.Name
	settled, err := o.run.Owner.Folder(at.target.Store, o.ID.Path(host))
	if err != nil {
		return err
	}
	tags := map[string]string{"volume": o.ID.Ref.String(), "host": host, "run": madeBy}
	draft, err := catalog.Begin(ctx, at.target.Store, host, o.ID, o.run.ID, tags)
	switch {
	case errors.Is(err, catalog.ErrLeft): // for recovery
		return err
	case err != nil:
		return errors.Join(err, settled(ctx))
	}
	o.branches = append(o.branches, &branch{place: at, draft: draft, settled: settled})
	return nil
}

// alive returns the branches that still take data.
func (o *Output) alive() []*branch {
	var list []*branch
	for _, b := range o.branches {
		if b.alive() {
			list = append(list, b)
		}
	}
	return list
}

// Failure returns why no destination is left, or nil while one is.
func (o *Output) Failure() error { return failureOf(o.places) }

// Close lets every branch go: what was written without a manifest is removed, and its place in the journal ends; what cannot
// be removed stays there, for recovery.
func (o *Output) Close(ctx context.Context) error {
	var all []error
	for _, b := range o.branches {
		err := b.draft.Abort(ctx)
		if errors.Is(err, store.ErrDown) {
			if !b.stands {
				b.target.note(unfinishedNote)
			}
			continue
		}
		if err != nil {
			all = append(all, catalog.At(b.target.Name, err))
			continue
		}
		all = append(all, b.settled(ctx))
	}
	return errors.Join(all...)
}

// Write stores one file of the backup, of at most maxBytes (0 when nothing is known). What produce writes goes to every
// live branch, encrypted to those that want it so, and is summed on the way; the file counts only when each store took
// exactly what was sent. What is returned describes it as it was produced.
func (o *Output) Write(ctx context.Context, name string, maxBytes int64, produce func(io.Writer) error) (catalog.File, error) {
	file, err := o.Create(ctx, name, maxBytes)
	if err != nil {
		return catalog.File{}, err
	}
	defer file.Abort()
	if err := produce(file); err != nil {
		return catalog.File{}, err
	}
	return file.Commit(ctx)
}

// Create begins one file on every live branch. The caller must commit or abort it.
func (o *Output) Create(ctx context.Context, name string, maxBytes int64) (*File, error) {
	f := &File{output: o, name: name}
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
	if err := o.Failure(); err != nil {
		f.Abort()
		return nil, err
	}
	return f, nil
}

// createOn begins one file on a branch, under another name where it is encrypted.
func (o *Output) createOn(ctx context.Context, b *branch, name string, maxBytes int64) (sink, error) {
	if o.plaintext || !b.encrypts() {
		w, err := b.draft.Create(ctx, name, store.PutOptions{MaxBytes: maxBytes})
		return sink{branch: b, writer: w}, err
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
	return sink{branch: b, writer: w, sealed: sealed}, nil
}

// File is one file on its way.
type File struct {
	output *Output
	name   string
	bytes  int64
	sums   *archive.Sums // of what was produced; nil where every branch encrypts it
	sinks  []sink
}

// sink is a File on one branch.
type sink struct {
	branch *branch
	writer store.Writer
	sealed *sealed // what encrypts it; nil where nothing does

	carried carriedBytes
}

func (s sink) Write(p []byte) (int, error) {
	if s.sealed != nil {
		return s.sealed.Write(p)
	}
	return s.writer.Write(p)
}

// share is Write for data that the previous backup holds in a file at an offset. It shares its place where that backup is on the
// branch's own destination: two destinations on one disk are to be two copies.
func (s *sink) share(p []byte, file archive.PreviousFile, offset int64) error {
	previous, isStored := file.(*previousFile)
	sharer, canShare := s.writer.(store.Sharer)
	if !isStored || !canShare || s.sealed != nil || previous.target != s.branch.target {
		_, err := s.Write(p)
		return err
	}
	isShared, err := sharer.Share(p, previous.Reader, offset)
	s.carried.all += int64(len(p))
	if isShared {
		s.carried.shared += int64(len(p))
	}
	return err
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

func (f *File) Write(p []byte) (int, error) {
	return f.write(p, func(s *sink) error {
		_, err := s.Write(p)
		return err
	})
}

// WriteCarried is Write for what is carried over; see archive.CarriedWriter.
func (f *File) WriteCarried(p []byte, file archive.PreviousFile, offset int64) (int, error) {
	return f.write(p, func(s *sink) error { return s.share(p, file, offset) })
}

// write has each live branch take p.
func (f *File) write(p []byte, take func(*sink) error) (int, error) {
	f.bytes += int64(len(p))
	if f.sums != nil {
		_, _ = f.sums.Write(p) // never fails
	}
	for i := range f.sinks {
		s := &f.sinks[i]
		if !s.branch.alive() {
			continue
		}
		if err := take(s); err != nil {
			s.branch.drop(fmt.Errorf("write %s: %w", f.name, err))
		}
	}
	if err := f.output.Failure(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Commit makes the file stand on every live branch, and enters it in their lists of files.
func (f *File) Commit(ctx context.Context) (catalog.File, error) {
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
		s.branch.carried.all += s.carried.all
		s.branch.carried.shared += s.carried.shared
	}
	return file, f.output.Failure()
}

// Abort throws away what was not committed. A branch that cannot even do that drops out.
func (f *File) Abort() {
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
