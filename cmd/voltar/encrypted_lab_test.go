package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"voltar/internal/lab"
	"voltar/internal/store/s3/s3test"
)

// ageKey makes a pair of keys with age itself, and returns the file of the secret one and the public one.
func ageKey(t *testing.T) (file, public string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "key.txt")
	lab.Do(t, "age-keygen", "-o", file)
	return file, strings.TrimSpace(lab.Do(t, "age-keygen", "-y", file))
}

// One run stores in the open on one destination, and encrypted on a disk and in a bucket. What is encrypted can be
// checked without the key, and comes back with it: from the bucket, and by hand with Debian's age.
func TestLabEncryptedDestinations(t *testing.T) {
	t.Setenv("VOLTAR_TEST_S3_SECRET", s3test.SecretKey)
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "bucket", s3test.Bucket{})
	key, public := ageKey(t)
	wrong, _ := ageKey(t)
	before := makeGuests(t, "vg", "mbr", "unknown")
	s := restoreSite(t)
	vault := filepath.Join(s.dir, "vault")
	s.append(t, `[[destination]]
name = "vault"
type = "disk"
path = "`+vault+`"
require_mount = "none"
recipients = ["`+public+`"]
`+bucketDestination("offsite", server.Endpoint, "bucket")+`
recipients = ["`+public+`"]
`)
	s.run(t, 0)
	folders, err := filepath.Glob(filepath.Join(vault, "volume-host/vg/*/*Z"))
	if err != nil || len(folders) != 2 {
		t.Fatalf("%q, %v", folders, err)
	}
	for _, folder := range folders {
		lab.Do(t, "sh", "-c", "cd "+folder+" && sha1sum --check --strict --quiet *.checksum")
		for _, name := range filesIn(t, folder) {
			if open := name == "RESTORE.txt" || name == "manifest.json" || strings.HasSuffix(name, ".checksum"); open == strings.HasSuffix(name, ".age") {
				t.Errorf("%s in %s", name, folder)
			}
		}
	}

	for _, c := range []struct {
		args []string
		code int // -1 for any
		out  string
		errs string
	}{
		{[]string{"verify", "--all", "--full", "--from", "vault"}, 0, "was not checked: give --identity", ""},
		{[]string{"verify", "--all", "--full", "--from", "offsite", "--identity", key}, 0, "good", ""},
		{[]string{"list"}, 0, "encrypted", ""},
		{[]string{"restore", "vg/mbr", "--from", "vault"}, 2, "", "encrypted to " + public + "\nhint: "},
		{[]string{"restore", "vg/mbr", "--from", "offsite", "--identity", wrong}, 2, "", "none of the identities"},
		{[]string{"cat", "vg/mbr", "p5:/etc/fstab", "--from", "offsite", "--identity", key}, 0, "UUID=x / ext4\n", ""},
		{[]string{"check"}, -1, "offsite: encrypted to " + public, ""},
	} {
		code, out, errs := voltar(t, append(c.args, "--config", s.config)...)
		if c.code >= 0 && code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.errs) {
			t.Errorf("%q: exit code %d\n%s\n%s", c.args, code, out, errs)
		}
	}

	damagedSealed(t, s, filepath.Join(folders[0], "mbr.p5.tar.gz.age"), key, public)

	again := func(name string, restore func()) {
		lab.Do(t, "lvremove", "--force", "vg/"+name)
		restore()
	}
	again("mbr", func() { s.restore(t, 0, "vg/mbr", "--from", "offsite", "--identity", wrong, "--identity", key) })
	before["mbr"].compare(t, diskFacts(t, "/dev/vg/mbr"))
	again("unknown", func() { s.restore(t, 0, "vg/unknown", "--from", "offsite", "--identity", key, "--verify=stream") })
	before["unknown"].compare(t, diskFacts(t, "/dev/vg/unknown"))
	t.Setenv("IDENTITY", key)
	again("mbr", func() { byHand(t, folders[0], "") })
	withoutFlags(before["mbr"]).compare(t, withoutFlags(diskFacts(t, "/dev/vg/mbr")))
}

// damagedSealed spoils an encrypted archive in every way that a store can: nothing of it is restored unless that is asked for,
// and then only what is as it was.
func damagedSealed(t *testing.T, s site, archive, key, public string) {
	t.Helper()
	good, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(strings.Replace(archive, "p5", "p6", 1))
	if err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "again.age")
	lab.Do(t, "sh", "-c", "age --decrypt --identity "+key+" "+archive+" | age --recipient "+public+" --output "+again)
	sealedAgain, err := os.ReadFile(again)
	if err != nil || len(sealedAgain) != len(good) {
		t.Fatalf("%d bytes of %d, %v", len(sealedAgain), len(good), err)
	}
	flipped := slices.Clone(good)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		data []byte
		errs string
	}{
		"cut short":    {good[:len(good)/2], "by the manifest"},
		"flipped":      {flipped, "the encrypted file is damaged"},
		"swapped":      {other, "the manifest"}, // for its length or, where that is the same, for its sum
		"sealed again": {sealedAgain, "the sum of mbr.p5.tar.gz.age is not the one in the manifest"},
	} {
		writeFile(t, archive, c.data)
		target := filepath.Join(t.TempDir(), "out")
		_, errs := s.restore(t, 1, "vg/mbr", "--from", "vault", "--identity", key, "--to-dir", target)
		if _, err := os.Stat(target); err == nil || !strings.Contains(errs, c.errs) {
			t.Errorf("%s: %v\n%s", name, err, errs)
		}
	}
	for name, damage := range map[string]func(){
		"flipped":   func() { writeFile(t, archive, flipped) },
		"cut short": func() { writeFile(t, archive, good[:len(good)/2]) },
		"gone":      func() { lab.Do(t, "rm", archive) },
	} {
		damage()
		target := filepath.Join(t.TempDir(), "out")
		out, _ := s.restore(t, 3, "vg/mbr", "--from", "vault", "--identity", key, "--to-dir", target, "--keep-going")
		if _, err := os.Stat(filepath.Join(target, "p6/etc/fstab")); err != nil || !strings.Contains(out, "lost: ") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		writeFile(t, archive, good)
	}
}

// filesIn lists a folder.
func filesIn(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
