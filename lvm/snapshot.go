package lvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"voltar/internal/hostcmd"
	"voltar/internal/say"
)

// SnapshotRequest says how to make a snapshot.
type SnapshotRequest struct {
	Name string
	// SizeBytes is the copy-on-write space of a classic snapshot, rounded up to extents; see SizePolicy. It is not used
	// for thin origins, whose snapshots are thin.
	SizeBytes int64
	// Tags are set in the same step that makes the snapshot, so that it never exists without them. At least one is
	// wanted: by it a snapshot that a failed command left is known again.
	Tags []string
	// Monitor hands a classic snapshot to dmeventd as lvm.conf says. Without it dmeventd is not spoken to: it would be
	// started where it does not run, in whatever mount namespace this process is in, and pin that namespace's mounts; and
	// at overflow it unmounts what is being read. Snapshots that are not watched by a Watcher want it.
	Monitor bool
}

// Snapshot is a snapshot that CreateSnapshot made: active, writable, with a device node at DMPath whose number is
// KernelMajor:KernelMinor. OriginBytes is the size of that device, also of a thin one: the origin's at that moment, which may be
// another than the inventory's.
type Snapshot struct {
	Volume
}

// Expect names the snapshot by its UUID, for RemoveSnapshot.
func (s Snapshot) Expect() Expect { return Expect{UUID: s.UUID} }

// Expect is what a volume must be to be removed. Fields that are set must all match; at least one must be set.
type Expect struct {
	UUID string
	Tag  string
}

func (e Expect) check(v Volume) error {
	switch {
	case e.UUID == "" && e.Tag == "":
		return errors.New("cannot tell whether it is the right volume without a UUID or tag")
	case e.UUID != "" && v.UUID != e.UUID:
		return fmt.Errorf("%w: its UUID is %s, not %s", ErrNotOurs, v.UUID, e.UUID)
	case e.Tag != "" && !v.HasTag(e.Tag):
		return fmt.Errorf("%w: it lacks the tag %s", ErrNotOurs, e.Tag)
	}
	return nil
}

// CreateSnapshot makes a snapshot of origin: a thin one of a thin volume, a classic one of any other. When it returns
// an error it has removed what it made, or says in the error that it could not; where that wraps hostcmd.ErrLeftRunning the
// snapshot may still come into being. The errors that callers may decide on
// are ErrExists, ErrInactive, ErrNoSpace and ErrNotOurs: that another volume has taken the origin's name meanwhile.
func (c *Client) CreateSnapshot(ctx context.Context, origin Volume, req SnapshotRequest) (Snapshot, error) {
	fail := func(err error) (Snapshot, error) {
		return Snapshot{}, fmt.Errorf("snapshot %s as %s: %w", origin, req.Name, err)
	}
	args, err := snapshotArgs(origin, req)
	if err != nil {
		return fail(err)
	}
	err = c.lvcreate(ctx, origin, args)
	if said(err, "already exists in volume group") {
		return fail(errors.Join(ErrExists, err)) // it is another's
	}
	if err != nil && noSpace(err) {
		err = errors.Join(ErrNoSpace, err)
	}
	err = c.resumeAfter(ctx, err, origin.VG, origin.Name)
	var snap Snapshot
	if err == nil {
		snap, err = c.awaitSnapshot(ctx, origin, req)
	}
	if err == nil {
		err = c.checkOrigin(origin, snap)
	}
	if err != nil {
		return fail(errors.Join(err, c.undoCreate(ctx, err, origin.VG, req.Name, req.Tags)))
	}
	return snap, nil
}

// lvcreate runs lvcreate, kept to the disks of the origin's group as long as it sees all of that so.
func (c *Client) lvcreate(ctx context.Context, origin Volume, args []string) error {
	bound := c.bound(origin.VGUUID)
	_, err := c.change(ctx, "lvcreate", append([]string{"--config", settings(unarchived, bound)}, args...)...)
	if bound != "" && isOutOfSight(err) {
		_, err = c.change(ctx, "lvcreate", append([]string{"--config", unarchived}, args...)...)
	}
	return err
}

// awaitSnapshot returns the snapshot that lvcreate has just made, as the device-mapper has it, once its device node is there.
func (c *Client) awaitSnapshot(ctx context.Context, origin Volume, req SnapshotRequest) (Snapshot, error) {
	snap := Snapshot{Volume{
		VG: origin.VG, VGUUID: origin.VGUUID, Name: req.Name, Tags: req.Tags, Kind: KindSnapshot, SizeBytes: req.SizeBytes,
		Origin: origin.Name, OriginUUID: origin.UUID, DataPercent: Unknown, MetadataPercent: Unknown,
		Path: "/dev/" + origin.VG + "/" + req.Name, DMPath: dmPath(origin.VG, req.Name),
	}}
	if origin.IsThin() {
		snap.Kind, snap.Pool, snap.PoolUUID, snap.SizeBytes = KindThin, origin.Pool, origin.PoolUUID, origin.SizeBytes
	}
	if c.look(&snap) == nil {
		return snap, nil
	}
	// udev is late, or lvcreate did not do what it said.
	if _, err := c.ready(ctx, origin.VG, req.Name); err != nil {
		return snap, err
	}
	return snap, c.look(&snap)
}

func dmPath(vg, name string) string { return "/dev/mapper/" + DMName(vg, name) }

// look fills in what only the device-mapper knows of a new snapshot: UUID, number and size.
func (c *Client) look(snap *Snapshot) error {
	dev, name, uuid, err := c.deviceOf(snap.DMPath)
	if err != nil {
		return fmt.Errorf("%w of %s", err, snap)
	}
	snap.UUID = uuidOfDM(uuid)
	if name != DMName(snap.VG, snap.Name) || snap.UUID == "" || uuid != dmUUID(snap.VGUUID, snap.UUID) {
		return fmt.Errorf("cannot use %s for %s: it is the device %s, %q with the UUID %q", snap.DMPath, snap, dev, name, uuid)
	}
	snap.Active, snap.KernelMajor, snap.KernelMinor = true, dev.Major, dev.Minor
	if snap.OriginBytes, err = c.deviceBytes(dev); err != nil {
		return err
	}
	if snap.IsThin() {
		snap.SizeBytes = snap.OriginBytes
		return nil
	}
	if st, statusErr := c.kernelStatus(*snap); statusErr == nil && !st.Invalid {
		snap.SizeBytes = st.SizeBytes // otherwise it is what was asked for, and the watch says what is wrong
	}
	return nil
}

// checkOrigin makes sure that a new snapshot is one of the very volume that was meant: its name may have become another's since the
// inventory. A classic snapshot lies on its origin. A thin one does not tell, and the name is looked at again instead.
func (c *Client) checkOrigin(origin Volume, snap Snapshot) error {
	if snap.IsThin() {
		dev, name, uuid, err := c.deviceOf(dmPath(origin.VG, origin.Name))
		if err == nil && (name != DMName(origin.VG, origin.Name) || uuid != dmUUID(origin.VGUUID, origin.UUID)) {
			err = fmt.Errorf("%w: %s is now the device %s, %q with the UUID %q", ErrNotOurs, origin, dev, name, uuid)
		}
		return err
	}
	dev, _ := snap.Dev()
	under, err := readDevs(filepath.Join(c.sysDir(dev), "slaves"))
	if err == nil && !slices.ContainsFunc(under, func(d Dev) bool { return c.lvUUID(d) == origin.UUID }) {
		err = fmt.Errorf("%w: %s was replaced by another volume meanwhile", ErrNotOurs, origin)
	}
	return err
}

func snapshotArgs(origin Volume, req SnapshotRequest) ([]string, error) {
	if err := ValidVolumeName(origin.VG, req.Name); err != nil {
		return nil, err
	}
	if len(req.Tags) == 0 {
		return nil, errors.New("cannot make a snapshot without a tag to know it by")
	}
	// A classic snapshot of an inactive volume would be inactive itself, and cannot be activated alone.
	if !origin.Active {
		return nil, ErrInactive
	}
	if origin.IsClassicSnapshot() || origin.IsPool() || origin.Internal {
		return nil, fmt.Errorf("cannot snapshot a volume of the kind %s (%s)", origin.Kind, origin.Attr)
	}
	args := []string{"-y", "-s", "-n", req.Name, "-p", "rw"}
	if origin.IsThin() {
		// Thin snapshots have the activation-skip flag by default and would not be active.
		args = append(args, "-kn", "-ay")
	} else {
		if req.SizeBytes <= 0 {
			return nil, fmt.Errorf("cannot make a classic snapshot of %d bytes", req.SizeBytes)
		}
		args = append(args, "-L", bytesArg(req.SizeBytes))
	}
	if !req.Monitor {
		args = append(args, "--ignoremonitoring")
	}
	tags, err := tagArgs("--addtag", req.Tags)
	if err != nil {
		return nil, err
	}
	return append(append(args, tags...), origin.String()), nil
}

// bytesArg writes a size for lvm2, which takes whole sectors only.
func bytesArg(n int64) string { return fmt.Sprintf("%db", roundUp(n, 512)) }

func tagArgs(flag string, tags []string) ([]string, error) {
	var args []string
	for _, tag := range tags {
		if err := ValidTag(tag); err != nil {
			return nil, err
		}
		args = append(args, flag, tag)
	}
	return args, nil
}

// noSpace knows lvm2's words for a full volume group, in the C locale; there is no exit status for it.
func noSpace(err error) bool {
	return said(err, "insufficient free space") || said(err, "Insufficient free space") || said(err, "Insufficient suitable")
}

// ready looks a new volume up and waits for its device node.
func (c *Client) ready(ctx context.Context, vg, name string) (Volume, error) {
	v, err := c.Lookup(ctx, vg, name)
	if err != nil {
		return Volume{}, err
	}
	if !v.Active {
		return v, fmt.Errorf("%s: %w", v, ErrInactive)
	}
	return v, c.waitForNode(ctx, v)
}

// waitForNode waits until v's device node is there and is v's. lvm2 itself waits for udev, so that it is nearly always
// there already, and the slow udevadm settle is needed only where it is not.
func (c *Client) waitForNode(ctx context.Context, v Volume) error {
	deadline := time.Now().Add(c.nodeWait)
	for {
		err := checkNode(v)
		if err == nil {
			return nil
		}
		if !time.Now().Before(deadline) {
			return err
		}
		c.settle(ctx)
		if err := sleep(ctx, min(c.retryDelay, c.nodeWait)); err != nil {
			return err
		}
	}
}

func checkNode(v Volume) error {
	info, err := os.Stat(v.DMPath)
	if err != nil {
		return fmt.Errorf("cannot find the device node of %s: %w", v, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice {
		return fmt.Errorf("cannot use %s for %s: it is no block device", v.DMPath, v)
	}
	want := Dev{Major: v.KernelMajor, Minor: v.KernelMinor}
	if got := devOf(st.Rdev); got != want {
		return fmt.Errorf("cannot use %s for %s: it is the device %s, not %s", v.DMPath, v, got, want)
	}
	return nil
}

// undoCreate removes a volume that a creation which failed may have left, known by the name that was free before and by
// all of its tags. It works after ctx has ended.
func (c *Client) undoCreate(ctx context.Context, failure error, vg, name string, tags []string) error {
	if errors.Is(failure, hostcmd.ErrLeftRunning) {
		return nil // it may yet come into being, and the error says so
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*c.changeTimeout)
	defer cancel()
	v, err := c.Lookup(ctx, vg, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil && (len(tags) == 0 || slices.ContainsFunc(tags, func(tag string) bool { return !v.HasTag(tag) })) {
		err = ErrNotOurs
	}
	if err == nil {
		err = c.remove(ctx, v)
	}
	if err != nil {
		return fmt.Errorf("remove what is left of %s/%s: %w", vg, name, err)
	}
	return nil
}

// Status is the state of a snapshot.
type Status struct {
	VG, Name, UUID string
	Invalid        bool // overflowed: nothing read from it counts
	Merging        bool

	// Of classic snapshots.
	SizeBytes   int64   // copy-on-write space
	UsedBytes   int64   // of it, to a hundredth of a percent
	UsedPercent float64 // 0 to 100

	// Of thin snapshots.
	Thin bool
	Pool ThinPool
}

// SnapshotStatus reads the state of a snapshot. A state that lvm2 cannot tell, as of an inactive snapshot, is an error
// that wraps ErrStatusUnknown, never a valid status.
func (c *Client) SnapshotStatus(ctx context.Context, vg, name string) (Status, error) {
	v, err := c.Lookup(ctx, vg, name)
	if err != nil {
		return Status{}, err
	}
	st := Status{VG: vg, Name: name, UUID: v.UUID, Merging: v.Merging}
	switch {
	case v.IsThin():
		if !v.Active {
			return st, fmt.Errorf("read the state of %s: %w: it is not active", v, ErrStatusUnknown)
		}
		st.Thin = true
		st.Pool, err = c.ThinPool(ctx, vg, v.Pool)
		return st, err
	case !v.IsClassicSnapshot():
		return st, fmt.Errorf("read the state of %s: %w: it is no snapshot", v, ErrNotOurs)
	case !v.Active || !v.ValidityKnown || v.DataPercent == Unknown:
		return st, fmt.Errorf("read the state of %s: %w (%s)", v, ErrStatusUnknown, v.Attr)
	}
	st.SizeBytes, st.UsedPercent = v.SizeBytes, v.DataPercent
	st.UsedBytes = percentOf(v.SizeBytes, v.DataPercent)
	st.Invalid = v.SnapshotInvalid
	return st, nil
}

func percentOf(bytes int64, percent float64) int64 { return int64(float64(bytes) * percent / 100) }

// ExtendSnapshot gives a classic snapshot addBytes more of copy-on-write space, rounded up to extents, and returns
// its new size. Callers share the volume group's space through an Allocator.
func (c *Client) ExtendSnapshot(ctx context.Context, vg, name string, addBytes int64) (int64, error) {
	fail := func(err error) (int64, error) {
		return 0, fmt.Errorf("extend snapshot %s/%s by %s: %w", vg, name, say.Size(addBytes), err)
	}
	if addBytes <= 0 {
		return fail(errors.New("cannot extend by nothing"))
	}
	v, err := c.Lookup(ctx, vg, name)
	if err != nil {
		return fail(err)
	}
	if !v.IsClassicSnapshot() {
		return fail(fmt.Errorf("%w: it is no classic snapshot but %s", ErrNotOurs, v.Kind))
	}
	config := settings(unmonitored, unarchived)
	if _, err := c.change(ctx, "lvextend", "-y", "--config", config, "-L", "+"+bytesArg(addBytes), v.String()); err != nil {
		if noSpace(err) {
			err = errors.Join(ErrNoSpace, err)
		}
		return fail(c.resumeAfter(ctx, err, vg, v.Origin))
	}
	v, err = c.Lookup(ctx, vg, name)
	if err != nil {
		return fail(err)
	}
	return v.SizeBytes, nil
}

// RemoveSnapshot removes a snapshot after it has been confirmed to be one and to be what is expected; one that is gone
// already is a success. Something that holds the snapshot for a moment is waited for; what holds it longer is named in
// an error that wraps ErrBusy. A volume group that cannot be seen is an error (ErrVGNotFound): the snapshot may
// come back with its disks.
func (c *Client) RemoveSnapshot(ctx context.Context, vg, name string, expect Expect) error {
	v, err := c.Lookup(ctx, vg, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		err = expect.check(v)
	}
	// A thin snapshot whose origin was removed looks like any thin volume; then it takes UUID and tag to be sure.
	isSnapshot := v.IsClassicSnapshot() || v.IsThinSnapshot() || (v.IsThin() && expect.UUID != "" && expect.Tag != "")
	if err == nil && !isSnapshot {
		err = fmt.Errorf("%w: it is no snapshot but %s", ErrNotOurs, v.Kind)
	}
	if err == nil {
		err = c.remove(ctx, v)
	}
	if err != nil {
		return fmt.Errorf("remove snapshot %s/%s: %w", vg, name, err)
	}
	return nil
}

// RemoveOwn removes a snapshot that CreateSnapshot returned. It takes one command where nothing is in the way; otherwise it is
// RemoveSnapshot, with UUID and a tag to know the snapshot by.
func (c *Client) RemoveOwn(ctx context.Context, snap Snapshot) error {
	tag := snap.Tags[len(snap.Tags)-1]
	// The selection makes lvm2 compare UUID and tag under its own lock, and remove nothing while it does not see all of the group.
	selection := fmt.Sprintf(`lv_uuid=%s && lv_tags={"%s"} && vg_missing_pv_count=0`, snap.UUID, tag)
	config := settings(unmonitored, unarchived, c.bound(snap.VGUUID))
	res, err := c.change(ctx, "lvremove", "-f", "-y", "--config", config, "-S", selection, snap.String())
	if err != nil && hostcmd.ExitCode(err) < 0 {
		// Not run, or still at it: another try would wait behind it.
		return fmt.Errorf("remove snapshot %s: %w", snap, c.explainBusy(ctx, snap.Volume, c.resumeAfter(ctx, err, snap.VG, snap.Origin)))
	}
	// lvremove succeeds as well when nothing was selected.
	if err == nil && bytes.Contains(res.Stdout, []byte("successfully removed")) && !c.hasDevice(snap.Volume) {
		return nil
	}
	return c.RemoveSnapshot(ctx, snap.VG, snap.Name, Expect{UUID: snap.UUID, Tag: tag})
}

// hasDevice tells whether a volume still has the device that it had.
func (c *Client) hasDevice(v Volume) bool {
	dev, active := v.Dev()
	uuid, err := c.dmAttribute(dev, "uuid")
	return active && err == nil && uuid == dmUUID(v.VGUUID, v.UUID)
}

// RemoveVolume removes a volume that CreateVolume made, known by its UUID; one that is gone already is a success. It
// refuses the origin of a classic snapshot, which lvm2 would remove with it.
func (c *Client) RemoveVolume(ctx context.Context, vg, name, uuid string) error {
	v, err := c.Lookup(ctx, vg, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		err = Expect{UUID: uuid}.check(v)
	}
	if err == nil && (v.HasClassicSnapshots() || v.IsPool() || v.Internal) {
		err = fmt.Errorf("cannot remove %s: other volumes depend on it", v)
	}
	if err == nil {
		err = c.remove(ctx, v)
	}
	if err != nil {
		return fmt.Errorf("remove volume %s/%s: %w", vg, name, err)
	}
	return nil
}

// remove removes the very volume v, in bounded tries. It never deactivates a classic snapshot first, which would
// deactivate its origin with it.
func (c *Client) remove(ctx context.Context, v Volume) error {
	delay := c.retryDelay
	for attempt := 1; ; attempt++ {
		// The selection makes lvm2 compare the UUID under its own lock: a name that changed hands meanwhile is left alone.
		_, err := c.change(ctx, "lvremove", "-f", "-y", "--config", settings(unmonitored, unarchived),
			"-S", "lv_uuid="+v.UUID, v.String())
		if err != nil && hostcmd.ExitCode(err) < 0 {
			// Not run, or still at it: another try would wait behind it.
			return c.explainBusy(ctx, v, c.resumeAfter(ctx, err, v.VG, v.Origin))
		}
		now, lookErr := c.Lookup(ctx, v.VG, v.Name)
		switch {
		case errors.Is(lookErr, ErrNotFound), lookErr == nil && now.UUID != v.UUID:
			return nil
		case lookErr != nil:
			return errors.Join(err, lookErr)
		case err == nil:
			err = errors.New("cannot remove it: lvremove reports success, but it is still there")
		}
		if attempt >= c.removeAttempts {
			return c.explainBusy(ctx, now, fmt.Errorf("after %d tries: %w", attempt, err))
		}
		c.settle(ctx)
		if sleepErr := sleep(ctx, delay); sleepErr != nil {
			return c.explainBusy(ctx, now, errors.Join(sleepErr, err))
		}
		delay = min(2*delay, 4*time.Second)
	}
}

// explainBusy adds to the error of a removal who holds the volume.
func (c *Client) explainBusy(ctx context.Context, v Volume, err error) error {
	dev, active := v.Dev()
	if !active {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	holders := c.HoldersOf(dev)
	if len(holders) == 0 && !v.Open {
		return err
	}
	words := make([]string, 0, len(holders)+1)
	for _, h := range holders {
		words = append(words, h.String())
	}
	if len(words) == 0 {
		words = append(words, "something that cannot be found, such as the kernel or a process in another PID namespace")
	}
	count := ""
	if n, countErr := c.openCount(ctx, dev); countErr == nil {
		count = fmt.Sprintf(" (open count %d)", n)
	}
	return say.WithHint(fmt.Errorf("%w%s: held by %s\n%w", ErrBusy, count, strings.Join(words, ", "), err),
		"end what holds it, then let `voltar cleanup` try again")
}

// Merge is how a merge ended.
type Merge struct {
	// Deferred is set when origin or snapshot are in use: the merge then begins when the origin is activated next. Until
	// then the origin shows its present content, and afterwards the snapshot's.
	Deferred bool
}

// MergeSnapshot brings the origin of a snapshot back to the snapshot's content and removes the snapshot, once it has
// been confirmed as for RemoveSnapshot. It waits for a merge that runs, as long as ctx and Options.MergeTimeout let it: a merge that
// is left halfway goes on in the kernel, and is finished at the latest when the origin is activated next.
func (c *Client) MergeSnapshot(ctx context.Context, vg, name string, expect Expect) (Merge, error) {
	fail := func(err error) (Merge, error) {
		return Merge{}, fmt.Errorf("merge snapshot %s/%s: %w", vg, name, err)
	}
	v, err := c.Lookup(ctx, vg, name)
	if err != nil {
		return fail(err)
	}
	if err := expect.check(v); err != nil {
		return fail(err)
	}
	if v.Origin == "" {
		return fail(fmt.Errorf("%w: it is no snapshot but %s", ErrNotOurs, v.Kind))
	}
	if v.SnapshotInvalid {
		return fail(ErrSnapshotOverflow)
	}
	// It may take hours, and once the merge runs nothing is suspended: this one command ends with ctx.
	cmd := hostcmd.Cmd{Name: "lvconvert", Args: []string{"-y", "--merge", "-i", "1", v.String()}, Timeout: c.mergeTimeout}
	_, mergeErr := c.runChange(ctx, cmd)
	if mergeErr != nil {
		mergeErr = c.resumeAfter(ctx, mergeErr, vg, v.Origin)
	}
	inv, err := c.Inventory(context.WithoutCancel(ctx))
	if err != nil {
		return fail(errors.Join(mergeErr, err))
	}
	i := slices.IndexFunc(inv.Volumes, func(now Volume) bool { return now.UUID == v.UUID && now.Merging })
	switch {
	case mergeErr != nil && i >= 0:
		return fail(say.WithHint(fmt.Errorf("%w; the merge goes on in the kernel", mergeErr),
			fmt.Sprintf("`lvs -a -o name,data_percent %s` shows how much is left, and `lvchange --poll y %s/%s` has lvm2 watch it to its end",
				vg, vg, v.Origin)))
	case mergeErr != nil:
		return fail(mergeErr)
	}
	return Merge{Deferred: i >= 0 && inv.Volumes[i].Name == v.Name}, nil
}
