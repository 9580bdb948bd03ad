package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"voltar/archive"
	"voltar/internal/hostcmd"
	"voltar/internal/say"
	"voltar/partmap"
)

// mapTarget makes a map until the restore lets go of it.
func (w *work) mapTarget(ctx context.Context, target partmap.Target) (string, error) {
	mapped, undo, err := w.owner.Map(ctx, target)
	if err != nil {
		return "", err
	}
	w.held.Push(undo)
	return mapped.Path, nil
}

// writeImage writes an extent that is stored as it was.
type writeImage struct{ piece piece }

func (s *writeImage) Describe() []string {
	return []string{fmt.Sprintf("%s: write the image %s (%s at byte %d)", s.piece.label(), s.piece.Archive,
		say.Size(s.piece.SizeBytes), s.piece.OffsetBytes)}
}

func (s *writeImage) do(ctx context.Context, w *work) (err error) {
	base := w.held.Len()
	defer func() { err = errors.Join(err, w.held.ReleaseTo(ctx, base)) }()
	path, offset := w.device, s.piece.OffsetBytes
	if s.piece.LV != nil {
		if path, err = w.mapPiece(ctx, s.piece); err != nil {
			return fmt.Errorf("%s: %w", s.piece.label(), err)
		}
		offset = 0
	}
	r, err := w.plan.source.archive(ctx, s.piece.Archive, archive.ReaderOptions{
		MaxBytes: s.piece.SizeBytes, KeepGoing: w.plan.keepGoing,
	})
	if err != nil {
		return err
	}
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return r.finish(err)
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	writer := &extentWriter{device: device, offsetBytes: offset, zeros: w.zeros}
	done := int64(0)
	stats, err := archive.ReadImage(ctx, r.Reader, writer, archive.ReadImageOptions{
		SizeBytes: s.piece.SizeBytes, SkipZeros: true,
		OnProgress: func(doneBytes int64) {
			w.progress(doneBytes - done)
			done = doneBytes
		},
	})
	for _, d := range stats.Damage {
		w.lose("%s: %v", s.piece.label(), &d)
	}
	var rest *archive.MemberError // from which on nothing can be read
	switch {
	case w.plan.keepGoing && errors.Is(err, archive.ErrIncomplete):
		err = nil
	case w.plan.keepGoing && errors.As(err, &rest):
		w.lose("%s: %v", s.piece.label(), rest)
		err = nil
	}
	if err := w.tolerate(r.finish(err)); err != nil {
		return fmt.Errorf("%s: %w", s.piece.label(), err)
	}
	w.result.Bytes += stats.WrittenBytes
	w.result.Parts = append(w.result.Parts, PartResult{Name: s.piece.Name, As: "image", Bytes: stats.SizeBytes})
	return device.Sync()
}

// tolerate counts a wrong sum as a loss where the restore is to keep going.
func (w *work) tolerate(err error) error {
	if w.plan.keepGoing && errors.Is(err, ErrSums) {
		w.lose("%v", err)
		return nil
	}
	return err
}

// extentWriter writes at an offset of a device, and zeros in the way that costs least.
type extentWriter struct {
	device      *os.File
	offsetBytes int64
	zeros       bool
}

func (e *extentWriter) WriteAt(p []byte, offset int64) (int, error) {
	return e.device.WriteAt(p, e.offsetBytes+offset)
}

// PunchHole sees to it that a range reads as zeros.
func (e *extentWriter) PunchHole(offset, lengthBytes int64) error {
	if e.zeros {
		return nil
	}
	return zeroRange(e.device, e.offsetBytes+offset, lengthBytes)
}

// zeroRange has the device write zeros where it can do so by itself, and writes them otherwise.
func zeroRange(device *os.File, offsetBytes, lengthBytes int64) error {
	const mode = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
	err := unix.Fallocate(int(device.Fd()), mode, offsetBytes, lengthBytes)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("cannot write zeros to %s: %w", device.Name(), err)
	}
	_, err = io.CopyN(io.NewOffsetWriter(device, offsetBytes), zeroReader{}, lengthBytes)
	return err
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// clearTarget removes what an existing target held, as far as anything could find it again: both ends of it, where
// tables and superblocks lie. A thin volume gives all its space back and then reads as zeros, for as long as its pool
// fills the blocks with zeros that it takes anew.
type clearTarget struct {
	device    string
	sizeBytes int64
	thin      bool
	zeroes    bool // the pool fills new blocks with zeros
}

// clearBytes is how much at each end is cleared.
const clearBytes = 1 << 20

func (s *clearTarget) Describe() []string {
	if s.thin {
		return []string{fmt.Sprintf("discard all of %s", s.device)}
	}
	return []string{fmt.Sprintf("write zeros to the first and last %s of %s", say.Size(clearBytes), s.device)}
}

func (s *clearTarget) do(ctx context.Context, w *work) error {
	if s.thin {
		_, err := w.Runner.Run(ctx, hostcmd.Cmd{Name: "blkdiscard", Args: []string{"--force", s.device}, Timeout: -1})
		if err == nil && s.zeroes {
			w.zeros = true
			return nil
		}
		if err != nil {
			w.note("the pool takes no space back, so that zeros are written instead: %v", err)
		}
	}
	return clearEnds(s.device, 0, s.sizeBytes, clearBytes)
}

// clearEnds writes zeros at both ends of a part of a device.
func clearEnds(device string, offsetBytes, sizeBytes, endBytes int64) (err error) {
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	endBytes = min(endBytes, sizeBytes)
	if err := zeroRange(file, offsetBytes, endBytes); err != nil {
		return err
	}
	if err := zeroRange(file, offsetBytes+sizeBytes-endBytes, endBytes); err != nil {
		return err
	}
	return file.Sync()
}
