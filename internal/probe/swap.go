package probe

import (
	"bytes"
	"encoding/binary"
	"io"
)

// Swap is the header of a swap space: union swap_header in the kernel's include/linux/swap.h. The signature is in the
// last ten bytes of the first page, so the page size shows in its place.
type Swap struct {
	PageBytes int64  `param:"page_bytes"`
	Version   uint32 `param:"version"`
	BigEndian bool   `param:"big_endian"` // of another machine than most
}

const swapInfoOffset = 1024

func readSwap(r *io.SectionReader) (*Filesystem, error) {
	signature := make([]byte, 10)
	for _, pageBytes := range []int64{4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10} {
		if _, err := r.ReadAt(signature, pageBytes-10); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		if bytes.Equal(signature, []byte("SWAPSPACE2")) {
			return readSwapInfo(r, pageBytes)
		}
	}
	return nil, invalid("no SWAPSPACE2 at the end of the first page")
}

func readSwapInfo(r *io.SectionReader, pageBytes int64) (*Filesystem, error) {
	info := make([]byte, 44) // version, last page, bad pages, UUID, label
	if _, err := r.ReadAt(info, swapInfoOffset); err != nil {
		return nil, err
	}
	swap := &Swap{PageBytes: pageBytes, Version: binary.LittleEndian.Uint32(info)}
	lastPage := binary.LittleEndian.Uint32(info[4:])
	if swap.Version != 1 {
		swap.Version, swap.BigEndian = binary.BigEndian.Uint32(info), true
		lastPage = binary.BigEndian.Uint32(info[4:])
	}
	fs := &Filesystem{
		UUID: uuidString(info[12:28]), Label: cString(info[28:44]),
		SizeBytes: (int64(lastPage) + 1) * pageBytes, BlockBytes: pageBytes,
		FreeBytes: -1, State: StateClean, Swap: swap,
	}
	return fs, fs.validate()
}

func (s *Swap) validate() error {
	if s.Version != 1 || !isPowerOfTwo(s.PageBytes, 4<<10, 64<<10) {
		return invalid("version %d with pages of %d bytes", s.Version, s.PageBytes)
	}
	return nil
}

func (f *Filesystem) mkfsSwap(opts MkfsOptions) (Recipe, error) {
	sizeBytes := f.SizeBytes
	if opts.SizeBytes != 0 {
		sizeBytes = opts.SizeBytes
	}
	argv := []string{"mkswap", "-f", "-v1", "-p", itoa(f.Swap.PageBytes)}
	var recipe Recipe
	if f.UUID != "" {
		argv = append(argv, "-U", f.UUID)
	} else {
		recipe.Notes = append(recipe.Notes, "the original has no UUID; mkswap gives it one")
	}
	if f.Label != "" {
		argv = append(argv, "-L", f.Label)
	}
	if f.Swap.BigEndian {
		recipe.Notes = append(recipe.Notes, "the original is big-endian; mkswap writes the byte order of this machine")
	}
	argv = append(argv, Device, itoa(sizeBytes/1024)) // in units of 1 KiB
	recipe.Commands = [][]string{argv}
	return recipe, nil
}
