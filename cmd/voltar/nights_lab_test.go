//go:build slow

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/browse/browsetest"
	"voltar/internal/lab"
	"voltar/report"
)

// changingTree is a folder whose data are in files of 256 KiB but for some small ones, as hosts have most of theirs in large files.
type changingTree struct {
	dir   string
	sizes []int // of its files, by their number
	made  int   // versions of files
}

func newChangingTree(t *testing.T) *changingTree {
	t.Helper()
	tree := &changingTree{dir: t.TempDir()}
	for i := range 300 {
		size := 256 << 10
		if i%3 == 0 {
			size = 8 << 10
		}
		tree.sizes = append(tree.sizes, size)
		tree.write(t, i)
	}
	return tree
}

// write gives a file another content.
func (c *changingTree) write(t *testing.T, i int) {
	t.Helper()
	c.made++
	data := make([]byte, c.sizes[i])
	_, _ = rand.NewChaCha8([32]byte(fmt.Appendf(nil, "%32d", c.made))).Read(data)
	for j := range data {
		data[j] &= 15
	}
	dir := filepath.Join(c.dir, fmt.Sprint(i/50))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, fmt.Sprint(i)), data)
}

// readers read an archive from its beginning to its end, each with a program of its own, and print the sum of what its files hold.
var readers = map[string]string{
	"GNU tar": `tar -xzOf "$1" | sha1sum`,
	"bsdtar":  `bsdtar -xOf "$1" | sha1sum`,
	"busybox": `busybox tar -xzOf "$1" | sha1sum`,
	"7-Zip":   `7zz x -so "$1" | tar -xOf - | sha1sum`,
	"Python": `python3 -c '
import hashlib, sys, tarfile
sum = hashlib.sha1()
for entry in (archive := tarfile.open(sys.argv[1], "r:gz")):
    if entry.isfile():
        sum.update(archive.extractfile(entry).read())
print(sum.hexdigest() + "  -")' "$1"`,
}

// Thirty nights in each of which one file in a hundred changes take at most 1.6 times the room of one, as the program is shipped. Every
// archive is one to all programs that read such, and any twenty of them can go.
func TestLabThirtyNightsTakeLittle(t *testing.T) {
	const nights = 30
	device := lab.Disk(t, 400*mib)
	lab.Do(t, "mkfs.xfs", "-q", device)
	tree := newChangingTree(t)
	s := newSite(t, "[retention]\nkeep_last = 40\n[[directory]]\nname = \"d\"\npath = \""+tree.dir+"\"\n")
	if err := os.Mkdir(s.backups, 0o700); err != nil {
		t.Fatal(err)
	}
	lab.Do(t, "mount", device, s.backups)
	t.Cleanup(func() { lab.Do(t, "umount", s.backups) })
	empty := usedBytes(t, s.backups)
	random := rand.New(rand.NewPCG(1, 2))
	var first int64
	for night := range nights {
		if night > 0 {
			for range len(tree.sizes) / 100 {
				tree.write(t, random.IntN(len(tree.sizes)))
			}
			unix.Sync()
		}
		now := browsetest.Night.AddDate(0, 0, night-nights)
		v := wantStatus(t, s.runAt(t, now, exitDone), "@directory/d", report.VolumeOK)
		if len(v.Warnings) > 0 {
			t.Errorf("night %d: %+v", night, v.Warnings)
		}
		if night == 0 {
			first = usedBytes(t, s.backups) - empty
		}
	}
	all := usedBytes(t, s.backups) - empty
	folders := s.backupsOf(t, "@directory/d")
	if len(folders) != nights {
		t.Fatalf("%d backups stand", len(folders))
	}
	t.Logf("one night takes %d bytes, %d take %d: %.2f times as much", first, nights, all, float64(all)/float64(first))
	if all > first*16/10 {
		t.Errorf("%d nights take %d bytes, one takes %d", nights, all, first)
	}
	checkSums(t, folders...)
	for _, folder := range folders {
		sums := map[string]string{}
		for name, script := range readers {
			sums[name] = lab.Do(t, "bash", "-euo", "pipefail", "-c", script, name, filepath.Join(folder, "d.tar.gz"))
		}
		for name, sum := range sums {
			if sum != sums["GNU tar"] || strings.HasPrefix(sum, "da39a3ee") {
				t.Errorf("%s: %s reads %s, GNU tar %s", folder, name, sum, sums["GNU tar"])
			}
		}
	}
	args := []string{"forget", "--config", s.config}
	goes := random.Perm(nights - 1)[:20]
	for _, i := range goes {
		args = append(args, "@directory/d@"+filepath.Base(folders[i]))
	}
	if code, out, errs := voltar(t, args...); code != exitDone || strings.Count(out, "removed") != len(goes) {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	lab.Do(t, "umount", s.backups)
	lab.Do(t, "mount", device, s.backups)
	if left := s.backupsOf(t, "@directory/d"); len(left) != nights-len(goes) {
		t.Errorf("%d backups are left", len(left))
	} else {
		checkSums(t, left...)
	}
	if code, out, errs := voltarAt(t, browsetest.Night.Add(time.Hour), "verify", "--full", "--all", "--config", s.config); code != exitDone {
		t.Errorf("%d %s %s", code, out, errs)
	}
}
