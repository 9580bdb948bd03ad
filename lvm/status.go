package lvm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"voltar/internal/hostcmd"
)

// The state of snapshots and thin pools as the kernel has it (Documentation/admin-guide/device-mapper/snapshot.rst and
// thin-provisioning.rst). dmsetup(8) asks for it without lvm2's locks, and reads no disk for that.

// errKernelUnknown says that the device-mapper cannot tell the state of a snapshot.
var errKernelUnknown = errors.New("the device-mapper does not tell the state")

// watchedStatus reads the state of a snapshot that a run has made: from the device-mapper, or from lvm2 where that cannot tell, as
// of a snapshot that is gone.
func (c *Client) watchedStatus(ctx context.Context, snap Snapshot) (Status, error) {
	st, err := c.kernelStatus(ctx, snap)
	if err != nil && ctx.Err() == nil {
		return c.SnapshotStatus(ctx, snap.VG, snap.Name)
	}
	return st, err
}

// kernelStatus knows devices by the UUIDs that lvm2 gives them: another volume that came under an old name has another one.
func (c *Client) kernelStatus(ctx context.Context, snap Snapshot) (Status, error) {
	st := Status{VG: snap.VG, Name: snap.Name, UUID: snap.UUID, Thin: snap.IsThin()}
	if !st.Thin {
		target, err := c.targetStatus(ctx, dmUUID(snap.VGUUID, snap.UUID), "snapshot")
		if err == nil {
			err = st.setSnapshot(target)
		}
		return st, err
	}
	dev, active := snap.Dev()
	if !active {
		return st, fmt.Errorf("%w: %s is not active", errKernelUnknown, snap)
	}
	if uuid, err := c.dmAttribute(dev, "uuid"); err != nil || uuid != dmUUID(snap.VGUUID, snap.UUID) {
		return st, fmt.Errorf("%w: device %s is not of %s: %q, %w", errKernelUnknown, dev, snap, uuid, err)
	}
	target, err := c.targetStatus(ctx, dmUUID(snap.VGUUID, snap.PoolUUID)+"-tpool", "thin-pool")
	if err == nil {
		st.Pool, err = target.thinPool()
	}
	st.Pool.VG, st.Pool.Name, st.Pool.UUID = snap.VG, snap.Pool, snap.PoolUUID
	return st, err
}

// dmUUID is the UUID of a logical volume's device.
func dmUUID(vgUUID, uuid string) string { return "LVM-" + strings.ReplaceAll(vgUUID+uuid, "-", "") }

// dmTarget is the target of a device that has one.
type dmTarget struct {
	sizeBytes int64
	status    []string // its words
}

func (c *Client) targetStatus(ctx context.Context, uuid, kind string) (dmTarget, error) {
	// Without --noflush a pool would first write its metadata.
	cmd := hostcmd.Cmd{Name: "dmsetup", Args: []string{"status", "--noflush", "--uuid", uuid}, Env: c.env, Timeout: settleTimeout}
	res, err := c.run.Run(ctx, cmd)
	if err != nil {
		return dmTarget{}, err
	}
	return parseTarget(string(res.Stdout), kind)
}

// parseTarget reads a whole line of `dmsetup status`: START SECTORS KIND STATUS.
func parseTarget(text, kind string) (dmTarget, error) {
	line, whole := strings.CutSuffix(text, "\n")
	fields := strings.Fields(line)
	if !whole || strings.Contains(line, "\n") || len(fields) < 4 || fields[0] != "0" || fields[2] != kind {
		return dmTarget{}, fmt.Errorf("%w: %.200q is not the status of a %s", errKernelUnknown, text, kind)
	}
	sectors, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil || sectors <= 0 || sectors > math.MaxInt64/sectorBytes {
		return dmTarget{}, fmt.Errorf("%w: %.200q", errKernelUnknown, text)
	}
	return dmTarget{sizeBytes: sectors * sectorBytes, status: fields[3:]}, nil
}

// setSnapshot takes the status of a classic snapshot: USED/TOTAL METADATA, in sectors, or a word for what it is instead. Of one that has
// overflowed the kernel tells no sizes.
func (st *Status) setSnapshot(t dmTarget) error {
	if word := strings.Join(t.status, " "); word == "Invalid" || word == "Overflow" {
		st.Invalid, st.UsedPercent = true, 100
		return nil
	}
	if len(t.status) == 2 {
		used, total, err := parseShare(t.status[0], sectorBytes)
		if _, metaErr := strconv.ParseUint(t.status[1], 10, 64); err == nil && metaErr == nil {
			st.SizeBytes, st.UsedBytes, st.UsedPercent = total, used, percent(used, total)
			return nil
		}
	}
	return fmt.Errorf("%w: %.200q of a snapshot", errKernelUnknown, t.status) // "Merge failed" among them
}

// metadataBlockBytes is the unit of a thin pool's metadata.
const metadataBlockBytes = 4096

// thinPool takes the status of a thin pool: TRANSACTION METADATA-USED/TOTAL DATA-USED/TOTAL HELD-ROOT MODE DISCARDS WHEN-FULL
// needs_check|-, and more that came later; or Fail.
func (t dmTarget) thinPool() (ThinPool, error) {
	p := ThinPool{SizeBytes: t.sizeBytes, DataPercent: Unknown, MetadataPercent: Unknown}
	if len(t.status) == 1 && t.status[0] == "Fail" {
		p.Health = "failed"
		return p, nil
	}
	unknown := fmt.Errorf("%w: %.200q of a thin pool", errKernelUnknown, t.status)
	if len(t.status) < 8 {
		return p, unknown
	}
	metaUsed, meta, metaErr := parseShare(t.status[1], metadataBlockBytes)
	dataUsed, data, dataErr := parseShare(t.status[2], 1)
	if metaErr != nil || dataErr != nil {
		return p, unknown
	}
	p.MetadataBytes, p.MetadataPercent, p.DataPercent = meta, percent(metaUsed, meta), percent(dataUsed, data)
	health, known := map[string]string{"rw": "", "ro": "metadata_read_only", "out_of_data_space": "out_of_data"}[t.status[4]]
	if !known {
		return p, unknown
	}
	p.Health = health // in lvm2's words
	switch t.status[6] {
	case "queue_if_no_space":
		p.WhenFull = "queue"
	case "error_if_no_space":
		p.WhenFull = "error"
	default:
		return p, unknown
	}
	switch t.status[7] {
	case "needs_check":
		p.CheckNeeded = true
	case "-":
	default:
		return p, unknown
	}
	return p, nil
}

// parseShare reads USED/TOTAL, in units of so many bytes.
func parseShare(text string, unitBytes int64) (usedBytes, totalBytes int64, err error) {
	first, second, _ := strings.Cut(text, "/")
	used, usedErr := strconv.ParseInt(first, 10, 64)
	total, totalErr := strconv.ParseInt(second, 10, 64)
	if usedErr != nil || totalErr != nil || used < 0 || total <= 0 || used > total || total > math.MaxInt64/unitBytes {
		return 0, 0, fmt.Errorf("%w: %.100q is no share", errKernelUnknown, text)
	}
	return used * unitBytes, total * unitBytes, nil
}

func percent(part, of int64) float64 { return 100 * float64(part) / float64(of) }
