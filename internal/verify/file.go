package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"voltar/archive"
	"voltar/internal/agefile"
	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/say"
)

// Bounds of what is read into memory or inflated: far beyond what voltar writes.
const (
	textMaxBytes     = 16 << 20
	bootAreaMaxBytes = 16 << 20
)

// fileCheck checks one file of a backup.
type fileCheck struct {
	v    *verifier
	file catalog.File
	kind kind

	missing   bool
	locked    bool // encrypted, and there is no key
	findings  []string
	lost      []Lost
	omitted   int64
	note      string
	readBytes atomic.Int64
}

func (f *fileCheck) find(format string, args ...any) {
	f.findings = append(f.findings, fmt.Sprintf(format, args...))
}

func (f *fileCheck) encrypted() bool { return browse.Encrypted(f.file.Name) }

// repairable says whether the file is one that can be made again from others.
func (f *fileCheck) repairable() bool {
	return len(f.findings) > 0 && !f.locked && (f.kind.what == whatIndex || f.kind.what == whatSums)
}

// summed says whether the whole file is read for its sums.
func (f *fileCheck) summed() bool {
	large := f.kind.what == whatTree || f.kind.what == whatImage || f.kind.what == whatStream
	return !large || f.v.opts.Level >= Sums
}

// run checks the file. An error is one of reading it.
func (f *fileCheck) run(ctx context.Context) (err error) {
	if f.missing {
		return nil
	}
	stored, err := f.v.backup.OpenStored(ctx, f.v.store, f.file.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stored.Close()) }()
	source := NewSumming(ctx, stored, f.summed(), f.count)
	defer source.Abandon()
	return f.content(ctx, source)
}

func (f *fileCheck) count(bytes int64) {
	f.readBytes.Add(bytes)
	if f.v.opts.OnRead != nil {
		f.v.opts.OnRead(bytes)
	}
}

// content checks what is in the file, and its sums, which are of what is stored: that is summed up while it is looked at,
// so that it is read once.
func (f *fileCheck) content(ctx context.Context, stored *Summing) (err error) {
	var plain browse.File = stored
	if f.encrypted() {
		plain, err = f.v.opts.Decrypt(f.v.backup, f.file.Name, stored)
		switch {
		case errors.Is(err, browse.ErrEncrypted):
			f.locked = true
			f.note = "what is in encrypted files was not checked: give --identity FILE to look into them"
			return f.compareSums(stored)
		case errors.Is(err, agefile.ErrDamaged):
			f.find("%v", err)
			return f.compareSums(stored)
		case err != nil:
			return errors.Join(err, f.compareSums(stored))
		}
		defer func() { err = errors.Join(err, plain.Close()) }()
		if err := f.v.backup.CheckPlainSize(f.file.Name, plain.SizeBytes()); err != nil {
			f.find("%v", err)
		}
	}
	deep := f.v.opts.Level == Full
	if err := f.structure(ctx, plain, deep); err != nil {
		return err
	}
	before := len(f.findings)
	if err := f.compareSums(stored); err != nil {
		return err
	}
	if len(f.findings) > before && !deep && f.kind.what == whatTree {
		err = f.tree(ctx, plain, archive.VerifyFull) // to tell what is lost
	}
	f.findDamaged(plain)
	return err
}

// findDamaged tells of chunks that could not be decrypted and were taken for zeros.
func (f *fileCheck) findDamaged(plain browse.File) {
	file, ok := plain.(browse.Damageable)
	if !ok {
		return
	}
	for _, r := range file.Damaged() {
		f.find("bytes %d to %d of what is encrypted in it are damaged", r.OffsetBytes, r.OffsetBytes+r.LengthBytes)
	}
}

// compareSums reads what of the file was not read yet and compares its sums with the manifest's.
func (f *fileCheck) compareSums(stored *Summing) error {
	if !f.summed() {
		return nil
	}
	digest, err := stored.Sum()
	if err != nil {
		return err
	}
	if digest.SHA1 != f.file.SHA1 || digest.SHA256 != f.file.SHA256 {
		f.find("%v", errSums)
	}
	return nil
}

// structure checks the file by its kind.
func (f *fileCheck) structure(ctx context.Context, plain browse.File, deep bool) error {
	switch f.kind.what {
	case whatTree:
		level := archive.VerifyQuick
		if f.v.opts.Level == Sample {
			level = archive.VerifySample
		} else if deep {
			level = archive.VerifyFull
		}
		return f.tree(ctx, plain, level)
	case whatImage:
		return f.image(ctx, plain, deep)
	case whatSmallImage:
		return f.inflate(ctx, plain, -1, bootAreaMaxBytes)
	case whatIndex:
		return f.index(ctx, plain)
	case whatStream:
		if deep {
			return f.inflate(ctx, plain, -1, 0)
		}
	case whatTable, whatSums:
		return f.text(plain)
	}
	return nil
}

// tree checks an archive, beside its index when that is sound.
func (f *fileCheck) tree(ctx context.Context, plain browse.File, level archive.VerifyLevel) (err error) {
	index, closeIndex, err := f.openIndex(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeIndex()) }()
	result, err := archive.Verify(ctx, plain, plain.SizeBytes(), index, archive.VerifyOptions{
		Level: level, SamplePercent: f.v.opts.SamplePercent, Seed: f.v.opts.Seed,
	})
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, message := range f.findings {
		known[message] = true
	}
	for _, message := range result.Findings {
		if !known[message] {
			f.find("%s", message)
		}
	}
	for _, l := range result.Lost {
		f.lost = append(f.lost, Lost{Extent: f.kind.extent.Name, Path: l.Path, Reason: l.Err.Error()})
	}
	f.omitted += result.LostOmitted
	if index == nil && len(result.Findings) > 0 {
		f.find("without its index not every lost file has a name")
	}
	return nil
}

// openIndex opens the index of an archive; there is none to use when it was found damaged.
func (f *fileCheck) openIndex(ctx context.Context) (_ *archive.Index, closeIndex func() error, err error) {
	in := f.kind.extent.Index
	if in == nil || !f.v.sound[in.Name] {
		return nil, func() error { return nil }, nil
	}
	file, err := browse.Opener(f.v.opts.Decrypt)(ctx, f.v.store, f.v.backup, in.Name)
	if err != nil {
		return nil, nil, err
	}
	index, err := archive.OpenIndex(ctx, file, file.SizeBytes(), in.BlocksOffset)
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return index, file.Close, nil
}

// index checks that an index can be opened where the manifest says, and has the entries that the manifest says.
func (f *fileCheck) index(ctx context.Context, plain browse.File) error {
	x := f.kind.extent
	index, err := archive.OpenIndex(ctx, plain, plain.SizeBytes(), x.Index.BlocksOffset)
	if err != nil {
		if ctx.Err() == nil {
			f.find("%v", err)
		}
		return nil
	}
	want := x.Entries
	if x.Index.Rebuilt {
		want -= x.NotStored[archive.NotStoredSocket]
	}
	if index.Entries() != want {
		f.find("it has %s, and %d by the manifest", say.Counted(index.Entries(), "entry"), want)
	}
	return nil
}

// image checks an image: its members, by their headers or by inflating them, must be of the size of the extent.
func (f *fileCheck) image(ctx context.Context, plain browse.File, deep bool) error {
	size := f.kind.extent.SizeBytes
	if deep {
		return f.inflate(ctx, plain, size, size)
	}
	result, err := archive.Verify(ctx, plain, plain.SizeBytes(), nil, archive.VerifyOptions{Level: archive.VerifyQuick})
	if err != nil {
		return err
	}
	for _, message := range result.Findings {
		f.find("%s", message)
	}
	if result.Good() && result.TarBytes != size {
		f.find("the image holds %d bytes, the extent has %d", result.TarBytes, size)
	}
	return nil
}

// inflate reads a gzip stream to its end. It must hold wantBytes, -1 for any number, and never more than maxBytes, 0 for
// any.
func (f *fileCheck) inflate(ctx context.Context, plain browse.File, wantBytes, maxBytes int64) (err error) {
	r, err := archive.NewReader(ctx, plain, plain.SizeBytes(), archive.ReaderOptions{MaxBytes: maxBytes, KeepGoing: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var got int64
	good := true
	for {
		n, err := io.Copy(io.Discard, r)
		got += n
		var damage *archive.MemberError
		switch {
		case err == nil:
			if good && wantBytes >= 0 && got != wantBytes {
				f.find("the image holds %d bytes, the extent has %d", got, wantBytes)
			}
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &damage):
			good = false
			f.find("%v", damage)
			if damage.TarBytes > 0 && f.kind.extent != nil {
				f.find("bytes %d to %d of the extent are lost", damage.TarOffset, damage.TarOffset+damage.TarBytes)
			}
		case errors.Is(err, archive.ErrExpansion) && wantBytes >= 0:
			f.find("the image holds more than the %d bytes of the extent", wantBytes)
			return nil
		default:
			f.find("%v", err)
			return nil
		}
	}
}

// text checks the partition table, or the list of sums, against the manifest.
func (f *fileCheck) text(plain browse.File) error {
	if plain.SizeBytes() > textMaxBytes {
		f.find("it holds %s, more than any that voltar writes", say.Size(plain.SizeBytes()))
		return nil
	}
	data, err := io.ReadAll(io.NewSectionReader(plain, 0, plain.SizeBytes()))
	if err != nil {
		return err
	}
	check := checkTable
	if f.kind.what == whatSums {
		check = checkSumList
	}
	for _, message := range check(string(data), f.v.backup.Manifest) {
		f.find("%s", message)
	}
	return nil
}
