package lvm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// What of a thin snapshot can differ from an older one of the same pool, as the pool's metadata has it: two thin volumes that have
// the same data block at a place hold the same there, as the pool gives whoever writes to a shared block one of its own first.

// MappedBytes is how much the pool of an active thin volume has allocated for it.
func (c *Client) MappedBytes(v Volume) (int64, error) {
	target, err := c.targetStatus(dmUUID(v.VGUUID, v.UUID), "thin")
	if err != nil {
		return 0, err
	}
	var sectors int64 = -1
	if len(target.status) > 0 { // MAPPED-SECTORS HIGHEST-SECTOR, or a word for what is wrong
		if sectors, err = strconv.ParseInt(target.status[0], 10, 64); err != nil {
			sectors = -1
		}
	}
	if sectors < 0 || sectors > maxSectors {
		return 0, fmt.Errorf("%w: %.200q of a thin volume", errKernelUnknown, target.status)
	}
	return sectors * sectorBytes, nil
}

// ThinBefore is a thin device of a pool, and how much of it was mapped when it was known to hold what it is compared for.
type ThinBefore struct {
	ID          uint64
	MappedBytes int64
}

// ChangedRanges returns what of the active thin volume v, which is d in its pool, may hold something else than another
// thin device of that pool did before, from the metadata snapshot that the pool holds. Ranges that are less than joinBytes apart are
// joined, which bounds how many there are. Nobody writes to v meanwhile.
func (c *Client) ChangedRanges(ctx context.Context, v Volume, d ThinDevice, since ThinBefore, joinBytes int64) ([]ByteRange, error) {
	fail := func(err error) ([]ByteRange, error) {
		return nil, fmt.Errorf("compare thin devices %d and %d of %s: %w", since.ID, d.ID, d.Pool.Name, err)
	}
	if since.ID == d.ID {
		return fail(fmt.Errorf("%w: they are one", ErrNoMapping))
	}
	mapped, err := c.MappedBytes(v)
	if err != nil {
		return fail(err)
	}
	m := &differences{
		blockBytes: d.Pool.BlockBytes, joinBytes: joinBytes, ids: [2]uint64{since.ID, d.ID},
		mappedBytes: [2]int64{since.MappedBytes, mapped},
	}
	err = c.readThin(ctx, m, "thin_delta", "--metadata-snap", "--thin1", strconv.FormatUint(since.ID, 10),
		"--thin2", strconv.FormatUint(d.ID, 10), d.Pool.Metadata)
	if err != nil {
		return fail(err)
	}
	return m.ranges, nil
}

// differences are what thin_delta(8) writes. Whatever it does not know makes the whole unusable, and so does a number of blocks other
// than the one that the kernel tells.
type differences struct {
	blockBytes, joinBytes int64
	ids                   [2]uint64
	mappedBytes           [2]int64

	ranges         []ByteRange
	endBlock       int64    // of the last element
	blocks         [2]int64 // that each device has
	opened, inDiff bool
	closed         bool
}

func (m *differences) element(name string, attributes map[string]string) bool {
	ok := true
	number := func(key string) int64 {
		n, err := strconv.ParseInt(attributes[key], 10, 48)
		ok = ok && err == nil && n >= 0
		return n
	}
	switch name {
	case "superblock":
		ok = !m.opened && number("data_block_size")*sectorBytes == m.blockBytes && ok
		m.opened = true
	case "diff":
		ok = m.opened && !m.inDiff && uint64(number("left")) == m.ids[0] && uint64(number("right")) == m.ids[1] && ok
		m.inDiff = true
	case "same", "different", "left_only", "right_only":
		begin, length := number("begin"), number("length")
		if !ok || !m.inDiff || m.closed || begin < m.endBlock || length == 0 || begin+length > math.MaxInt64/m.blockBytes {
			return false
		}
		m.endBlock = begin + length
		if name != "right_only" {
			m.blocks[0] += length
		}
		if name != "left_only" {
			m.blocks[1] += length
		}
		if name != "same" {
			m.add(ByteRange{OffsetBytes: begin * m.blockBytes, LengthBytes: length * m.blockBytes})
		}
	case "/diff":
	case "/superblock":
		m.closed = m.inDiff
	default:
		return false
	}
	return ok
}

func (m *differences) check() error {
	if !m.closed || m.blocks[0]*m.blockBytes != m.mappedBytes[0] || m.blocks[1]*m.blockBytes != m.mappedBytes[1] {
		return fmt.Errorf("%w: thin_delta's answer is not whole, or the first device was written to: "+
			"%d blocks of %d bytes, and %d bytes are allocated", ErrNoMapping, m.blocks, m.blockBytes, m.mappedBytes)
	}
	return nil
}

func (m *differences) add(r ByteRange) {
	if n := len(m.ranges); n > 0 {
		if last := &m.ranges[n-1]; r.OffsetBytes-(last.OffsetBytes+last.LengthBytes) < m.joinBytes {
			last.LengthBytes = r.OffsetBytes + r.LengthBytes - last.OffsetBytes
			return
		}
	}
	m.ranges = append(m.ranges, r)
}

// SetAside leaves a thin snapshot that CreateSnapshot made for later: without a device, read-only, not activated with its group, and
// with one more tag.
func (c *Client) SetAside(ctx context.Context, snap Snapshot, tag string) error {
	tags, err := tagArgs("--addtag", []string{tag})
	config := settings(unmonitored, unarchived, c.bound(snap.VGUUID))
	if err == nil {
		_, err = c.change(ctx, "lvchange", "-y", "-an", "--config", config, snap.String())
	}
	if err == nil && c.hasDevice(snap.Volume) {
		err = errors.New("lvchange succeeded, and its device is there")
	}
	if err == nil {
		_, err = c.change(ctx, "lvchange", append(append([]string{"-y", "-ky", "-pr", "--config", config}, tags...), snap.String())...)
	}
	if err != nil {
		return fmt.Errorf("set snapshot %s aside: %w", snap, err)
	}
	return nil
}
