package mount

import (
	"os"
	"path/filepath"
	"testing"
)

func TestErrorInode(t *testing.T) {
	for _, c := range []struct {
		message string
		inode   uint64
		isError bool
	}{
		{"EXT4-fs error (device dm-3): htree_dirblock_to_tree:1109: inode #12: block 1549: comm voltar: bad entry in directory", 12, true},
		{"EXT4-fs error (device dm-3): ext4_journal_check_start:83: Detected aborted journal", 0, true},
		{"EXT4-fs error (device dm-3): x:1: inode #twelve: y", 0, true},
		{"EXT4-fs (dm-3): mounted filesystem with ordered data mode", 0, false},
		{"EXT4-fs warning (device dm-3): x: inode #12: y", 0, false},
	} {
		if inode, isError := errorInode(c.message); inode != c.inode || isError != c.isError {
			t.Errorf("%q: %d %v", c.message, inode, isError)
		}
	}
}

func TestErrorsAreThoseSinceTheMount(t *testing.T) {
	file := filepath.Join(t.TempDir(), "errors_count")
	set := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := &Mount{device: "d", kernel: kernelLog{fd: -1}, errors: errorCounter{file}, errorsBefore: 7}
	set("7\n")
	if found, err := m.Errors(); err != nil || len(found) != 0 {
		t.Errorf("none since: %v %v", found, err)
	}
	set("9\n")
	if found, err := m.Errors(); err != nil || len(found) != 1 || found[0].Message != "the kernel counts 2 errors" {
		t.Errorf("two since: %v %v", found, err)
	}
	set("many\n")
	if _, err := m.Errors(); err == nil {
		t.Error("no error for a counter that cannot be read")
	}
	if found, err := (&Mount{}).Errors(); err != nil || found != nil {
		t.Errorf("a driver without a counter: %v %v", found, err)
	}
}
