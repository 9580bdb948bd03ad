package archive

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
)

// lockedLog is a readLog for several goroutines.
type lockedLog struct {
	readLog
	mu sync.Mutex
}

func (l *lockedLog) ReadAt(p []byte, offset int64) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.readLog.ReadAt(p, offset)
}

// Of an image, ranges that are known not to have changed are not read, and the image is the one that reading all makes.
func TestUnchangedRangesOfAnImageAreNotRead(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 5))
		data := make([]byte, 6*ImageMemberBytes-rng.IntN(3)*1000)
		_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(data)
		clear(data[2*ImageMemberBytes : 3*ImageMemberBytes])
		before, _ := imageWithList(t, data, ImageOptions{Made: testDay})
		var changed [6]bool
		for i := range changed {
			if changed[i] = rng.IntN(3) == 0; changed[i] {
				data[i*ImageMemberBytes+rng.IntN(1000)]++
			}
		}
		fresh, _ := imageWithList(t, data, ImageOptions{Made: testDay})

		rotten := seed%2 == 1 && !changed[1]
		var failed failures
		if rotten {
			index := before.index
			before = made{archive: bytes.Clone(before.archive), index: index}
			before.archive[ImageMemberBytes+ImageMemberBytes/2] ^= 1 // in the second member: such data is stored as it is
		}
		source := &lockedLog{readLog: readLog{ReaderAt: bytes.NewReader(data)}}
		var list bytes.Buffer
		image, stats := imageOf(t, source, int64(len(data)), ImageOptions{
			Made: testDay, Members: &list, Previous: previousOf(t, before, failed.add),
			Unchanged: func(r Range) bool { return !changed[r.OffsetBytes/ImageMemberBytes] },
		})
		if !bytes.Equal(image, fresh.archive) || !bytes.Equal(list.Bytes(), fresh.index) {
			t.Errorf("seed %d: another image or list", seed)
		}
		read := map[int64]int64{}
		for _, r := range source.read {
			read[r.OffsetBytes/ImageMemberBytes] += r.LengthBytes
		}
		unread := int64(0)
		for i := range changed {
			mustRead := changed[i] || rotten && i == 1
			if (read[int64(i)] > 0) != mustRead {
				t.Errorf("seed %d: %d bytes of member %d are read, changed %t", seed, read[int64(i)], i, changed[i])
			}
			if !mustRead {
				unread += int64(min(ImageMemberBytes, len(data)-i*ImageMemberBytes))
			}
		}
		if stats.UnreadBytes != unread || stats.UnreadBytes+stats.ReadBytes != int64(len(data)) {
			t.Errorf("seed %d: %d bytes of %d are not read, the stats say %+v", seed, unread, len(data), stats)
		}
		if rotten != (len(failed.all) == 1) || rotten && !errors.Is(failed.all[0], ErrRotten) {
			t.Errorf("seed %d: rotten: %t, %v", seed, rotten, failed.all)
		}
	}
}

// The archive of a tree that did not change is rewritten to the byte, or not at all.
func TestRewrittenArchive(t *testing.T) {
	dir := t.TempDir()
	for i := range 5 {
		writeFile(t, filepath.Join(dir, fmt.Sprint("file", i)), noise(fmt.Sprint(i), 700<<10), 0o600)
	}
	whole := writeTreeOf(t, dir, TreeOptions{Made: testDay})
	rewrite := func(archive []byte, today Day, failed func(error)) ([]byte, Carried, error) {
		t.Helper()
		var out bytes.Buffer
		p, err := ReadPrevious(t.Context(), bytes.NewReader(whole.index), fileOf(archive), int64(len(archive)),
			PreviousOptions{Today: today, FreshDays: 30, Rewrite: true, Failed: failed})
		must(t, err)
		carried, err := p.Rewrite(t.Context(), &out)
		return out.Bytes(), carried, err
	}
	for _, age := range []Day{0, 16, 29} { // also when half of the days are over
		out, carried, err := rewrite(whole.archive, testDay+age, unexpectedly(t))
		if err != nil || !bytes.Equal(out, whole.archive) || carried.Members != whole.stats.Members || carried.Bytes != int64(len(out)) {
			t.Errorf("at the age of %d days: %v, carried %+v of %d bytes", age, err, carried, len(whole.archive))
		}
	}
	if out, _, err := rewrite(whole.archive, testDay+30, unexpectedly(t)); !errors.Is(err, ErrNotWhole) || len(out) > 0 {
		t.Errorf("old members are taken over: %v, %d bytes", err, len(out))
	}
	for _, at := range []int{0, 23, 5000, len(whole.archive) - 1} {
		rotten := bytes.Clone(whole.archive)
		rotten[at] ^= 8
		var failed failures
		if _, _, err := rewrite(rotten, testDay+1, failed.add); !errors.Is(err, ErrRotten) || len(failed.all) != 1 {
			t.Errorf("rotten at %d: %v, %v", at, err, failed.all)
		}
	}
	var none *Previous
	if _, err := none.Rewrite(t.Context(), &bytes.Buffer{}); !errors.Is(err, ErrNotWhole) {
		t.Errorf("nothing: %v", err)
	}
}
