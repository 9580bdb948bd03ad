// Package failing holds lab tests that fail, each in its own way, so that the lab can be seen to report it.
package failing

import (
	"fmt"
	"os"
	"testing"

	"voltar/internal/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m, lab.Options{MemoryBytes: 512 << 20})) }

func TestOnTheHost(t *testing.T) {
	if lab.Inside() {
		t.Error("an ordinary test ran in the lab")
	}
}

func TestLabPasses(t *testing.T) {
	if !lab.Inside() {
		t.Fatal("a lab test ran on the host")
	}
	fmt.Print("written without a line end")
	t.Run("sub/with slash", func(t *testing.T) { t.Log("from the subtest") })
	t.Run("skipped", func(t *testing.T) { t.Skip("the reason") })
}

func TestLabFails(t *testing.T) {
	t.Run("inner", func(t *testing.T) { t.Error("the inner failure") })
	t.Run("good", func(*testing.T) {})
}

// TestLabLeaks leaves one thing of each kind that the leak check knows.
func TestLabLeaks(t *testing.T) {
	if _, err := os.Create("/tmp/left.img"); err != nil {
		t.Fatal(err)
	}
	lab.VG(t, "vg1", 64<<20)
	lab.LV(t, "vg1", "origin", 8<<20)
	lab.Do(t, "lvcreate", "--snapshot", "--size", "8M", "--name", "leftsnap", "vg1/origin")
	lab.Do(t, "truncate", "-s", "64M", "/tmp/left.img")
	device := lab.Do(t, "losetup", "--find", "--show", "/tmp/left.img")
	device = device[:len(device)-1]
	lab.Do(t, "vgcreate", "--yes", "leftvg", device)
	lab.LV(t, "leftvg", "leftlv", 32<<20)
	lab.Do(t, "mkfs.ext4", "-q", "/dev/leftvg/leftlv")
	lab.Do(t, "mkdir", "/tmp/leftmount")
	lab.Do(t, "unshare", "--mount", "--propagation", "private", "sh", "-c",
		"mount /dev/leftvg/leftlv /tmp/leftmount && { sleep 600 >/dev/null 2>&1 & }")
}

func TestLabPanics(*testing.T) {
	panic("the inner panic")
}

func TestLabIsLeftAlone(*testing.T) {}

// TestLabExits ends the process that it runs in.
func TestLabExits(*testing.T) {
	os.Exit(7)
}

// TestLabStops switches the machine off.
func TestLabStops(t *testing.T) {
	lab.Do(t, "busybox", "poweroff", "-f")
}

func TestLabNeverRuns(*testing.T) {}
