package lvm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"voltar/internal/hostcmd"
	"voltar/internal/say"
)

// fakeHost is a folder of shell scripts that stand for lvm2's commands. Each notes its arguments in `log`. `lvs` shows
// lvs.json, or fails as it does for a volume that is not there; `lvm` shows all.json.
type fakeHost struct {
	t     *testing.T
	dir   string
	nodes map[string]Dev // device nodes
	*Client
}

const (
	origin0 = `{"lv_name":"data","vg_name":"vg0","lv_uuid":"uuid-data","lv_size":"33554432","lv_attr":"owi-a-s---",` +
		`"lv_layout":"linear","lv_role":"public","lv_kernel_major":"254","lv_kernel_minor":"0","lv_dm_path":"/dev/mapper/vg0-data"`
	snap0 = `{"lv_name":"snap","vg_name":"vg0","lv_uuid":"uuid-snap","lv_size":"8388608","lv_attr":"swi-a-s---","lv_tags":"voltar",` +
		`"lv_layout":"linear","lv_role":"public,snapshot,thicksnapshot","lv_kernel_major":"254","lv_kernel_minor":"9",` +
		`"origin":"data","origin_uuid":"uuid-data","lv_dm_path":"/nowhere/vg0-snap","lv_snapshot_invalid":"","data_percent":"1.00"`
)

func lvs(rows ...string) string {
	return `{"report":[{"vg":[{"vg_name":"vg0","vg_uuid":"g"}],"lv":[` + strings.Join(rows, ",") + `]}]}`
}

func newFakeHost(t *testing.T) *fakeHost {
	h := &fakeHost{t: t, dir: t.TempDir()}
	h.script("lvs", `if [ -e lvs.json ]; then cat lvs.json; else echo "  Failed to find logical volume" >&2; exit 5; fi`)
	h.script("lvm", `cat all.json`)
	for _, name := range []string{"lvcreate", "lvremove", "lvchange", "lvextend", "lvconvert", "dmsetup"} {
		h.script(name, "exit 0")
	}
	h.write("all.json", lvs())
	h.nodes = map[string]Dev{}
	runner := hostcmd.New(hostcmd.Options{SearchPath: append([]string{h.dir}, hostcmd.DefaultSearchPath...)})
	h.Client = New(runner, Options{
		SysRoot: filepath.Join(h.dir, "sys"), ProcRoot: filepath.Join(h.dir, "proc"), RunRoot: h.dir,
		RemoveAttempts: 3, RetryDelay: time.Millisecond, NodeWait: time.Millisecond,
	})
	h.devicesFile = filepath.Join(h.dir, "system.devices")
	h.blockDev = func(path string) Dev { return h.nodes[path] }
	h.target = func(uuid string) (dmTarget, error) { return dmTarget{}, errKernelUnknown }
	return h
}

func (h *fakeHost) write(name, content string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

func (h *fakeHost) script(name, body string) {
	h.t.Helper()
	h.write(name, "#!/bin/sh\ncd '"+h.dir+"' || exit 99\necho \""+name+" $*\" >>log\n"+body+"\n")
}

// calls returns the noted calls of one command, or of all.
func (h *fakeHost) calls(name string) []string {
	h.t.Helper()
	data, err := os.ReadFile(filepath.Join(h.dir, "log"))
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	var calls []string
	for line := range strings.Lines(string(data)) {
		if name == "" || strings.HasPrefix(line, name+" ") {
			calls = append(calls, strings.TrimSpace(line))
		}
	}
	return calls
}

var origin = Volume{VG: "vg0", Name: "data", UUID: "uuid-data", Kind: KindLinear, Active: true}

func (h *fakeHost) create(ctx context.Context) error {
	_, err := h.CreateSnapshot(ctx, origin, SnapshotRequest{Name: "snap", SizeBytes: 8*mib - 1, Tags: []string{"voltar"}})
	return err
}

func TestCreateSnapshotArguments(t *testing.T) {
	for name, tt := range map[string]struct {
		origin Volume
		req    SnapshotRequest
		want   string
	}{
		"classic": {origin, SnapshotRequest{Name: "s", SizeBytes: 513, Tags: []string{"a", "b"}},
			"-y -s -n s -p rw -L 1024b --ignoremonitoring --addtag a --addtag b vg0/data"},
		"classic for dmeventd": {origin, SnapshotRequest{Name: "s", SizeBytes: 512, Tags: []string{"a"}, Monitor: true},
			"-y -s -n s -p rw -L 512b --addtag a vg0/data"},
		"thin": {Volume{VG: "v", Name: "d", Kind: KindThin, Active: true}, SnapshotRequest{Name: "s", SizeBytes: 512, Tags: []string{"a"}},
			"-y -s -n s -p rw -kn -ay --ignoremonitoring --addtag a v/d"},
	} {
		got, err := snapshotArgs(tt.origin, tt.req)
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, tt.want)
		}
	}
	inactive, snap, pool, internal := origin, origin, origin, origin
	inactive.Active, snap.Kind, pool.Kind, internal.Internal = false, KindSnapshot, KindThinPool, true
	good := SnapshotRequest{Name: "s", SizeBytes: 512, Tags: []string{"a"}}
	for name, tt := range map[string]struct {
		origin Volume
		req    SnapshotRequest
	}{
		"inactive":             {inactive, good},
		"snapshot of snapshot": {snap, good},
		"pool":                 {pool, good},
		"internal":             {internal, good},
		"no tag":               {origin, SnapshotRequest{Name: "s", SizeBytes: 512}},
		"bad tag":              {origin, SnapshotRequest{Name: "s", SizeBytes: 512, Tags: []string{"a@b"}}},
		"bad name":             {origin, SnapshotRequest{Name: "-s", SizeBytes: 512, Tags: []string{"a"}}},
		"no size":              {origin, SnapshotRequest{Name: "s", Tags: []string{"a"}}},
	} {
		if args, err := snapshotArgs(tt.origin, tt.req); err == nil {
			t.Errorf("%s: %q, want an error", name, args)
		}
	}
}

func TestCreateSnapshotRemovesWhatAFailureLeft(t *testing.T) {
	h := newFakeHost(t)
	h.script("lvcreate", `cat snap.json >lvs.json; exit 5`)
	h.script("lvremove", `rm lvs.json`)
	h.write("snap.json", lvs(snap0+"}"))
	err := h.create(t.Context())
	if hostcmd.ExitCode(err) != 5 || len(h.calls("lvremove")) != 1 {
		t.Errorf("%v, removals %q", err, h.calls("lvremove"))
	}
}

func TestCreateSnapshotWithoutANodeIsUndone(t *testing.T) {
	h := newFakeHost(t)
	h.script("lvcreate", `cat snap.json >lvs.json`)
	h.script("lvremove", `rm lvs.json`)
	h.write("snap.json", lvs(snap0+"}"))
	if err := h.create(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot find the device node of vg0/snap") {
		t.Errorf("%v, want the missing node", err)
	}
	if got := h.calls("lvremove"); len(got) != 1 || !strings.Contains(got[0], "-S lv_uuid=uuid-snap vg0/snap") {
		t.Errorf("removals %q", got)
	}
}

func TestCreateSnapshotLeavesAnothersAlone(t *testing.T) {
	h := newFakeHost(t)
	h.script("lvcreate", `cat snap.json >lvs.json; exit 5`)
	h.write("snap.json", lvs(strings.Replace(snap0, `"voltar"`, `"mine"`, 1)+"}"))
	if err := h.create(t.Context()); !errors.Is(err, ErrNotOurs) {
		t.Errorf("%v, want ErrNotOurs", err)
	}
	if got := h.calls("lvremove"); len(got) != 0 {
		t.Errorf("removed a snapshot without our tag: %q", got)
	}
}

func TestCreateSnapshotResumesTheOriginAfterAKill(t *testing.T) {
	h := newFakeHost(t)
	h.script("lvs", `case $* in *vg0/data) cat origin.json ;; *) echo "  Failed to find logical volume" >&2; exit 5 ;; esac`)
	h.script("lvcreate", `kill -KILL $$`)
	h.write("origin.json", lvs(origin0+`,"lv_suspended":"suspended"}`))
	if err := h.create(t.Context()); err == nil {
		t.Error("no error")
	}
	if got := h.calls("lvchange"); len(got) != 1 || got[0] != "lvchange --refresh vg0/data" {
		t.Errorf("lvchange %q, want the origin refreshed", got)
	}
}

// inTheMiddle makes a script look like lvm2 while it suspends devices.
const inTheMiddle = `mkdir -p proc/$$; echo "VmLck:	   92340 kB" >proc/$$/status; `

// untilTheEnd is a script for a command that hangs for as long as its test goes on.
const untilTheEnd = inTheMiddle + `while [ -e log ]; do sleep 0.05; done`

// While lvcreate is at work nothing else is done to what it works on.
func TestCreateSnapshotLeavesASlowCommandAlone(t *testing.T) {
	h := newFakeHost(t)
	h.script("lvcreate", `cp snap.json lvs.json; `+untilTheEnd)
	h.write("snap.json", lvs(snap0+"}"))
	h.changeTimeout = time.Second
	err := h.create(t.Context())
	if !errors.Is(err, hostcmd.ErrLeftRunning) {
		t.Errorf("%v, want that it is left running", err)
	}
	if got := append(h.calls("lvremove"), h.calls("lvchange")...); len(got) > 0 {
		t.Errorf("meanwhile: %q", got)
	}
}

// limits gives time limits for commands of which one hangs: the first one within which this machine, however busy, gets
// the others begun will do.
func limits() iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		for limit := time.Second; yield(limit); limit *= 5 {
		}
	}
}

func TestChangesOutliveCancellation(t *testing.T) {
	h := newFakeHost(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	h.script("lvcreate", `touch begun; while [ ! -e go ]; do sleep 0.01; done; cat snap.json >lvs.json; touch ended`)
	h.script("lvremove", `rm lvs.json`)
	h.write("snap.json", lvs(snap0+"}"))
	go func() {
		for {
			if _, err := os.Stat(filepath.Join(h.dir, "begun")); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		cancel(errors.New("stopped"))
		_ = os.WriteFile(filepath.Join(h.dir, "go"), nil, 0o644) // the test hangs and fails without it
	}()
	if err := h.create(ctx); err == nil {
		t.Error("a cancelled creation reports success")
	}
	if _, err := os.Stat(filepath.Join(h.dir, "ended")); err != nil {
		t.Error("lvcreate was ended halfway")
	}
	if len(h.calls("lvremove")) != 1 {
		t.Error("what was made after cancellation stays")
	}
	if err := h.AddTag(ctx, "vg0", "data", "a"); err == nil || len(h.calls("lvchange")) != 0 {
		t.Errorf("%v: a command was begun after cancellation", err)
	}
}

// What counts is the tag, not how the command ended that was to change it: one that is killed may have done its work, and
// one that says nothing may not.
func TestTagsAreLookedAt(t *testing.T) {
	tagged, plain := origin0+`,"lv_tags":"a"}`, origin0+"}"
	for name, tt := range map[string]struct {
		row  string
		do   func(*Client, context.Context) error
		done bool
	}{
		"added all the same":   {tagged, func(c *Client, ctx context.Context) error { return c.AddTag(ctx, "vg0", "data", "a") }, true},
		"not added":            {plain, func(c *Client, ctx context.Context) error { return c.AddTag(ctx, "vg0", "data", "a") }, false},
		"removed all the same": {plain, func(c *Client, ctx context.Context) error { return c.DelTag(ctx, "vg0", "data", "a") }, true},
		"not removed":          {tagged, func(c *Client, ctx context.Context) error { return c.DelTag(ctx, "vg0", "data", "a") }, false},
	} {
		for _, end := range []string{"kill -KILL $$", "exit 0"} {
			h := newFakeHost(t)
			h.write("lvs.json", lvs(tt.row))
			h.script("lvchange", end)
			if err := tt.do(h.Client, t.Context()); (err == nil) != tt.done {
				t.Errorf("%s, %s: error %v", name, end, err)
			}
		}
	}
}

func TestRemoveSnapshotTriesAgain(t *testing.T) {
	h := newFakeHost(t)
	h.write("lvs.json", lvs(snap0+"}"))
	h.script("lvremove", `echo x >>tries; if [ $(wc -l <tries) -lt 3 ]; then echo "  Logical volume vg0/snap in use." >&2; exit 5; fi; rm lvs.json`)
	if err := h.RemoveSnapshot(t.Context(), "vg0", "snap", Expect{Tag: "voltar"}); err != nil {
		t.Error(err)
	}
	got := h.calls("lvremove")
	if want := `lvremove -f -y --config activation{retry_deactivation=1 monitoring=0} backup{archive=0} -S lv_uuid=uuid-snap vg0/snap`; len(got) != 3 || got[2] != want {
		t.Errorf("removals %q, want three times %q", got, want)
	}
	if got := h.calls("lvchange"); len(got) != 0 {
		t.Errorf("lvchange on a classic snapshot: %q", got)
	}
}

func TestRemoveSnapshotGivesUpAndNamesTheHolder(t *testing.T) {
	h := newFakeHost(t)
	h.write("lvs.json", lvs(snap0+`,"lv_device_open":"open"}`))
	h.script("lvremove", `echo "  Logical volume vg0/snap in use." >&2; exit 5`)
	h.script("dmsetup", `echo 2`)
	h.write("sys/dev/block/254:9/holders/dm-12/dm/name", "vg0-snap1\n")
	h.write("proc/77/mountinfo", "36 35 254:9 / /mnt/with\\040space ro - ext4 /dev/mapper/x ro\n")
	h.write("proc/swaps", "Filename Type Size Used Priority\n")
	err := h.RemoveSnapshot(t.Context(), "vg0", "snap", Expect{UUID: "uuid-snap"})
	if !errors.Is(err, ErrBusy) || hostcmd.ExitCode(err) != 5 || len(h.calls("lvremove")) != 3 {
		t.Fatalf("%v after %d tries", err, len(h.calls("lvremove")))
	}
	for _, want := range []string{"open count 2", "device dm-12 (vg0-snap1)", "mount /mnt/with space (seen by process 77)", "hint:", "after 3 tries"} {
		if !strings.Contains(say.Text(err), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}

func TestRemoveSnapshotDoesNotRepeatAHang(t *testing.T) {
	for limit := range limits() {
		h := newFakeHost(t)
		h.write("lvs.json", lvs(snap0+"}"))
		h.script("lvremove", untilTheEnd)
		h.changeTimeout = limit
		var failure *hostcmd.Error
		err := h.RemoveSnapshot(t.Context(), "vg0", "snap", Expect{Tag: "voltar"})
		tries := len(h.calls("lvremove"))
		if !errors.As(err, &failure) || failure.TimedOut == 0 || tries > 1 || limit > time.Minute {
			t.Fatalf("%v after %d tries, want one time-out", err, tries)
		}
		if tries == 1 {
			return
		}
	}
}

// A merge that takes too long is no longer waited for, and is said to go on where it does.
func TestMergeIsNotWaitedForWithoutEnd(t *testing.T) {
	for name, merging := range map[string]string{"it goes on": `,"lv_merging":"merging"`, "it never began": ""} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHost(t)
			h.mergeTimeout = time.Millisecond
			h.write("lvs.json", lvs(snap0+"}"))
			h.write("all.json", lvs(snap0+merging+"}"))
			h.script("lvconvert", "exec sleep 600")
			_, err := h.MergeSnapshot(t.Context(), "vg0", "snap", Expect{Tag: "voltar"})
			var failure *hostcmd.Error
			if !errors.As(err, &failure) || failure.TimedOut != time.Millisecond {
				t.Fatalf("%v, want that the time was up", err)
			}
			if said := strings.Contains(say.Text(err), "the merge goes on in the kernel") && strings.Contains(say.Text(err), "lvchange --poll y vg0/data"); said != (merging != "") {
				t.Errorf("%s", say.Text(err))
			}
		})
	}
}

func TestRemoveSnapshotDistrustsASuccessThatIsNone(t *testing.T) {
	h := newFakeHost(t)
	h.write("lvs.json", lvs(snap0+"}"))
	if err := h.RemoveSnapshot(t.Context(), "vg0", "snap", Expect{Tag: "voltar"}); err == nil ||
		!strings.Contains(err.Error(), "still there") {
		t.Errorf("%v, want that it is still there", err)
	}
}

func TestRemoveSnapshotConfirmsFirst(t *testing.T) {
	thinOrphan := strings.NewReplacer(`"linear"`, `"thin,sparse"`, "public,snapshot,thicksnapshot", "public", `"origin":"data",`, ``).Replace(snap0)
	for name, tt := range map[string]struct {
		row    string
		expect Expect
		err    error
	}{
		"right":                  {snap0 + "}", Expect{UUID: "uuid-snap", Tag: "voltar"}, nil},
		"nothing expected":       {snap0 + "}", Expect{}, errors.New("any")},
		"other UUID":             {snap0 + "}", Expect{UUID: "uuid-other", Tag: "voltar"}, ErrNotOurs},
		"other tag":              {snap0 + "}", Expect{UUID: "uuid-snap", Tag: "volta"}, ErrNotOurs},
		"no snapshot":            {strings.Replace(origin0, "data", "snap", 1) + "}", Expect{UUID: "uuid-data"}, ErrNotOurs},
		"thin without origin":    {thinOrphan + "}", Expect{UUID: "uuid-snap"}, ErrNotOurs},
		"thin, doubly confirmed": {thinOrphan + "}", Expect{UUID: "uuid-snap", Tag: "voltar"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHost(t)
			h.write("lvs.json", lvs(tt.row))
			h.script("lvremove", "rm lvs.json")
			err := h.RemoveSnapshot(t.Context(), "vg0", "snap", tt.expect)
			if (err == nil) != (tt.err == nil) || (errors.Is(tt.err, ErrNotOurs) && !errors.Is(err, ErrNotOurs)) {
				t.Errorf("%v, want %v", err, tt.err)
			}
			if removed := len(h.calls("lvremove")) > 0; removed != (tt.err == nil) {
				t.Errorf("removed: %v", removed)
			}
		})
	}
}

func TestLookupTellsGoneFromUnreadable(t *testing.T) {
	for name, tt := range map[string]struct {
		lvs, lvm string
		want     error
		words    string
	}{
		"gone":              {"exit 5", "cat all.json", ErrNotFound, ""},
		"group gone":        {"exit 5", `echo '{"report":[]}'; exit 0`, ErrVGNotFound, ""},
		"there after all":   {"echo '  device error' >&2; exit 5", "cat there.json", nil, "device error"},
		"nothing readable":  {"exit 5", "exit 5", nil, "exit status 5"},
		"list with a gap":   {"exit 5", "cat all.json; echo '  Cannot read a disk' >&2; exit 5", nil, "Cannot read a disk"},
		"garbage":           {"echo LV VG Attr", "cat all.json", nil, "cannot understand lvm2's report"},
		"garbage, failing":  {"echo LV VG Attr; exit 5", "cat there.json", nil, "cannot understand lvm2's report"},
		"killed":            {"kill -9 $$", "cat all.json", nil, "killed"},
		"refused to start":  {"exit 3", "cat all.json", nil, "exit status 3"},
		"empty, no failure": {`echo '{"report":[{"lv":[]}]}'`, "cat all.json", nil, "find vg0/snap"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHost(t)
			h.script("lvs", tt.lvs)
			h.script("lvm", tt.lvm)
			h.write("there.json", lvs(snap0+"}"))
			_, err := h.Lookup(t.Context(), "vg0", "snap")
			gone := errors.Is(err, ErrNotFound)
			if err == nil || gone != (tt.want == ErrNotFound) || (tt.want != nil && !errors.Is(err, tt.want)) ||
				!strings.Contains(err.Error(), tt.words) {
				t.Errorf("%v, want %v with %q", err, tt.want, tt.words)
			}
		})
	}
}

func TestInventoryKeepsWarningsAndMarksForeignGroups(t *testing.T) {
	h := newFakeHost(t)
	h.script("lvm", `case $1 in
systemid) echo "  system ID: here" ;;
*) cat all.json; echo "  Couldn't find device with uuid X." >&2; exit 5 ;;
esac`)
	h.write("all.json", `{"report":[{"vg":[{"vg_name":"a","vg_uuid":"1","vg_systemid":"here"}]},
		{"vg":[{"vg_name":"b","vg_uuid":"2","vg_systemid":"there"}]},{"vg":[{"vg_name":"c","vg_uuid":"3"}]}]}`)
	inv, err := h.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var foreign []string
	for _, vg := range inv.VGs {
		if vg.Foreign {
			foreign = append(foreign, vg.Name)
		}
	}
	if strings.Join(foreign, " ") != "b" || inv.Warnings != "Couldn't find device with uuid X." || !inv.Incomplete {
		t.Errorf("foreign %q, warnings %q", foreign, inv.Warnings)
	}
}

func TestSnapshotStatusNeverGuesses(t *testing.T) {
	for name, tt := range map[string]struct {
		row     string
		invalid bool
		err     error
	}{
		"valid":              {snap0 + "}", false, nil},
		"invalid":            {strings.Replace(snap0, `"lv_snapshot_invalid":""`, `"lv_snapshot_invalid":"snapshot invalid"`, 1) + "}", true, nil},
		"validity unknown":   {strings.Replace(snap0, `"lv_snapshot_invalid":""`, `"lv_snapshot_invalid":"unknown"`, 1) + "}", false, ErrStatusUnknown},
		"no percentage":      {strings.Replace(snap0, `"1.00"`, `""`, 1) + "}", false, ErrStatusUnknown},
		"column missing":     {strings.Replace(snap0, `"lv_snapshot_invalid":"",`, "", 1) + "}", false, ErrStatusUnknown},
		"not active":         {strings.Replace(snap0, `"254"`, `"-1"`, 1) + "}", false, ErrStatusUnknown},
		"not a snapshot now": {strings.Replace(origin0, "data", "snap", 1) + "}", false, ErrNotOurs},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHost(t)
			h.write("lvs.json", lvs(tt.row))
			st, err := h.SnapshotStatus(t.Context(), "vg0", "snap")
			if st.Invalid != tt.invalid || !errors.Is(err, tt.err) {
				t.Errorf("%+v, %v", st, err)
			}
		})
	}
}

func TestEnvironmentWithoutUdev(t *testing.T) {
	h := newFakeHost(t)
	h.script("lvchange", `echo "$DM_DISABLE_UDEV $LVM_SUPPRESS_FD_WARNINGS" >env`)
	if err := h.AddTag(t.Context(), "vg0", "data", "a"); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(h.dir, "env")); string(got) != "1 1\n" {
		t.Errorf("environment %q", got)
	}
	h.write("udev/control", "")
	c := New(hostcmd.New(hostcmd.Options{}), Options{RunRoot: h.dir})
	if !c.udev || strings.Contains(fmt.Sprint(c.env), "DM_DISABLE_UDEV") {
		t.Error("udev is there and not used")
	}
}

func TestRemoveVolumeSparesOrigins(t *testing.T) {
	h := newFakeHost(t)
	h.write("lvs.json", lvs(strings.Replace(origin0, `"public"`, `"public,origin,thickorigin"`, 1)+"}"))
	if err := h.RemoveVolume(t.Context(), "vg0", "data", "uuid-data"); err == nil || len(h.calls("lvremove")) != 0 {
		t.Errorf("%v: lvremove would take the snapshots with it: %q", err, h.calls("lvremove"))
	}
}

func TestDeactivateSparesSnapshotsAndTheirOrigins(t *testing.T) {
	for name, tt := range map[string]struct {
		row string
		off bool
	}{
		"snapshot": {strings.Replace(snap0, `"snap"`, `"data"`, 1), false},
		"origin":   {strings.Replace(origin0, `"public"`, `"public,origin,thickorigin"`, 1), false},
		"other":    {origin0, true},
	} {
		h := newFakeHost(t)
		h.write("lvs.json", lvs(tt.row+"}"))
		err := h.Deactivate(t.Context(), "vg0", "data")
		if (err == nil) != tt.off || (len(h.calls("lvchange")) == 1) != tt.off {
			t.Errorf("%s: %v, %q", name, err, h.calls("lvchange"))
		}
	}
}
