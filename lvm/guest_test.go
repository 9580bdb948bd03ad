package lvm

import (
	"strings"
	"testing"
)

// A group on a partition of a logical volume is a guest's; one on a disk, or whose disk is away, is the host's.
func TestGuestGroups(t *testing.T) {
	h := newFakeHost(t)
	h.device("sda", "8:0")
	h.device("dm-0", "254:0", "sda")
	h.write("sys/devices/dm-0/dm/uuid", "LVM-"+group32+data32+"\n")
	h.device("dm-1", "254:1", "dm-0")
	h.write("sys/devices/dm-1/dm/uuid", "part2-LVM-"+group32+data32+"\n")
	inv := Inventory{
		PVs: []PV{
			{Name: "/dev/sda", VGUUID: "host", Dev: Dev{8, 0}},
			{Name: "[unknown]", VGUUID: "host", Dev: Dev{0, 0}, Missing: true},
			{Name: "/dev/mapper/vg0-data2", VGUUID: "guest", Dev: Dev{254, 1}},
			{Name: "/dev/mapper/vg0-data", Dev: Dev{254, 0}},
		},
		Volumes: []Volume{{VG: "vg0", Name: "data", UUID: "hdpwwM-cqT3-Z3uH-crvr-8jxt-wzp1-fJ04sv"}},
	}
	got, err := h.GuestGroups(inv)
	if err != nil || len(got) != 1 || !strings.Contains(got["guest"], "/dev/mapper/vg0-data2 lies on the logical volume vg0/data") {
		t.Errorf("%q, %v, want the guest's group alone", got, err)
	}
}

func TestOpenForWriting(t *testing.T) {
	h := newFakeHost(t)
	for flags, want := range map[string]bool{"0100000": false, "02": true, "0100002": true, "0100001": true, "x": false} {
		h.write("proc/7/fdinfo/3", "pos:\t0\nflags:\t"+flags+"\nmnt_id:\t29\n")
		if got := h.isForWriting("7", "3"); got != want {
			t.Errorf("flags %s: %v", flags, got)
		}
	}
	if h.isForWriting("7", "4") {
		t.Error("a descriptor that is gone is open for writing")
	}
}
