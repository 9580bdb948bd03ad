package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"voltar/archive"
	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/internal/verify"
)

// source is the backup that is read. Its files are opened before anything else happens and stay open, so that retention
// which removes the backup meanwhile does not take it away from a restore that has begun, where the store allows it.
type source struct {
	backup  catalog.Backup
	store   store.Store
	decrypt browse.DecryptFunc
	files   map[string]*sourceFile
	damaged bool            // files that are missing or too short are taken for what is left of them
	stream  map[string]bool // to be verified as they are read
}

// sourceFile is a file of the backup. What is read in order of what is stored is summed up on the way.
type sourceFile struct {
	stored store.Reader
	sums   *verify.Summing // of stored; nil when it was verified before, or is not
	plain  browse.File     // as it was before encryption
}

// use opens a file of the backup.
func (s *source) use(ctx context.Context, name string) error {
	if s.files[name] != nil {
		return nil
	}
	stored, err := s.open(ctx, name)
	if errors.Is(err, store.ErrNotExist) || errors.Is(err, catalog.ErrDamaged) {
		return say.WithHint(fmt.Errorf("%w: %w", ErrSums, err),
			"restore another backup, see what `voltar verify` says of this one, or give --keep-going for what is left of it")
	}
	if err != nil {
		return err
	}
	file := &sourceFile{stored: stored, plain: stored}
	if s.stream[name] {
		file.sums = verify.NewSumming(ctx, stored, true, func(int64) {})
		file.plain = file.sums
	}
	if _, missing := stored.(missingFile); browse.Encrypted(name) && !missing {
		if file.plain, err = s.decrypt(s.backup, name, lent{file.plain}); err != nil {
			return errors.Join(err, file.close())
		}
		if err := s.backup.CheckPlainSize(name, file.plain.SizeBytes()); err != nil && !s.damaged {
			return errors.Join(fmt.Errorf("open %s of %s: %w", name, s.backup.ID, err), file.close())
		}
	}
	s.files[name] = file
	return nil
}

// open opens a file as it is stored.
func (s *source) open(ctx context.Context, name string) (store.Reader, error) {
	if !s.damaged {
		return s.backup.OpenFile(ctx, s.store, name)
	}
	stored, err := s.backup.OpenStored(ctx, s.store, name)
	if errors.Is(err, store.ErrNotExist) {
		return missingFile{bytes.NewReader(nil)}, nil
	}
	return stored, err
}

// missingFile stands for a file of which nothing is left.
type missingFile struct{ *bytes.Reader }

func (missingFile) SizeBytes() int64 { return 0 }

func (missingFile) Close() error { return nil }

// lent is a file that stays its owner's.
type lent struct{ browse.File }

func (lent) Close() error { return nil }

func (f *sourceFile) close() error {
	if f.sums != nil {
		f.sums.Abandon()
	}
	return f.stored.Close()
}

func (s *source) close() error {
	var all []error
	for _, file := range s.files {
		all = append(all, file.close())
	}
	return errors.Join(all...)
}

// whole reads a small file.
func (s *source) whole(name string, maxBytes int64) ([]byte, error) {
	file := s.files[name].plain
	if file.SizeBytes() > maxBytes {
		return nil, fmt.Errorf("read %s: it holds %s, more than any that voltar writes", name, say.Size(file.SizeBytes()))
	}
	data, err := io.ReadAll(io.NewSectionReader(file, 0, file.SizeBytes()))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// smallImage inflates a boot area.
func (s *source) smallImage(ctx context.Context, name string, sizeBytes int64) (_ []byte, err error) {
	file := s.files[name].plain
	r, err := archive.NewReader(ctx, file, file.SizeBytes(), archive.ReaderOptions{Workers: 1, MaxBytes: sizeBytes})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var data bytes.Buffer
	if _, err := io.Copy(&data, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data.Bytes(), nil
}

// index opens the index of an extent; nil when there is none.
func (s *source) index(ctx context.Context, x catalog.Extent) (*archive.Index, error) {
	if x.Index == nil {
		return nil, nil
	}
	file := s.files[x.Index.Name].plain
	index, err := archive.OpenIndex(ctx, file, file.SizeBytes(), x.Index.BlocksOffset)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", x.Index.Name, err)
	}
	return index, nil
}

// archiveReader reads an archive or image of the backup.
type archiveReader struct {
	*archive.Reader
	// finish ends the reading, which came to err. After one without error it compares the sums of a file that is verified
	// as it is read. It must be called in any case.
	finish func(err error) error
}

// archive opens an archive or image for reading.
func (s *source) archive(ctx context.Context, name string, opts archive.ReaderOptions) (*archiveReader, error) {
	file := s.files[name]
	if file.sums == nil {
		r, err := archive.NewReader(ctx, file.plain, file.plain.SizeBytes(), opts)
		if err != nil {
			return nil, err
		}
		return &archiveReader{r, func(err error) error { return errors.Join(err, r.Close()) }}, nil
	}
	r, err := archive.NewStreamReader(ctx, io.NewSectionReader(file.plain, 0, file.plain.SizeBytes()), opts)
	if err != nil {
		return nil, err
	}
	return &archiveReader{r, func(err error) error {
		if err = errors.Join(err, r.Close()); err != nil {
			return err
		}
		digest, err := file.sums.Sum()
		if err != nil {
			return err
		}
		return s.compare(name, digest)
	}}, nil
}

// verify sums up one file.
func (s *source) verify(ctx context.Context, name string, progress func(int64)) error {
	sums := archive.NewSums()
	_, err := io.Copy(sums, &watchedReader{ctx, s.files[name].stored, progress}) // in a row, which is one request
	digest := sums.Sum()
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return s.compare(name, digest)
}

func (s *source) compare(name string, got archive.Digest) error {
	want, _ := s.backup.Manifest.File(name) // it was opened by the manifest
	if got.SHA1 != want.SHA1 || got.SHA256 != want.SHA256 || got.SizeBytes != want.SizeBytes {
		return fmt.Errorf("%w: the sum of %s is not the one in the manifest", ErrSums, name)
	}
	return nil
}

// watchedReader ends with a context and tells of what is read.
type watchedReader struct {
	ctx  context.Context
	r    io.Reader
	read func(int64)
}

func (w *watchedReader) Read(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	n, err := w.r.Read(p)
	w.read(int64(n))
	return n, err
}

// verifySums is the step that checks the files before the target is touched.
type verifySums struct {
	names []string
	bytes int64
	tally bool // go on when some are damaged, and count them as losses

	partly bool // the others are verified as they are read
}

// newVerifySums takes the files that the source has open and that are not verified as they are read.
func newVerifySums(s *source, keepGoing bool) *verifySums {
	v := &verifySums{tally: keepGoing}
	for name, file := range s.files {
		if s.stream[name] {
			v.partly = true
		} else {
			v.names = append(v.names, name)
			v.bytes += file.stored.SizeBytes()
		}
	}
	slices.Sort(v.names)
	return v
}

func (v *verifySums) Describe() []string {
	return []string{fmt.Sprintf("check SHA-1 and SHA-256 of %s (%s)", say.Counted(len(v.names), "file"), say.Size(v.bytes))}
}

// checks: with files that are summed up as they are read, the rest is only known in the end.
func (v *verifySums) checks() []string {
	if v.partly {
		return nil
	}
	return []string{checkedSums}
}

func (v *verifySums) do(ctx context.Context, w *work) error {
	const atATime = 2 // each has a goroutine that reads and one that sums
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(atATime)
	for _, name := range v.names {
		group.Go(func() error {
			err := w.plan.source.verify(groupCtx, name, w.progress)
			if v.tally && errors.Is(err, ErrSums) {
				w.lose("%v", err)
				return nil
			}
			return err
		})
	}
	err := group.Wait()
	if errors.Is(err, ErrSums) {
		return say.WithHint(err,
			"restore another backup, see what `voltar verify` says of this one, or give --keep-going for what is left of it")
	}
	return err
}
