package lvm

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/hostcmd"
	"voltar/internal/say"
)

func TestBlockedDevices(t *testing.T) {
	h := newFakeHost(t)
	if got := h.BlockedDevices(); len(got) > 0 {
		t.Errorf("on a host without devices: %q", got)
	}
	for name, text := range map[string]string{
		"sda/device/state": "running", "sda/inflight": "       0        0", "sda/stat": "1 0 0 0 2",
		"sdb/device/state": "transport-offline", "sdb/inflight": "1 0", "sdb/stat": "1 0 0 0 2",
		"nvme0n1/device/state": "live",
		"vdc/inflight":         "0 3", "vdc/stat": "1 0 0 0 2",
		"dm-0/dm/suspended": "1", "dm-0/dm/name": "vg0-data",
		"dm-1/dm/suspended": "0", "dm-1/dm/name": "mpatha", "dm-1/inflight": "1 0", "dm-1/stat": "7 0 0 0 7", "dm-1/slaves/sdb": "",
		"dm-2/dm/suspended": "0", "dm-2/dm/name": "pathless", "dm-2/inflight": "1 0", "dm-2/stat": "7 0 0 0 7",
	} {
		h.write("sys/block/"+name, text+"\n")
	}
	h.write("sys/class/iscsi_session/session1/state", "FAILED\n")
	h.write("sys/class/iscsi_session/session1/targetname", "iqn.2000-01.example:one\n")
	h.write("sys/class/iscsi_session/session2/state", "LOGGED_IN\n")
	want := []string{"dm-0 (vg0-data) is suspended", "dm-2 (pathless) answers no requests", "sdb is transport-offline",
		"vdc answers no requests", "iSCSI session to iqn.2000-01.example:one is FAILED"}
	if got := h.BlockedDevices(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// A report that does not come is asked for again, and when it never comes the devices are named that keep lvm2 waiting.
func TestSlowReportsAreTriedAgain(t *testing.T) {
	for limit := range limits() {
		h := newFakeHost(t)
		h.reportTimeout = limit
		h.write("sys/block/sdb/device/state", "offline\n")
		h.write("lvs.json", lvs(origin0+"}"))
		h.script("lvs", `echo x >>tries; if [ $(wc -l <tries) -lt 3 ]; then exec sleep 600; fi; cat lvs.json`)
		_, err := h.Lookup(t.Context(), "vg0", "data")
		tries := len(h.calls("lvs"))
		if err == nil && tries == 3 {
			break
		}
		if limit > time.Minute {
			t.Fatalf("%v after %d tries", err, tries)
		}
	}
	h := newFakeHost(t)
	h.reportTimeout = time.Millisecond
	h.write("sys/block/sdb/device/state", "offline\n")
	h.script("lvs", `exec sleep 600`)
	_, err := h.Lookup(t.Context(), "vg0", "data")
	var failure *hostcmd.Error
	if !errors.As(err, &failure) || failure.TimedOut == 0 || !strings.Contains(err.Error(), "after 3 tries") {
		t.Errorf("%v, want a time-out after three tries", err)
	}
	if hints := say.Hints(err); len(hints) != 1 || !strings.Contains(hints[0], "sdb is offline") {
		t.Errorf("hints %q, want the device named", hints)
	}
}

// A change is waited for so long, and is never ended in the middle.
func TestSlowChangesAreLeftToThemselves(t *testing.T) {
	for limit := range limits() {
		h := newFakeHost(t)
		h.changeTimeout = limit
		h.write("lvs.json", lvs(origin0+"}"))
		h.script("lvchange", inTheMiddle+`trap 'echo signal >>end' TERM INT HUP; mkfifo go; read x <go; echo done >>end`)
		err := h.AddTag(t.Context(), "vg0", "data", "a")
		if !errors.Is(err, hostcmd.ErrLeftRunning) || len(say.Hints(err)) != 1 {
			t.Fatalf("%v, want a command that was left running", err)
		}
		if len(h.calls("lvchange")) == 0 && limit <= time.Minute {
			continue // it had not begun
		}
		for {
			if f, err := os.OpenFile(h.dir+"/go", os.O_WRONLY, 0); err == nil {
				f.Close()
				break
			}
			time.Sleep(time.Millisecond)
		}
		for {
			if end, _ := os.ReadFile(h.dir + "/end"); len(end) > 0 {
				if string(end) != "done\n" {
					t.Errorf("the command noted %q", end)
				}
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
}
