package lvm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// The state of snapshots and thin pools as the kernel has it (Documentation/admin-guide/device-mapper/snapshot.rst and
// thin-provisioning.rst). It takes none of lvm2's locks, and reads no disk for that.

// errKernelUnknown says that the device-mapper cannot tell the state of a snapshot.
var errKernelUnknown = errors.New("the device-mapper does not tell the state")

// watchedStatus reads the state of a snapshot that a run has made: from the device-mapper, or from lvm2 where that cannot tell, as
// of a snapshot that is gone.
func (c *Client) watchedStatus(ctx context.Context, snap Snapshot) (Status, error) {
	st, err := c.kernelStatus(snap)
	if err != nil && ctx.Err() == nil {
		return c.SnapshotStatus(ctx, snap.VG, snap.Name)
	}
	return st, err
}

// kernelStatus knows devices by the UUIDs that lvm2 gives them: another volume that came under an old name has another one.
func (c *Client) kernelStatus(snap Snapshot) (Status, error) {
	st := Status{VG: snap.VG, Name: snap.Name, UUID: snap.UUID, Thin: snap.IsThin()}
	if !st.Thin {
		target, err := c.targetStatus(dmUUID(snap.VGUUID, snap.UUID), "snapshot")
		if err == nil {
			err = st.setSnapshot(target)
		}
		return st, err
	}
	dev, active := snap.Dev()
	if !active {
		return st, fmt.Errorf("%w: %s is not active", errKernelUnknown, snap)
	}
	uuid, err := c.dmAttribute(dev, "uuid")
	if err != nil || uuid != dmUUID(snap.VGUUID, snap.UUID) {
		return st, fmt.Errorf("%w: device %s is not of %s: %q, %w", errKernelUnknown, dev, snap, uuid, err)
	}
	st.Pool, err = c.kernelPool(snap.Volume)
	return st, err
}

// kernelPool is the state of the pool that a thin volume lives in.
func (c *Client) kernelPool(v Volume) (ThinPool, error) {
	var p ThinPool
	target, err := c.targetStatus(dmUUID(v.VGUUID, v.PoolUUID)+"-tpool", "thin-pool")
	if err == nil {
		p, err = target.thinPool()
	}
	p.VG, p.Name, p.UUID = v.VG, v.Pool, v.PoolUUID
	return p, err
}

// dmUUID is the UUID of a logical volume's device.
func dmUUID(vgUUID, uuid string) string { return "LVM-" + strings.ReplaceAll(vgUUID+uuid, "-", "") }

// dmTarget is the target of a device that has one.
type dmTarget struct {
	kind      string
	sizeBytes int64
	status    []string // its words
}

// maxSectors is what a size in bytes can tell.
const maxSectors = math.MaxInt64 / sectorBytes

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
