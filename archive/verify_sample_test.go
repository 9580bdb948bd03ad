package archive

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recut packs a tar stream into members of up to mostBytes, cut anywhere.
func recut(stream []byte, rng *rand.Rand, mostBytes int) (archive []byte) {
	for len(stream) > 0 {
		n := min(1+rng.IntN(mostBytes), len(stream))
		archive = append(archive, packMember(stream[:n], 1)...)
		stream = stream[n:]
	}
	return archive
}

// What a sample chooses and what it leaves out must never look like damage: heads of files whose data is not chosen, headers
// and sparse maps that are cut through.
func TestSampleOfAGoodArchiveIsGood(t *testing.T) {
	dir := t.TempDir()
	for i := range 20 {
		name := filepath.Join(dir, fmt.Sprintf("d%d", i%3), strings.Repeat("n", 10*i)+"f")
		writeFile(t, name, noise(name, 1500*i), 0o644)
	}
	holes, err := os.Create(filepath.Join(dir, "holes"))
	must(t, err)
	for i := range int64(50) {
		_, err := holes.WriteAt(noise("data", 4096), i*16384)
		must(t, err)
	}
	must(t, holes.Truncate(4<<20))
	must(t, holes.Close())
	stream := gunzip(t, writeTreeOf(t, dir, TreeOptions{}).archive)
	ctx := context.Background()
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 1))
		archive := recut(stream, rng, []int{2000, 9000, 100_000}[seed%3])
		var text bytes.Buffer
		offset, err := RebuildIndex(ctx, bytes.NewReader(archive), int64(len(archive)), &text)
		must(t, err)
		index, err := OpenIndex(ctx, bytes.NewReader(text.Bytes()), int64(text.Len()), offset)
		must(t, err)
		for range 5 {
			opts := VerifyOptions{Level: VerifySample, SamplePercent: 1 + rng.IntN(100), Seed: rng.Uint64()}
			got, err := Verify(ctx, bytes.NewReader(archive), int64(len(archive)), index, opts)
			if err != nil || !got.Good() || len(got.Lost) > 0 {
				t.Fatalf("cuts %d, %d %% with seed %d: findings %q, lost %v, %v", seed, opts.SamplePercent, opts.Seed, got.Findings, got.Lost, err)
			}
		}
		members, err := index.Members(ctx)
		must(t, err)
		m := members[rng.IntN(len(members))]
		flipped := bytes.Clone(archive)
		flipped[m.Offset+m.LengthBytes-8] ^= 0x10 // of its checksum: not every compressed bit says something
		all := VerifyOptions{Level: VerifySample, SamplePercent: 100}
		if got, err := Verify(ctx, bytes.NewReader(flipped), int64(len(flipped)), index, all); err == nil && got.Good() {
			t.Errorf("cuts %d: a flipped bit is not found", seed)
		}
	}
}
