package lvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"voltar/internal/hostcmd"
	"voltar/internal/lab"
)

func TestMain(m *testing.M) {
	os.Exit(lab.Main(m, lab.Options{Modules: []string{"md-mod", "raid1", "dm-raid"}}))
}

const mib = 1 << 20

func labClient(opts Options) *Client { return New(hostcmd.New(hostcmd.Options{}), opts) }

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// overwrite fills bytes of a device from its start with what no zero-detection could make cheap.
func overwrite(t *testing.T, device string, bytes int) {
	t.Helper()
	lab.Do(t, "dd", "if=/dev/urandom", "of="+device, "bs=1M", fmt.Sprintf("count=%d", bytes/mib), "conv=fsync", "oflag=direct",
		"status=none")
}

// classic makes VG vg0 with an active volume `data` and a snapshot of it, which is removed at the end.
func classic(t *testing.T, c *Client, originBytes, snapBytes int64) Snapshot {
	t.Helper()
	lab.VG(t, "vg0", 256*mib)
	lab.LV(t, "vg0", "data", originBytes)
	return snapshotOf(t, c, "data", "snap-1", snapBytes)
}

func snapshotOf(t *testing.T, c *Client, origin, name string, bytes int64) Snapshot {
	t.Helper()
	v := must[Volume](t)(c.Lookup(t.Context(), "vg0", origin))
	snap := must[Snapshot](t)(c.CreateSnapshot(t.Context(), v,
		SnapshotRequest{Name: name, SizeBytes: bytes, Tags: []string{"voltar", "voltar.run.X-1"}}))
	t.Cleanup(func() {
		if err := c.RemoveSnapshot(context.WithoutCancel(t.Context()), "vg0", name, snap.Expect()); err != nil {
			t.Error(err)
		}
	})
	return snap
}

func TestLabClassicSnapshot(t *testing.T) {
	ctx, c := t.Context(), labClient(Options{})
	snap := classic(t, c, 32*mib, 5*mib)
	inv := must[Inventory](t)(c.Inventory(ctx))
	origin := must[Volume](t)(inv.Volume("vg0", "data"))

	if snap.Kind != KindSnapshot || snap.SizeBytes != 8*mib || !snap.Active || snap.ReadOnly || snap.Internal ||
		snap.OriginUUID != origin.UUID || snap.OriginBytes != 32*mib || !snap.HasTag("voltar") || !snap.HasTag("voltar.run.X-1") {
		t.Errorf("snapshot %+v", snap)
	}
	if !origin.HasClassicSnapshots() || origin.Kind != KindLinear || len(origin.Tags) != 0 {
		t.Errorf("origin %+v", origin)
	}
	dev, _ := snap.Dev()
	if got := blockDev(snap.DMPath); got != dev {
		t.Errorf("node %s is %s, want %s", snap.DMPath, got, dev)
	}
	if v := must[Volume](t)(inv.Volume("vg0", "snap-1")); v.UUID != snap.UUID || !v.HasTag("voltar.run.X-1") {
		t.Errorf("in the inventory: %+v", v)
	}
	vg, _ := inv.VG("vg0")
	if want := vg.SizeBytes - 40*mib; vg.FreeBytes != want {
		t.Errorf("free %d, want %d", vg.FreeBytes, want)
	}

	overwrite(t, origin.DMPath, 4*mib)
	st := must[Status](t)(c.SnapshotStatus(ctx, "vg0", "snap-1"))
	if st.Invalid || st.UsedPercent < 50 || st.UsedPercent > 60 || st.UsedBytes < 4*mib || st.SizeBytes != 8*mib {
		t.Errorf("status %+v, want a little over half", st)
	}
	if size := must[int64](t)(c.ExtendSnapshot(ctx, "vg0", "snap-1", 1)); size != 12*mib {
		t.Errorf("extended to %d, want one extent more", size)
	}
	// Writable: what the mount of a dirty guest needs.
	overwrite(t, snap.DMPath, 1*mib)

	overwrite(t, origin.DMPath, 20*mib)
	if st = must[Status](t)(c.SnapshotStatus(ctx, "vg0", "snap-1")); !st.Invalid {
		t.Errorf("status %+v, want an overflow", st)
	}
	for name, expect := range map[string]Expect{
		"other tag":  {Tag: "voltar.run.other"},
		"other UUID": {UUID: origin.UUID, Tag: "voltar"},
	} {
		if err := c.RemoveSnapshot(ctx, "vg0", "snap-1", expect); !errors.Is(err, ErrNotOurs) {
			t.Errorf("%s: %v, want ErrNotOurs", name, err)
		}
	}
	if err := c.RemoveSnapshot(ctx, "vg0", "data", Expect{UUID: origin.UUID}); !errors.Is(err, ErrNotOurs) {
		t.Errorf("removing an origin: %v, want ErrNotOurs", err)
	}
	for _, try := range []string{"first", "second"} {
		if err := c.RemoveSnapshot(ctx, "vg0", "snap-1", Expect{UUID: snap.UUID, Tag: "voltar.run.X-1"}); err != nil {
			t.Errorf("%s removal: %v", try, err)
		}
	}
	if _, err := c.Lookup(ctx, "vg0", "snap-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after removal: %v, want ErrNotFound", err)
	}
	if err := c.RemoveSnapshot(ctx, "vg-gone", "snap-1", snap.Expect()); !errors.Is(err, ErrVGNotFound) {
		t.Errorf("in a group that is not there: %v, want ErrVGNotFound", err)
	}
}

func TestLabSnapshotRefusals(t *testing.T) {
	ctx, c := t.Context(), labClient(Options{})
	snap := classic(t, c, 32*mib, 4*mib)
	origin := must[Volume](t)(c.Lookup(ctx, "vg0", "data"))
	tags := []string{"voltar"}
	_, err := c.CreateSnapshot(ctx, origin, SnapshotRequest{Name: "snap-1", SizeBytes: 4 * mib, Tags: tags})
	if !errors.Is(err, ErrExists) {
		t.Errorf("a name in use: %v, want ErrExists", err)
	}
	if got := must[Volume](t)(c.Lookup(ctx, "vg0", "snap-1")); got.UUID != snap.UUID {
		t.Error("the older snapshot was harmed")
	}
	lab.LV(t, "vg0", "filler", 208*mib)
	_, err = c.CreateSnapshot(ctx, origin, SnapshotRequest{Name: "big", SizeBytes: 16 * mib, Tags: tags})
	if !errors.Is(err, ErrNoSpace) {
		t.Errorf("a full group: %v, want ErrNoSpace", err)
	}
	lab.LV(t, "vg0", "off", 4*mib)
	lab.Do(t, "lvchange", "-an", "vg0/off")
	off := must[Volume](t)(c.Lookup(ctx, "vg0", "off"))
	if _, err = c.CreateSnapshot(ctx, off, SnapshotRequest{Name: "s", SizeBytes: 4 * mib, Tags: tags}); !errors.Is(err, ErrInactive) {
		t.Errorf("an inactive origin: %v, want ErrInactive", err)
	}
	if off.Active || off.KernelMajor != -1 {
		t.Errorf("inactive volume %+v", off)
	}
	if v := must[Volume](t)(c.Activate(ctx, "vg0", "off")); !v.Active || blockDev(v.DMPath) == (Dev{}) {
		t.Errorf("activated volume %+v", v)
	}
	if err := c.Deactivate(ctx, "vg0", "off"); err != nil {
		t.Error(err)
	}
	if v := must[Volume](t)(c.Lookup(ctx, "vg0", "off")); v.Active {
		t.Error("still active")
	}
	if err := c.Deactivate(ctx, "vg0", "snap-1"); err == nil {
		t.Error("a classic snapshot was deactivated, and its origin with it")
	}
}

func TestLabStatusOfAnInactiveSnapshotIsUnknown(t *testing.T) {
	c := labClient(Options{})
	classic(t, c, 32*mib, 4*mib)
	lab.Do(t, "lvchange", "-an", "-y", "vg0/data")
	if st, err := c.SnapshotStatus(t.Context(), "vg0", "snap-1"); !errors.Is(err, ErrStatusUnknown) {
		t.Errorf("%+v, %v, want ErrStatusUnknown", st, err)
	}
}

func TestLabThinSnapshotAndClone(t *testing.T) {
	ctx, c := t.Context(), labClient(Options{})
	lab.VG(t, "vg0", 256*mib)
	lab.Do(t, "lvcreate", "-y", "-L", "64M", "-T", "vg0/pool")
	thin := must[Volume](t)(c.CreateVolume(ctx, VolumeRequest{VG: "vg0", Name: "thin-1", SizeBytes: 128 * mib, Pool: "pool",
		Tags: []string{"made"}}))
	if thin.Kind != KindThin || thin.SizeBytes != 128*mib || thin.Pool != "pool" || !thin.HasTag("made") || thin.IsThinSnapshot() {
		t.Errorf("thin volume %+v", thin)
	}
	snap := snapshotOf(t, c, "thin-1", "snap-1", 0)
	if snap.Kind != KindThin || !snap.Active || snap.ActivationSkip || snap.OriginUUID != thin.UUID || snap.SizeBytes != 128*mib {
		t.Errorf("thin snapshot %+v", snap)
	}
	lab.Do(t, "lvcreate", "-y", "-s", "-kn", "-n", "clone", "vg0/thin-1")
	lab.Do(t, "lvcreate", "-y", "-s", "-n", "skipped", "vg0/thin-1")
	inv := must[Inventory](t)(c.Inventory(ctx))
	clone := must[Volume](t)(inv.Volume("vg0", "clone"))
	if !clone.IsThinSnapshot() || !clone.Active || clone.ActivationSkip || !slices.Contains(clone.Roles, "thinsnapshot") {
		t.Errorf("clone %+v", clone)
	}
	skipped := must[Volume](t)(inv.Volume("vg0", "skipped"))
	if skipped.Active || !skipped.ActivationSkip {
		t.Errorf("skipped %+v", skipped)
	}
	if got := inv.SnapshotsOf(thin); len(got) != 3 {
		t.Errorf("snapshots of the thin volume: %v", got)
	}
	pool := must[Volume](t)(inv.Volume("vg0", "pool"))
	if !pool.IsPool() || pool.Internal {
		t.Errorf("pool %+v", pool)
	}
	if data := must[Volume](t)(inv.Volume("vg0", "pool_tdata")); !data.Internal || data.Parent != "pool" {
		t.Errorf("pool's data %+v", data)
	}
	if v := must[Volume](t)(c.Activate(ctx, "vg0", "skipped")); !v.Active {
		t.Error("a volume with the activation-skip flag was not activated")
	}

	overwrite(t, thin.DMPath, 32*mib)
	st := must[Status](t)(c.SnapshotStatus(ctx, "vg0", "snap-1"))
	if !st.Thin || st.Pool.DataPercent != 50 || st.Pool.MetadataPercent <= 0 || st.Pool.MetadataBytes != 4*mib {
		t.Errorf("status %+v, want a pool half full", st)
	}
	if _, err := c.CheckPoolOf(ctx, thin, 60, 80); err != nil {
		t.Error(err)
	}
	if _, err := c.CheckPoolOf(ctx, thin, 50, 80); !errors.Is(err, ErrPoolFull) || !strings.Contains(err.Error(), "50.00 %") {
		t.Errorf("%v, want ErrPoolFull with the number", err)
	}
	// The snapshot outlives its origin, and is then known by UUID and tag together alone.
	if err := c.RemoveVolume(ctx, "vg0", "thin-1", thin.UUID); err != nil {
		t.Fatal(err)
	}
	if err := c.RemoveSnapshot(ctx, "vg0", "snap-1", snap.Expect()); !errors.Is(err, ErrNotOurs) {
		t.Errorf("with the UUID alone: %v, want ErrNotOurs", err)
	}
	if err := c.RemoveSnapshot(ctx, "vg0", "snap-1", Expect{UUID: snap.UUID, Tag: "voltar"}); err != nil {
		t.Error(err)
	}
}

func TestLabLargestSnapshotNeverOverflows(t *testing.T) {
	c := labClient(Options{})
	lab.VG(t, "vg0", 256*mib)
	for _, size := range []int64{4 * mib, 32 * mib, 100 * mib} {
		name := fmt.Sprintf("data-%d", size/mib)
		origin := lab.LV(t, "vg0", name, size)
		// lvm2 cuts a size beyond its own maximum down to that.
		lab.Do(t, "lvcreate", "-y", "-s", "-L", "120M", "-n", "probe", "vg0/"+name)
		probe := must[Volume](t)(c.Lookup(t.Context(), "vg0", "probe"))
		lab.Do(t, "lvremove", "-f", "vg0/probe")
		if got := MaxSnapshotBytes(size, 4*mib); got != probe.SizeBytes {
			t.Errorf("%d bytes: largest snapshot %d, lvm2 says %d", size, got, probe.SizeBytes)
		}
		snap := snapshotOf(t, c, name, "snap-"+name, MaxSnapshotBytes(size, 4*mib))
		overwrite(t, origin, int(size))
		if st := must[Status](t)(c.SnapshotStatus(t.Context(), "vg0", snap.Name)); st.Invalid {
			t.Errorf("%d bytes: overflowed: %+v", size, st)
		}
		if err := c.RemoveSnapshot(t.Context(), "vg0", snap.Name, snap.Expect()); err != nil {
			t.Error(err)
		}
		lab.Do(t, "lvremove", "-f", "vg0/"+name)
	}
}

func TestLabBusyRemovalNamesTheHolder(t *testing.T) {
	ctx, c := t.Context(), labClient(Options{RemoveAttempts: 1})
	snap := classic(t, c, 32*mib, 8*mib)
	lab.Do(t, "mkfs.ext4", "-q", snap.DMPath)
	removal := func(what string, words ...string) {
		t.Helper()
		err := c.RemoveSnapshot(ctx, "vg0", "snap-1", snap.Expect())
		if !errors.Is(err, ErrBusy) {
			t.Fatalf("%s: %v, want ErrBusy", what, err)
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q lacks %q", what, err, word)
			}
		}
		if v := must[Volume](t)(c.Lookup(ctx, "vg0", "data")); !v.Active {
			t.Fatalf("%s: the origin was deactivated", what)
		}
	}

	file := must[*os.File](t)(os.Open(snap.DMPath))
	removal("descriptor", fmt.Sprintf("process %d (", os.Getpid()), "open count 1")
	file.Close()

	// A mount that only another namespace sees.
	point := t.TempDir()
	hidden := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		"mount -o ro "+snap.DMPath+" "+point+" && echo ready && exec sleep 600")
	out := must[interface{ Read([]byte) (int, error) }](t)(pipe(hidden))
	if err := hidden.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	removal("hidden mount", "mount "+point, fmt.Sprint(hidden.Process.Pid))
	if err := hidden.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = hidden.Wait() // killed

	lab.Do(t, "dmsetup", "create", "above", "--table", "0 2048 linear "+snap.DMPath+" 0")
	removal("map", "(above)")
	lab.Do(t, "dmsetup", "remove", "above")
	loop := strings.TrimSpace(lab.Do(t, "losetup", "--show", "-f", snap.DMPath))
	removal("loop", "device "+filepath.Base(loop))
	lab.Do(t, "losetup", "-d", loop)
	if err := c.RemoveSnapshot(ctx, "vg0", "snap-1", snap.Expect()); err != nil {
		t.Errorf("when free: %v", err)
	}
}

func pipe(cmd *exec.Cmd) (interface{ Read([]byte) (int, error) }, error) { return cmd.StdoutPipe() }

func TestLabMerge(t *testing.T) {
	ctx, c := t.Context(), labClient(Options{})
	snap := classic(t, c, 16*mib, 20*mib)
	device := must[Volume](t)(c.Lookup(ctx, "vg0", "data")).DMPath
	before := lab.Do(t, "sha1sum", device)
	overwrite(t, device, 4*mib)
	if _, err := c.MergeSnapshot(ctx, "vg0", "snap-1", Expect{Tag: "other"}); !errors.Is(err, ErrNotOurs) {
		t.Errorf("with another tag: %v, want ErrNotOurs", err)
	}
	if m := must[Merge](t)(c.MergeSnapshot(ctx, "vg0", "snap-1", snap.Expect())); m.Deferred {
		t.Error("the merge of closed volumes was deferred")
	}
	if after := lab.Do(t, "sha1sum", device); after != before {
		t.Error("the origin has not its old content")
	}
	if _, err := c.Lookup(ctx, "vg0", "snap-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the snapshot after its merge: %v, want ErrNotFound", err)
	}

	second := snapshotOf(t, c, "data", "snap-2", 8*mib)
	open := must[*os.File](t)(os.Open(device))
	if m := must[Merge](t)(c.MergeSnapshot(ctx, "vg0", "snap-2", second.Expect())); !m.Deferred {
		t.Error("the merge into an open origin was not deferred")
	}
	if v := must[Volume](t)(c.Lookup(ctx, "vg0", "snap-2")); !v.Merging || !v.Internal {
		t.Errorf("merging snapshot %+v", v)
	}
	open.Close()
	lab.Do(t, "lvchange", "-an", "vg0/data")
	lab.Do(t, "lvchange", "-ay", "vg0/data")
	lab.Do(t, "lvchange", "--poll", "y", "vg0/data")
	waitFor(t, "the deferred merge", func() bool {
		_, err := c.Lookup(ctx, "vg0", "snap-2")
		return errors.Is(err, ErrNotFound)
	})
}

// waitFor waits for as long as the test may run.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for !done() {
		if err := sleep(t.Context(), 50*time.Millisecond); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func TestLabThinMerge(t *testing.T) {
	ctx, c := t.Context(), labClient(Options{})
	lab.VG(t, "vg0", 256*mib)
	lab.Do(t, "lvcreate", "-y", "-L", "64M", "-T", "vg0/pool")
	thin := must[Volume](t)(c.CreateVolume(ctx, VolumeRequest{VG: "vg0", Name: "data", SizeBytes: 16 * mib, Pool: "pool"}))
	overwrite(t, thin.DMPath, 2*mib)
	before := lab.Do(t, "sha1sum", thin.DMPath)
	snap := snapshotOf(t, c, "data", "snap", 0)
	overwrite(t, thin.DMPath, 4*mib)
	m := must[Merge](t)(c.MergeSnapshot(ctx, "vg0", "snap", snap.Expect()))
	if m.Deferred {
		lab.Do(t, "lvchange", "-an", "vg0/data")
		lab.Do(t, "lvchange", "-ay", "vg0/data")
	}
	if after := lab.Do(t, "sha1sum", thin.DMPath); after != before {
		t.Error("the origin has not its old content")
	}
}

func TestLabWatchExtendsAndSeesOverflow(t *testing.T) {
	ctx, c := t.Context(), labClient(Options{})
	snap := classic(t, c, 64*mib, 8*mib)
	space := must[*Reservation](t)(c.NewAllocator(nil).Reserve(ctx, "vg0", 4*mib, 4*mib))
	policy := WatchPolicy{Interval: 20 * time.Millisecond, Space: space, ExtendBy: 50}
	watched, w := c.Watch(ctx, snap, policy)
	device := "/dev/vg0/data"
	for _, upTo := range []int{6, 10} {
		overwrite(t, device, upTo*mib)
		want := int64(upTo) * mib * 100 / 70
		waitFor(t, "an extension", func() bool { return must[Volume](t)(c.Lookup(ctx, "vg0", "snap-1")).SizeBytes > want })
	}
	res, err := w.Stop(ctx)
	if err != nil || res.Extended < 2 || res.PeakBytes < 10*mib || res.ExtendedBytes != res.Last.SizeBytes-8*mib {
		t.Errorf("%+v, %v", res, err)
	}
	if watched.Err() == nil {
		t.Error("the context goes on after Stop")
	}

	watched, w = c.Watch(ctx, snap, WatchPolicy{Interval: 20 * time.Millisecond})
	overwrite(t, device, 60*mib)
	<-watched.Done()
	if cause := context.Cause(watched); !errors.Is(cause, ErrSnapshotOverflow) {
		t.Errorf("cause %v, want ErrSnapshotOverflow", cause)
	}
	if _, err := w.Stop(ctx); !errors.Is(err, ErrSnapshotOverflow) {
		t.Errorf("Stop: %v, want ErrSnapshotOverflow", err)
	}
}

func TestLabAllocatorSharesTheGroup(t *testing.T) {
	ctx, c := t.Context(), labClient(Options{})
	lab.VG(t, "vg0", 256*mib)
	var origins []Volume
	for i := range 4 {
		name := fmt.Sprintf("data-%d", i)
		lab.LV(t, "vg0", name, 32*mib)
		origins = append(origins, must[Volume](t)(c.Lookup(ctx, "vg0", name)))
	}
	inv := must[Inventory](t)(c.Inventory(ctx))
	vg, _ := inv.VG("vg0")
	alloc := c.NewAllocator(func(VG) int64 { return 4 * mib })
	var mu sync.Mutex
	var granted int64
	var wg sync.WaitGroup
	for _, origin := range origins {
		wg.Go(func() {
			want, floor := SizePolicy{FloorBytes: 8 * mib}.Bounds(origin.SizeBytes, vg.ExtentBytes)
			res, err := alloc.Reserve(ctx, "vg0", want, floor)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(res.Release)
			err = res.Use(ctx, func(bytes int64) error {
				snap, err := c.CreateSnapshot(ctx, origin, SnapshotRequest{Name: "s-" + origin.Name, SizeBytes: bytes, Tags: []string{"voltar"}})
				mu.Lock()
				granted += snap.SizeBytes
				mu.Unlock()
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if want := vg.FreeBytes - 4*mib; granted != want {
		t.Errorf("granted %d bytes of %d, want all but the reserve: %d", granted, vg.FreeBytes, want)
	}
	if _, err := alloc.Reserve(ctx, "vg0", 4*mib, 4*mib); !errors.Is(err, ErrNoSpace) {
		t.Errorf("beyond that: %v, want ErrNoSpace", err)
	}
	for _, v := range must[Inventory](t)(c.Inventory(ctx)).Volumes {
		if !v.HasTag("voltar") {
			continue
		}
		if err := c.RemoveSnapshot(ctx, v.VG, v.Name, Expect{UUID: v.UUID}); err != nil {
			t.Error(err)
		}
	}
}

func names(volumes []Volume) string {
	var names []string
	for _, v := range volumes {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestLabVolumesUnder(t *testing.T) {
	ctx, c := t.Context(), labClient(Options{})
	classic(t, c, 64*mib, 8*mib)
	lab.LV(t, "vg0", "swap", 8*mib)
	lab.LV(t, "vg0", "md", 16*mib)
	lab.LV(t, "vg0", "unused", 4*mib)
	inv := must[Inventory](t)(c.Inventory(ctx))

	// A partition of the volume, mounted; a file in it as a loop device; a partition of that; a map over it.
	lab.Do(t, "parted", "--script", "/dev/vg0/data", "mklabel", "gpt", "mkpart", "one", "1MiB", "60MiB")
	lab.Do(t, "kpartx", "-a", "-s", "/dev/vg0/data")
	t.Cleanup(func() { lab.Do(t, "kpartx", "-d", "/dev/vg0/data") })
	lab.Do(t, "mkfs.ext4", "-q", "/dev/mapper/vg0-data1")
	dir := lab.Mount(t, "/dev/mapper/vg0-data1", "rw")
	image := filepath.Join(dir, "image")
	lab.Do(t, "truncate", "-s", "16M", image)
	lab.Do(t, "parted", "--script", image, "mklabel", "gpt", "mkpart", "one", "1MiB", "12MiB")
	loop := strings.TrimSpace(lab.Do(t, "losetup", "-P", "--show", "-f", image))
	t.Cleanup(func() { lab.Do(t, "losetup", "-d", loop) })
	lab.Do(t, "dmsetup", "create", "above", "--table", "0 2048 linear "+loop+"p1 0")
	t.Cleanup(func() { lab.Do(t, "dmsetup", "remove", "above") })
	for _, path := range []string{dir, image, filepath.Join(dir, "not/yet/there"), "/dev/mapper/vg0-data1", loop + "p1", "/dev/mapper/above"} {
		if got := names(must[[]Volume](t)(c.VolumesUnderPath(inv, path))); got != "data" {
			t.Errorf("under %s: %q, want data", path, got)
		}
	}
	if got := names(must[[]Volume](t)(c.VolumesUnderPath(inv, "/dev/vg0/snap-1"))); got != "data snap-1" {
		t.Errorf("under the snapshot: %q", got)
	}
	if got := must[[]Volume](t)(c.VolumesUnderPath(inv, "/proc/self")); len(got) != 0 {
		t.Errorf("under /proc: %v", got)
	}

	lab.Do(t, "mkswap", "/dev/vg0/swap")
	lab.Do(t, "swapon", "/dev/vg0/swap")
	t.Cleanup(func() { lab.Do(t, "swapoff", "/dev/vg0/swap") })
	if got := names(must[[]Volume](t)(c.SwapVolumes(inv))); got != "swap" {
		t.Errorf("swap on %q", got)
	}
}

func TestLabVolumesUnderBtrfs(t *testing.T) {
	c := labClient(Options{})
	lab.VG(t, "vg0", 512*mib)
	one, two := lab.LV(t, "vg0", "one", 128*mib), lab.LV(t, "vg0", "two", 128*mib)
	lab.Do(t, "mkfs.btrfs", "-q", one, two)
	dir := lab.Mount(t, one, "rw")
	inv := must[Inventory](t)(c.Inventory(t.Context()))
	if got := names(must[[]Volume](t)(c.VolumesUnderPath(inv, dir))); got != "one two" {
		t.Errorf("under a btrfs of two devices: %q", got)
	}
}

func TestLabKinds(t *testing.T) {
	ctx, c := t.Context(), labClient(Options{})
	lab.VG(t, "vg0", 256*mib)
	lab.VG(t, "vg1", 64*mib)
	disk := lab.Disk(t, 256*mib)
	lab.Do(t, "vgextend", "vg0", disk)
	lab.Do(t, "lvcreate", "-y", "-i2", "-L", "16M", "-n", "striped", "vg0")
	lab.Do(t, "lvcreate", "-y", "--type", "raid1", "-m1", "-L", "16M", "-n", "r1", "vg0")
	lab.LV(t, "vg0", "segments", 8*mib)
	lab.LV(t, "vg0", "between", 8*mib)
	lab.Do(t, "lvextend", "-L", "+8M", "vg0/segments")
	inv := must[Inventory](t)(c.Inventory(ctx))
	if inv.Warnings != "" {
		t.Errorf("warnings %q", inv.Warnings)
	}
	for name, want := range map[string]Kind{"striped": "striped", "r1": "raid1", "segments": KindLinear} {
		if v := must[Volume](t)(inv.Volume("vg0", name)); v.Kind != want || v.Internal {
			t.Errorf("%s is %s, want %s", name, v.Kind, want)
		}
	}
	if got := filter(inv.Volumes, func(v Volume) bool { return v.Name == "segments" }); len(got) != 1 {
		t.Errorf("a volume of two segments is listed %d times", len(got))
	}
	if got := filter(inv.Volumes, func(v Volume) bool { return v.Internal }); len(got) != 4 {
		t.Errorf("internal volumes %q, want the four of the mirror", names(got))
	}
	if _, ok := inv.VG("vg1"); !ok {
		t.Error("an empty volume group is missing")
	}
	under := must[[]Volume](t)(c.VolumesUnderPath(inv, "/dev/vg0/r1"))
	if got := names(under); got != "r1 r1_rimage_0 r1_rimage_1 r1_rmeta_0 r1_rmeta_1" {
		t.Errorf("under the mirror: %q", got)
	}
	// Leave nothing that the group's removal would stumble on.
	lab.Do(t, "lvremove", "-f", "vg0")
	lab.Do(t, "vgreduce", "vg0", disk)
	lab.Do(t, "pvremove", disk)
}

func TestLabCreateVolume(t *testing.T) {
	ctx, c := t.Context(), labClient(Options{})
	lab.VG(t, "vg0", 64*mib)
	v := must[Volume](t)(c.CreateVolume(ctx, VolumeRequest{VG: "vg0", Name: "restored", SizeBytes: 5 * mib, Tags: []string{"a"}}))
	if v.SizeBytes != 8*mib || !v.Active || v.Kind != KindLinear || !slices.Equal(v.Tags, []string{"a"}) {
		t.Errorf("volume %+v", v)
	}
	for _, err := range []error{
		c.AddTag(ctx, "vg0", "restored", "b"), c.AddTag(ctx, "vg0", "restored", "b"),
		c.DelTag(ctx, "vg0", "restored", "a"), c.DelTag(ctx, "vg0", "restored", "a"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if now := must[Volume](t)(c.Lookup(ctx, "vg0", "restored")); !slices.Equal(now.Tags, []string{"b"}) {
		t.Errorf("tags %q, want b", now.Tags)
	}
	// An old signature must not survive into the next volume there.
	lab.Do(t, "mkfs.ext4", "-q", v.DMPath)
	if err := c.RemoveVolume(ctx, "vg0", "restored", "another-uuid"); !errors.Is(err, ErrNotOurs) {
		t.Errorf("with another UUID: %v, want ErrNotOurs", err)
	}
	if err := c.RemoveVolume(ctx, "vg0", "restored", v.UUID); err != nil {
		t.Fatal(err)
	}
	v = must[Volume](t)(c.CreateVolume(ctx, VolumeRequest{VG: "vg0", Name: "restored", SizeBytes: 8 * mib}))
	if out, err := exec.Command("blkid", "-p", v.DMPath).Output(); hostcmdExit(err) != 2 {
		t.Errorf("blkid found %q (%v) on a new volume", out, err)
	}
	if _, err := c.CreateVolume(ctx, VolumeRequest{VG: "vg0", Name: "big", SizeBytes: 1 << 40}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("too big: %v, want ErrNoSpace", err)
	}
	if _, err := c.CreateVolume(ctx, VolumeRequest{VG: "vg0", Name: "restored", SizeBytes: 4 * mib}); !errors.Is(err, ErrExists) {
		t.Errorf("name in use: %v, want ErrExists", err)
	}
}

func hostcmdExit(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

func TestLabNamesAgreeWithLVM(t *testing.T) {
	lab.VG(t, "vg0", 64*mib)
	long := strings.Repeat("a", 100)
	for _, name := range []string{
		"a", ".a", "a-b", "+x", "_x", "-x", "a b", "snapshot", "snapshot1", "asnapshot", "pvmove0", "x_mlog", "x_tdata1", "x_cvol",
		"a_vorigin", "ü", "a:b", "x_imeta", "x_iorig", "x_pmspare", "x_corig", "x_wcorig", "x_vdata", "x_mimagetmp", "a@b", "a#b",
		long, long + "-------------------", long + long,
	} {
		err := exec.Command("lvcreate", "-qq", "-y", "-Wn", "-Zn", "-L", "4M", "-n", name, "vg0").Run()
		if ours := ValidVolumeName("vg0", name); (ours == nil) != (err == nil) {
			t.Errorf("%q: lvcreate says %v, ValidVolumeName %v", name, err, ours)
		}
		if err == nil {
			lab.Do(t, "lvremove", "-f", "vg0/"+name)
		}
	}
	lab.LV(t, "vg0", "tagged", 4*mib)
	for _, tag := range []string{
		"voltar", "voltar.run.2026-11-20T010001Z", "a@b", "a/b=c!d:e&f#g+h", "-x", "a,b", "a b", "", "ü", "a~", strings.Repeat("t", 1024),
		strings.Repeat("t", 1025),
	} {
		err := exec.Command("lvchange", "-qq", "--addtag", tag, "vg0/tagged").Run()
		// The manual's rules are a little stricter than lvchange.
		strict := strings.HasPrefix(tag, "-") || len(tag) > 1024
		if ours := ValidTag(tag); (ours == nil) != (err == nil && !strict) {
			t.Errorf("tag %q: lvchange says %v, ValidTag %v", tag, err, ours)
		}
	}
}

// commandCounter counts the commands that a Runner runs.
type commandCounter struct {
	slog.Handler
	counts map[string]int
}

func (c *commandCounter) Enabled(context.Context, slog.Level) bool { return true }

func (c *commandCounter) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if argv, ok := a.Value.Any().([]string); ok && a.Key == "argv" {
			c.counts[argv[0]]++
		}
		return true
	})
	return nil
}

// A look at a snapshot costs no command, and lvm2's word of the same moment is the same; one that is gone is lvm2's matter.
func TestLabALookAtASnapshotIsNoCommand(t *testing.T) {
	ctx, c := t.Context(), labClient(Options{})
	lab.VG(t, "vg0", 256*mib)
	origin := lab.LV(t, "vg0", "data", 32*mib)
	lab.Do(t, "lvcreate", "-y", "-L", "64M", "-T", "vg0/pool")
	thin := must[Volume](t)(c.CreateVolume(ctx, VolumeRequest{VG: "vg0", Name: "thin", SizeBytes: 32 * mib, Pool: "pool"}))
	snaps := []Snapshot{snapshotOf(t, c, "data", "snap-1", 8*mib), snapshotOf(t, c, "thin", "snap-2", 0)}
	overwrite(t, origin, 4*mib)
	overwrite(t, thin.DMPath, 4*mib)
	lab.Do(t, "sync")
	for _, snap := range snaps {
		counter := &commandCounter{slog.DiscardHandler, map[string]int{}}
		counted := New(hostcmd.New(hostcmd.Options{Log: slog.New(counter)}), Options{})
		_, w := counted.Watch(ctx, snap, WatchPolicy{Interval: time.Hour})
		for range 5 {
			if err := w.look(ctx); err != nil {
				t.Error(err)
			}
		}
		result, err := w.Stop(ctx)
		if err != nil || result.MissedLooks > 0 || result.PeakPercent == 0 {
			t.Errorf("%s: %+v, %v", snap, result, err)
		}
		if len(counter.counts) > 0 {
			t.Errorf("%s: %v, want no command", snap, counter.counts)
		}
		kernel, lvm2 := result.Last, must[Status](t)(counted.SnapshotStatus(ctx, "vg0", snap.Name))
		t.Logf("%s: the kernel says %+v, lvm2 %+v", snap, kernel, lvm2)
		if math.Abs(kernel.UsedPercent-lvm2.UsedPercent) > 0.02 || math.Abs(kernel.Pool.DataPercent-lvm2.Pool.DataPercent) > 0.02 ||
			math.Abs(kernel.Pool.MetadataPercent-lvm2.Pool.MetadataPercent) > 0.02 {
			t.Errorf("%s: the kernel says %+v, lvm2 %+v", snap, kernel, lvm2)
		}
		kernel.UsedPercent, kernel.UsedBytes = lvm2.UsedPercent, lvm2.UsedBytes
		kernel.Pool.DataPercent, kernel.Pool.MetadataPercent = lvm2.Pool.DataPercent, lvm2.Pool.MetadataPercent
		if kernel != lvm2 {
			t.Errorf("%s: the kernel says %+v, lvm2 %+v", snap, kernel, lvm2)
		}
	}
	overwrite(t, origin, 20*mib)
	if st := must[Status](t)(c.kernelStatus(snaps[0])); !st.Invalid {
		t.Errorf("%+v, want an overflow", st)
	}
	for _, snap := range snaps {
		if err := c.RemoveSnapshot(ctx, "vg0", snap.Name, snap.Expect()); err != nil {
			t.Error(err)
		}
		if _, err := c.watchedStatus(ctx, snap); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s is gone: %v", snap, err)
		}
	}
}
