package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// imageHoleBytes is the least stretch of zeros that is left out of an image as it is written.
const imageHoleBytes = 64 << 10

// ImageWriter takes an image. One that has a method `PunchHole(offset, lengthBytes int64) error` is told of the zeros that
// are left out, and has to see to it that they read as zeros.
type ImageWriter interface {
	io.WriterAt
}

type holePuncher interface {
	PunchHole(offset, lengthBytes int64) error
}

// ReadImageOptions of ReadImage.
type ReadImageOptions struct {
	// SizeBytes is what the image must inflate to; more or less is an error. -1 takes any.
	SizeBytes int64
	// SkipZeros leaves zeros out, 64 KiB or more at a time: for a target that is known to hold zeros, such as a new
	// sparse file, or that has a method PunchHole.
	SkipZeros bool
	// OnProgress is called after each piece with the bytes of the image that are done.
	OnProgress func(doneBytes int64)
}

// ReadImageStats says what ReadImage did.
type ReadImageStats struct {
	SizeBytes    int64 // of the image
	WrittenBytes int64
	ZeroBytes    int64         // left out
	Damage       []MemberError // with a Reader that keeps going: what could not be read, which was not written
}

// ReadImage writes the image that r reads to dst, each byte at its own offset. With a Reader that keeps going, parts that
// cannot be read are left as they are in dst, as long as it is known how long they are, and the error wraps
// ErrIncomplete.
func ReadImage(ctx context.Context, r *Reader, dst ImageWriter, opts ReadImageOptions) (ReadImageStats, error) {
	var stats ReadImageStats
	punch, _ := dst.(holePuncher)
	for {
		if ctx.Err() != nil {
			return stats, fmt.Errorf("read image: %w", context.Cause(ctx))
		}
		offset := r.offset
		p, zeros, err := r.nextOrZeros(imageHoleBytes - offset%imageHoleBytes)
		var damage *MemberError
		switch {
		case err == io.EOF:
			return stats, stats.check(opts)
		case errors.As(err, &damage) && r.err == nil && r.exact:
			stats.Damage = append(stats.Damage, *damage)
			stats.SizeBytes = r.offset
			continue
		case err != nil:
			return stats, fmt.Errorf("read image at byte %d: %w", offset, err)
		}
		stats.SizeBytes = r.offset
		if opts.SizeBytes >= 0 && r.offset > opts.SizeBytes {
			return stats, fmt.Errorf("read image: %w: more than the %d bytes of its extent", ErrExpansion, opts.SizeBytes)
		}
		if err := stats.put(dst, punch, p, zeros, offset, opts); err != nil {
			return stats, fmt.Errorf("write image at byte %d: %w", offset, err)
		}
		if opts.OnProgress != nil {
			opts.OnProgress(r.offset)
		}
	}
}

func (s *ReadImageStats) check(opts ReadImageOptions) error {
	if len(s.Damage) > 0 {
		return fmt.Errorf("read image: %w: %d damaged members, the first: %w", ErrIncomplete, len(s.Damage), &s.Damage[0])
	}
	if opts.SizeBytes >= 0 && s.SizeBytes != opts.SizeBytes {
		return fmt.Errorf("read image: cannot find more than %d bytes of %d: %w",
			s.SizeBytes, opts.SizeBytes, io.ErrUnexpectedEOF)
	}
	return nil
}

// put writes a piece, or leaves it out. Zeros says that it is known to be nothing else.
func (s *ReadImageStats) put(
	dst io.WriterAt, punch holePuncher, p []byte, zeros bool, offset int64, opts ReadImageOptions,
) error {
	if opts.SkipZeros && (zeros || isZero(p)) {
		s.ZeroBytes += int64(len(p))
		if punch != nil {
			return punch.PunchHole(offset, int64(len(p)))
		}
		return nil
	}
	s.WrittenBytes += int64(len(p))
	_, err := dst.WriteAt(p, offset)
	return err
}
