package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"voltar/internal/lab"
	"voltar/internal/store/s3/s3test"
)

// mounted starts `voltar mount`, and waits until something is mounted.
func mounted(t *testing.T, folder string, args ...string) *process {
	t.Helper()
	if err := os.Mkdir(folder, 0o755); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	p := start(t, append(append([]string{"mount"}, args...), folder)...)
	for end := time.Now().Add(lab.Patience(time.Minute)); !isMounted(t, folder); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.signal(t, syscall.SIGKILL)
			t.Fatalf("%q: nothing is mounted: exit code %d\n%s", args, p.wait(t), &p.stderr)
		}
	}
	return p
}

func isMounted(t *testing.T, folder string) bool {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(mounts), " "+folder+" ")
}

// A guest's files with all that they can have.
const mountedTree = `set -e
cd "$1"
mkdir -p etc/deep/er 'odd name' home
echo root:x:0:0 >etc/passwd
ln etc/passwd etc/deep/passwd
ln etc/passwd home/passwd
ln -s ../etc/passwd home/link
ln -s /nowhere "odd name/$(printf 'b\377d')"
mknod null c 1 3
mknod disk b 253 300
mkfifo fifo
chown 1234:4321 home
chmod 1777 home
cp /proc/self/exe home/setuid
chmod 6755 home/setuid
setfattr -n user.note -v kept etc/passwd
setfattr -n trusted.secret -v t etc/deep
setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= home/setuid
setfattr -n system.posix_acl_access -v 0sAgAAAAEABgD/////AgAEAOgDAAAEAAQA/////xAABAD/////IAAEAP////8= etc/deep/er
head -c 9000000 /dev/urandom >home/random
truncate -s 20M home/sparse
echo middle | dd of=home/sparse bs=1M seek=7 conv=notrunc 2>/dev/null
mkdir many
for i in 1 2 3 4 5 6 7 8 9; do echo $i >many/$i; done
touch -d '1969-12-31 23:59:58.123456789 UTC' etc/deep
touch -h -d '2105-01-02 03:04:05.987654321 UTC' home/link
`

// Both are compared by what the usual tools say of them. How many names a folder has is each filesystem's own business.
const mountedCompare = `set -e
cd /
diff -r --no-dereference -x fifo -x lost+found "$1" "$2"
shown() {
	find . -name lost+found -prune -o -type d -printf '%P %y %m %U %G %T@\n' \
		-o -printf '%P %y %m %n %s %U %G %T@ %C@ %l\n' -exec stat -c '%t:%T' {} ';'
	getfattr -R -h -d -m - -e hex .
}
(cd "$1" && shown | sort) >/tmp/original
(cd "$2" && shown | sort) >/tmp/mounted
diff -u /tmp/original /tmp/mounted
grep -q user.note /tmp/mounted && grep -q trusted.secret /tmp/mounted && grep -q security.capability /tmp/mounted && grep -q posix_acl /tmp/mounted
rsync -aHAXn --delete --checksum --itemize-changes --exclude lost+found "$1/" "$2/" >/tmp/changes
diff /dev/null /tmp/changes
test "$(find "$2" -samefile "$2/etc/passwd" | wc -l)" = 3
test "$(du -k "$2/home/sparse" | cut -f1)" -lt 2000
cp --sparse=never "$2/home/random" /tmp/random
cmp /tmp/random "$1/home/random"
`

// What is mounted is what was backed up, to all tools; from a disk, and encrypted from a bucket. An image is a device. Nothing is left
// however the mount ends.
func TestLabMountShowsWhatWasBackedUp(t *testing.T) {
	t.Setenv("VOLTAR_TEST_S3_SECRET", s3test.SecretKey)
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "bucket", s3test.Bucket{})
	key, public := ageKey(t)
	lab.VG(t, "vg", 400<<20)
	files, image := lab.LV(t, "vg", "files", 128<<20), lab.LV(t, "vg", "image", 32<<20)
	makeExt(t, image)
	lab.Do(t, "sh", "-c", "mount "+image+" /mnt && echo an image >/mnt/inside && umount /mnt")
	makeExt(t, files)
	original := lab.Mount(t, files, "defaults")
	lab.Do(t, "sh", "-c", mountedTree, "sh", original)
	s := newSite(t, bucketDestination("offsite", server.Endpoint, "bucket")+`
recipients = ["`+public+`"]
[[volume]]
match = "vg/image"
as = "image"
`)
	s.run(t, 0)

	at := filepath.Join(t.TempDir(), "mnt")
	p := mounted(t, at, "--all", "--from", "disk", "--config", s.config)
	lab.Do(t, "sh", "-c", mountedCompare, "sh", original, at+"/vg/files/latest/files")
	loop := strings.TrimSpace(lab.Do(t, "losetup", "-r", "-f", "--show", at+"/vg/image/latest/volume.img"))
	inside := filepath.Join(t.TempDir(), "inside")
	if err := os.Mkdir(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	lab.Do(t, "mount", "-o", "ro", loop, inside)
	lab.Do(t, "cmp", loop, image)
	if data, err := os.ReadFile(inside + "/inside"); err != nil || string(data) != "an image\n" {
		t.Errorf("%q %v", data, err)
	}
	lab.Do(t, "umount", inside)
	lab.Do(t, "losetup", "-d", loop)
	if out := lab.Do(t, "sh", "-c", "touch "+at+"/x "+at+"/vg/files/latest/files/etc/passwd 2>&1 || :"); strings.Count(out, "Read-only file system") != 2 {
		t.Errorf("what is mounted can be written: %s", out)
	}
	if options := lab.Do(t, "findmnt", "-n", "-o", "OPTIONS", at); !strings.Contains(options, "ro,nosuid,nodev,noexec") {
		t.Errorf("it is mounted with %s", options)
	}
	if code, _, errs := voltar(t, "mount", "--all", "--config", s.config, at); code != 1 || !strings.Contains(errs, "something is mounted there") || !strings.Contains(errs, "hint: `umount "+at+"`") {
		t.Errorf("a second time: %d %s", code, errs)
	}
	lab.Do(t, "umount", at)
	if code := p.wait(t); code != 0 || isMounted(t, at) || !strings.Contains(p.stdout.String(), "To end: Ctrl-C, or `umount "+at+"`") {
		t.Errorf("ended by umount: exit code %d\n%s%s", code, &p.stdout, &p.stderr)
	}

	p = mounted(t, at, "files@2", "--from", "offsite", "--identity", key, "--config", s.config)
	lab.Do(t, "sh", "-c", mountedCompare, "sh", original, at+"/files")
	busy, err := os.Open(at + "/files/home/random")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t); code != exitInterrupted || isMounted(t, at) || !strings.Contains(p.stderr.String(), "is in use") {
		t.Errorf("ended by a signal: exit code %d\n%s", code, &p.stderr)
	}

	if err := os.Rename("/dev/fuse", "/dev/fuse.away"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.Rename("/dev/fuse.away", "/dev/fuse"); err != nil {
			t.Error(err)
		}
	}()
	if code, _, errs := voltar(t, "mount", "--all", "--config", s.config, at); code != 1 || !strings.Contains(errs, "hint: ") || !strings.Contains(errs, "modprobe fuse") {
		t.Errorf("without FUSE: %d %s", code, errs)
	}
}
