package lvm

import (
	"errors"
	"strings"
	"testing"

	"voltar/internal/hostcmd"
)

// group0 is a volume group of two disks, beside another one.
func group0() Inventory {
	return Inventory{
		VGs: []VG{{Name: "vg0", UUID: "g0"}, {Name: "vg1", UUID: "g1"}},
		PVs: []PV{
			{Name: "/dev/sda1", UUID: "p1", VGUUID: "g0", Dev: Dev{8, 1}}, {Name: "/dev/mapper/m.p+a", UUID: "p2", VGUUID: "g0", Dev: Dev{253, 1}},
			{Name: "/dev/sdc", UUID: "p3", VGUUID: "g1", Dev: Dev{8, 32}}, {Name: "/dev/sdd", UUID: "p4", Dev: Dev{8, 48}},
		},
	}
}

func TestCommandsAreBoundedWhereThatIsSafe(t *testing.T) {
	const bound = `devices{hints="none" filter=["a|^/dev/sda1$|","a|^/dev/mapper/m.p.a$|","r|.*|"]}`
	for name, tt := range map[string]struct {
		change func(*Inventory)
		want   string
	}{
		"as it should be":      {func(*Inventory) {}, bound},
		"another is away":      {func(inv *Inventory) { inv.PVs[2].Missing = true }, bound},
		"a disk is away":       {func(inv *Inventory) { inv.PVs[1].Missing = true }, ""},
		"the group is partial": {func(inv *Inventory) { inv.VGs[0].Partial = true }, ""},
		"no device":            {func(inv *Inventory) { inv.PVs[0].Dev = Dev{-1, -1} }, ""},
		"no name":              {func(inv *Inventory) { inv.PVs[0].Name = "[unknown]" }, ""},
		"a twin of a disk":     {func(inv *Inventory) { inv.PVs[3].UUID = "p1" }, ""},
		"of one name":          {func(inv *Inventory) { inv.VGs[1].Name = "vg0" }, ""},
		"shared":               {func(inv *Inventory) { inv.VGs[0].Shared = true }, ""},
		"clustered":            {func(inv *Inventory) { inv.VGs[0].Clustered = true }, ""},
		"foreign":              {func(inv *Inventory) { inv.VGs[0].Foreign = true }, ""},
		"exported":             {func(inv *Inventory) { inv.VGs[0].Exported = true }, ""},
		"no disks reported":    {func(inv *Inventory) { inv.PVs = nil }, ""},
		"a report with a gap":  {func(inv *Inventory) { inv.Incomplete = true }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, inv := newFakeHost(t), group0()
			tt.change(&inv)
			h.noteBounds(inv)
			if got := h.bound("g0"); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
	h := newFakeHost(t)
	if got := h.bound("g0"); got != "" {
		t.Errorf("before an inventory: %s", got)
	}
	h.write("system.devices", "")
	h.noteBounds(group0())
	if got := h.bound("g0"); got != "" {
		t.Errorf("with a devices file: %s", got)
	}
}

const (
	groupUUID  = "GGGGGG-GGGG-GGGG-GGGG-GGGG-GGGG-GGGGGG"
	originUUID = "OOOOOO-OOOO-OOOO-OOOO-OOOO-OOOO-OOOOOO"
	otherUUID  = "XXXXXX-XXXX-XXXX-XXXX-XXXX-XXXX-XXXXXX"
	snapUUID   = "SSSSSS-SSSS-SSSS-SSSS-SSSS-SSSS-SSSSSS"
)

// mapped puts a device-mapper device of a number into the fake host.
func (h *fakeHost) mapped(number, name, uuid string) {
	h.t.Helper()
	h.write("sys/dev/block/"+number+"/dm/name", name+"\n")
	h.write("sys/dev/block/"+number+"/dm/uuid", uuid+"\n")
	h.write("sys/dev/block/"+number+"/size", "32768\n")
	dev, err := ParseDev(number)
	if err != nil {
		h.t.Fatal(err)
	}
	h.nodes["/dev/mapper/"+name] = dev
}

// withSnapshot is a host on which lvcreate makes a snapshot of the volume of a UUID.
func withSnapshot(t *testing.T, under string) *fakeHost {
	h := newFakeHost(t)
	h.mapped("254:5", "vg0-data", dmUUID(groupUUID, under))
	h.mapped("254:9", "vg0-snap", dmUUID(groupUUID, snapUUID))
	h.mapped("254:6", "vg0-data-real", dmUUID(groupUUID, under)+"-real")
	h.write("sys/dev/block/254:9/slaves/dm-6/dev", "254:6\n")
	h.target = func(uuid string) (dmTarget, error) {
		if uuid != dmUUID(groupUUID, snapUUID) {
			return dmTarget{}, errKernelUnknown
		}
		return target("0 32768 snapshot 16/24576 16\n", "snapshot")
	}
	h.script("lvremove", `rm sys/dev/block/254:9/dm/uuid; echo "  Logical volume \"snap\" successfully removed."`)
	h.write("lvs.json", lvs(strings.NewReplacer("uuid-snap", snapUUID, `"voltar"`, `"voltar,voltar.run.1"`).Replace(snap0)+"}"))
	inv := group0()
	inv.VGs[0].UUID, inv.PVs[0].VGUUID, inv.PVs[1].VGUUID = groupUUID, groupUUID, groupUUID
	h.noteBounds(inv)
	return h
}

func meant(kind Kind) Volume {
	return Volume{VG: "vg0", Name: "data", UUID: originUUID, VGUUID: groupUUID, Kind: kind, Active: true, SizeBytes: 16 * mib}
}

var request = SnapshotRequest{Name: "snap", SizeBytes: 5 * mib, Tags: []string{"voltar", "voltar.run.1"}}

// The whole life of a snapshot is two commands, each kept to the disks of the group, and each knows what it works on.
func TestASnapshotCostsTwoCommands(t *testing.T) {
	for _, kind := range []Kind{KindLinear, KindThin} {
		h := withSnapshot(t, originUUID)
		h.write("sys/dev/block/254:9/size", "49152\n") // the origin was extended since the inventory
		snap, err := h.CreateSnapshot(t.Context(), meant(kind), request)
		if err != nil {
			t.Fatal(err)
		}
		size := map[Kind]int64{KindLinear: 12 * mib, KindThin: 24 * mib}[kind]
		if snap.UUID != snapUUID || snap.SizeBytes != size || snap.OriginBytes != 24*mib || snap.OriginUUID != originUUID || !snap.Active || snap.KernelMinor != 9 || snap.DMPath != "/dev/mapper/vg0-snap" {
			t.Errorf("%+v", snap)
		}
		if err := h.RemoveOwn(t.Context(), snap); err != nil {
			t.Error(err)
		}
		made, removed := h.calls("lvcreate"), h.calls("lvremove")
		if all := h.calls(""); len(all) != 2 || len(made) != 1 || len(removed) != 1 {
			t.Fatalf("%s: commands %q", kind, all)
		}
		const bound = `devices{hints="none" filter=["a|^/dev/sda1$|","a|^/dev/mapper/m.p.a$|","r|.*|"]}`
		selection := "-S lv_uuid=" + snapUUID + ` && lv_tags={"voltar.run.1"} && vg_missing_pv_count=0 vg0/snap`
		if !strings.Contains(made[0], bound) || !strings.Contains(removed[0], bound) || !strings.HasSuffix(removed[0], selection) {
			t.Errorf("%q\n%q", made[0], removed[0])
		}
	}
}

// A volume that came under the origin's name since the inventory is not backed up as that.
func TestASnapshotOfAnotherVolumeIsUndone(t *testing.T) {
	for _, kind := range []Kind{KindLinear, KindThin} {
		h := withSnapshot(t, otherUUID)
		h.script("lvremove", `rm lvs.json`)
		_, err := h.CreateSnapshot(t.Context(), meant(kind), request)
		if !errors.Is(err, ErrNotOurs) {
			t.Errorf("%s: %v, want ErrNotOurs", kind, err)
		}
		if removed := h.calls("lvremove"); len(removed) != 1 {
			t.Errorf("%s: removals %q", kind, removed)
		}
	}
}

func TestASnapshotOfATakenNameIsLeftAlone(t *testing.T) {
	h := withSnapshot(t, originUUID)
	h.script("lvcreate", `echo '  Logical Volume "snap" already exists in volume group "vg0"' >&2; exit 5`)
	if _, err := h.CreateSnapshot(t.Context(), meant(KindLinear), request); !errors.Is(err, ErrExists) {
		t.Errorf("%v, want ErrExists", err)
	}
	if all := h.calls(""); len(all) != 1 {
		t.Errorf("commands %q", all)
	}
}

// A disk that joined the group, or has another name by now, is out of a bounded command's sight. lvcreate then refuses, and works
// without the bound; lvremove must not change the group, and is called again without it as well.
func TestWhatIsOutOfSightIsLookedFor(t *testing.T) {
	h := withSnapshot(t, originUUID)
	h.script("lvcreate", `case $* in *filter*) echo "  Cannot change VG vg0 while PVs are missing." >&2; exit 5 ;; esac`)
	snap, err := h.CreateSnapshot(t.Context(), meant(KindLinear), request)
	if err != nil {
		t.Fatal(err)
	}
	h.script("lvremove", `case $* in *filter*) exit 0 ;; esac; rm lvs.json sys/dev/block/254:9/dm/uuid`)
	if err := h.RemoveOwn(t.Context(), snap); err != nil {
		t.Error(err)
	}
	if made, removed := h.calls("lvcreate"), h.calls("lvremove"); len(made) != 2 || len(removed) != 2 || strings.Contains(made[1]+removed[1], "filter") {
		t.Errorf("%q\n%q", made, removed)
	}
}

// Success counts only with lvm2's word that something was removed, and without the device.
func TestRemoveOwnDistrustsASuccessThatIsNone(t *testing.T) {
	for name, script := range map[string]string{
		"nothing selected": `exit 0`,
		"and not active":   `rm -f sys/dev/block/254:9/dm/uuid`,
		"the device stays": `echo "  Logical volume \"snap\" successfully removed."`,
		"not run":          `exit 3`,
	} {
		t.Run(name, func(t *testing.T) {
			h := withSnapshot(t, originUUID)
			snap, err := h.CreateSnapshot(t.Context(), meant(KindLinear), request)
			if err != nil {
				t.Fatal(err)
			}
			h.script("lvremove", script)
			if err := h.RemoveOwn(t.Context(), snap); err == nil {
				t.Error("no error of a snapshot that is still there")
			}
		})
	}
	h := withSnapshot(t, originUUID)
	snap, err := h.CreateSnapshot(t.Context(), meant(KindLinear), request)
	if err != nil {
		t.Fatal(err)
	}
	h.script("lvremove", "kill -KILL $$")
	if err := h.RemoveOwn(t.Context(), snap); err == nil || hostcmd.ExitCode(err) >= 0 || len(h.calls("lvremove")) != 1 {
		t.Errorf("%v after %q", err, h.calls("lvremove"))
	}
}
