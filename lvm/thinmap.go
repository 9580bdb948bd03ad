package lvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"voltar/internal/hostcmd"
	"voltar/internal/say"
)

// Which blocks of a thin volume its pool has allocated, as the pool's metadata has it. The kernel lets them be read while
// the pool is in use through a metadata snapshot (Documentation/admin-guide/device-mapper/thin-provisioning.rst), of which
// a pool can hold one at a time; it stays until it is released, also over a restart of the host.

const (
	thinDumpTimeout = 10 * time.Minute
	sectorBytes     = 512
	maxThinLine     = 64 << 10 // of thin_dump's output
)

var (
	// ErrMetadataHeld says that somebody else holds the metadata snapshot of a thin pool.
	ErrMetadataHeld = errors.New("a metadata snapshot of the thin pool is held already")
	// ErrRefused says that the kernel did not take a metadata snapshot.
	ErrRefused = errors.New("the thin pool gives no snapshot of its metadata")
	// ErrNoMapping says that a volume's allocation does not tell all of its content, or is in a form that is not known.
	ErrNoMapping = errors.New("the allocation cannot be used")
)

// ByteRange is a part of a volume.
type ByteRange struct{ OffsetBytes, LengthBytes int64 }

// PoolDevice is the device-mapper device of an active thin pool.
type PoolDevice struct {
	Name, UUID string // of the device, as device-mapper has them
	Metadata   string // path of the device that holds the metadata
	BlockBytes int64
}

// ThinDevice is an active thin volume as its pool knows it.
type ThinDevice struct {
	Pool PoolDevice
	ID   uint64 // within the pool
}

// ThinDevice returns the pool and the number of an active thin volume. A volume that reads from an external origin where
// nothing is allocated is refused with ErrNoMapping.
func (c *Client) ThinDevice(ctx context.Context, v Volume) (ThinDevice, error) {
	d, err := c.thinDevice(ctx, v)
	if err != nil {
		return d, fmt.Errorf("find the thin device of %s: %w", v, err)
	}
	return d, nil
}

func (c *Client) thinDevice(ctx context.Context, v Volume) (d ThinDevice, err error) {
	if !v.Active || v.DMPath == "" {
		return d, ErrInactive
	}
	thin, err := c.table(ctx, filepath.Base(v.DMPath), "thin")
	if err != nil {
		return d, err
	}
	if len(thin) != 2 {
		return d, fmt.Errorf("%w: it has an external origin", ErrNoMapping)
	}
	if d.ID, err = strconv.ParseUint(thin[1], 10, 24); err != nil {
		return d, fmt.Errorf("%w: device id %q", ErrNoMapping, thin[1])
	}
	pool, err := ParseDev(thin[0])
	if err != nil {
		return d, err
	}
	if d.Pool.Name, err = c.dmAttribute(pool, "name"); err != nil {
		return d, err
	}
	if d.Pool.UUID, err = c.dmAttribute(pool, "uuid"); err != nil {
		return d, err
	}
	args, err := c.table(ctx, d.Pool.Name, "thin-pool")
	if err != nil {
		return d, err
	}
	if len(args) < 3 {
		return d, fmt.Errorf("%w: thin pool with the table %q", ErrNoMapping, args)
	}
	metadata, err := ParseDev(args[0])
	if err != nil {
		return d, err
	}
	name, err := c.dmAttribute(metadata, "name")
	if err != nil {
		return d, err
	}
	d.Pool.Metadata = "/dev/mapper/" + name
	sectors, err := strconv.ParseInt(args[2], 10, 32)
	if err != nil || sectors <= 0 {
		return d, fmt.Errorf("%w: thin pool with blocks of %q sectors", ErrNoMapping, args[2])
	}
	d.Pool.BlockBytes = sectors * sectorBytes
	return d, nil
}

// table returns the arguments of a device whose table is one target of a type.
func (c *Client) table(ctx context.Context, name, target string) ([]string, error) {
	return c.dmFields(ctx, "table", name, target)
}

func (c *Client) dmFields(ctx context.Context, command, name, target string) ([]string, error) {
	res, err := c.run.Run(ctx, hostcmd.Cmd{Name: "dmsetup", Args: []string{command, name}, Env: c.env})
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(res.Stdout))
	if len(fields) < 3 || fields[2] != target || strings.Count(strings.TrimSpace(string(res.Stdout)), "\n") > 0 {
		return nil, fmt.Errorf("%w: the %s of %s is %.200q", ErrNoMapping, command, name, res.Stdout)
	}
	return fields[3:], nil
}

func (c *Client) dmAttribute(dev Dev, attribute string) (string, error) {
	data, err := os.ReadFile(filepath.Join(c.sysDir(dev), "dm", attribute))
	if err != nil {
		return "", fmt.Errorf("cannot read the %s of device %s: %w", attribute, dev, err)
	}
	return strings.TrimSpace(string(data)), nil
}

// PoolByUUID returns the active pool device of a UUID, or an error that wraps ErrInactive: without its device a pool can
// neither hold nor release anything. Only Name and UUID are filled in.
func (c *Client) PoolByUUID(uuid string) (PoolDevice, error) {
	paths, err := filepath.Glob(filepath.Join(c.sys, "block/dm-*/dm/uuid"))
	if err != nil {
		return PoolDevice{}, err
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(data)) != uuid {
			continue // another, or gone since
		}
		name, err := os.ReadFile(filepath.Join(filepath.Dir(path), "name"))
		if err != nil {
			return PoolDevice{}, fmt.Errorf("cannot read the name of pool %s: %w", uuid, err)
		}
		return PoolDevice{Name: strings.TrimSpace(string(name)), UUID: uuid}, nil
	}
	return PoolDevice{}, fmt.Errorf("find thin pool %s: %w", uuid, ErrInactive)
}

// heldRootField is that of a thin pool's status, behind its transaction and the use of metadata and data.
const heldRootField = 3

// HeldMetadata returns the root block of the metadata snapshot that a pool holds, "" for none.
func (c *Client) HeldMetadata(ctx context.Context, p PoolDevice) (string, error) {
	status, err := c.dmFields(ctx, "status", p.Name, "thin-pool")
	if err != nil {
		return "", err
	}
	if len(status) <= heldRootField {
		return "", fmt.Errorf("%w: thin pool with the status %q", ErrNoMapping, status)
	}
	if root := status[heldRootField]; root != "-" {
		return root, nil
	}
	return "", nil
}

// CheckUnheld returns an error that wraps ErrMetadataHeld when a pool holds a metadata snapshot.
func (c *Client) CheckUnheld(ctx context.Context, p PoolDevice) error {
	root, err := c.HeldMetadata(ctx, p)
	if err == nil && root != "" {
		err = say.WithHint(fmt.Errorf("%w (block %s)", ErrMetadataHeld, root),
			fmt.Sprintf("unless something is reading it, `dmsetup message %s 0 release_metadata_snap`", p.Name))
	}
	return err
}

// HoldMetadata takes the metadata snapshot of a pool and returns its root block. The caller makes sure that nobody else
// of its kind does so at the same time, and releases it. An error that wraps ErrRefused took nothing.
func (c *Client) HoldMetadata(ctx context.Context, p PoolDevice) (root string, err error) {
	if err := c.poolMessage(ctx, p, "reserve_metadata_snap"); err != nil {
		if hostcmd.ExitCode(err) > 0 {
			err = errors.Join(ErrRefused, err)
		}
		return "", fmt.Errorf("take a metadata snapshot: %w", err)
	}
	if root, err = c.HeldMetadata(ctx, p); err == nil && root == "" {
		err = errors.New("cannot find the metadata snapshot that was taken")
	}
	return root, err
}

// ReleaseMetadata releases the metadata snapshot of a pool if its root block is the one given, or any when root is "". It
// reports whether there was one to release; none is no error, and neither is another.
func (c *Client) ReleaseMetadata(ctx context.Context, p PoolDevice, root string) (released bool, err error) {
	held, err := c.HeldMetadata(ctx, p)
	if err != nil || held == "" || (root != "" && held != root) {
		return false, err
	}
	if err := c.poolMessage(ctx, p, "release_metadata_snap"); err != nil {
		return false, fmt.Errorf("release the metadata snapshot of %s: %w", p.Name, err)
	}
	return true, nil
}

func (c *Client) poolMessage(ctx context.Context, p PoolDevice, message string) error {
	_, err := c.change(ctx, "dmsetup", "message", p.Name, "0", message)
	return err
}

// MappedRanges returns what of a thin volume of sizeBytes is allocated, by offset, from the metadata snapshot that its
// pool holds. Ranges that are less than joinBytes apart are joined, which bounds how many there are. All outside of them
// reads as zeros.
func (c *Client) MappedRanges(ctx context.Context, d ThinDevice, sizeBytes, joinBytes int64) ([]ByteRange, error) {
	m := &mappings{device: d, sizeBytes: sizeBytes, joinBytes: joinBytes}
	err := c.readThin(ctx, m, "thin_dump", "--metadata-snap", "--dev-id", strconv.FormatUint(d.ID, 10), d.Pool.Metadata)
	if err != nil {
		return nil, fmt.Errorf("read the allocation of thin device %d of %s: %w", d.ID, d.Pool.Name, err)
	}
	return m.ranges, nil
}

// thinXML is what a tool of thin pools writes.
type thinXML interface {
	element(name string, attributes map[string]string) (known bool) // takes the next one
	check() error                                                   // at the end: that nothing is missing
}

// readThin runs a tool of thin pools and reads what it writes.
func (c *Client) readThin(ctx context.Context, into thinXML, name string, args ...string) error {
	lines := &lineReader{into: into}
	_, err := c.run.Run(ctx, hostcmd.Cmd{Name: name, Args: args, Stdout: lines, Timeout: thinDumpTimeout})
	if lines.err != nil {
		return lines.err // what the command then says is about its closed output
	}
	if err != nil {
		return err
	}
	return lines.end()
}

// lineReader reads XML that has an element on each line, as it comes: that of a large volume has gigabytes.
type lineReader struct {
	into thinXML
	line []byte
	err  error
}

// Write implements io.Writer.
func (r *lineReader) Write(p []byte) (int, error) {
	for rest := p; r.err == nil && len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte{'\n'})
		r.line = append(r.line, line...)
		switch {
		case len(r.line) > maxThinLine:
			r.err = fmt.Errorf("%w: a line of more than %d bytes", ErrNoMapping, maxThinLine)
		case ended:
			r.err = r.element(strings.TrimSpace(string(r.line)))
			r.line = r.line[:0]
		}
		rest = after
	}
	if r.err != nil {
		return 0, r.err
	}
	return len(p), nil
}

func (r *lineReader) element(line string) error {
	if line == "" || strings.HasPrefix(line, "<?xml ") {
		return nil
	}
	if name, attributes, ok := parseElement(line); !ok || !r.into.element(name, attributes) {
		return fmt.Errorf("%w: the line %.200q", ErrNoMapping, line)
	}
	return nil
}

// end checks that nothing is missing.
func (r *lineReader) end() error {
	if len(r.line) > 0 {
		return fmt.Errorf("%w: the line %.200q has no end", ErrNoMapping, r.line)
	}
	return r.into.check()
}

// mappings are what thin_dump(8) writes. Whatever it does not know makes the whole unusable, and so does a number of blocks other
// than the one that the device declares.
type mappings struct {
	device               ThinDevice
	sizeBytes, joinBytes int64

	ranges   []ByteRange
	endBlock uint64 // of the last mapping
	devices  int
	declared uint64 // blocks of the device
	blocks   uint64
	opened   bool
	closed   bool
}

func (m *mappings) element(name string, attributes map[string]string) bool {
	ok := true
	number := func(key string) uint64 {
		n, err := strconv.ParseUint(attributes[key], 10, 48)
		ok = ok && err == nil
		return n
	}
	switch name {
	case "superblock":
		if block := int64(number("data_block_size")) * sectorBytes; block != m.device.Pool.BlockBytes || m.opened {
			ok = false
		}
		m.opened = true
	case "device":
		m.devices++
		m.declared = number("mapped_blocks")
		ok = ok && m.opened && m.devices == 1 && number("dev_id") == m.device.ID
	case "single_mapping":
		ok = m.add(number("origin_block"), 1) && ok
	case "range_mapping":
		ok = m.add(number("origin_begin"), number("length")) && ok
	case "/device":
	case "/superblock":
		m.closed = true
	default:
		ok = false
	}
	return ok
}

// add takes a mapping, unless it is out of order.
func (m *mappings) add(block, count uint64) bool {
	if m.devices != 1 || block < m.endBlock || count == 0 {
		return false
	}
	m.endBlock = block + count
	m.blocks += count
	if block > uint64(m.sizeBytes/m.device.Pool.BlockBytes) {
		return true // beyond the end of the volume, which was made smaller
	}
	begin := int64(block) * m.device.Pool.BlockBytes
	end := m.sizeBytes
	if m.endBlock <= uint64(m.sizeBytes/m.device.Pool.BlockBytes) {
		end = int64(m.endBlock) * m.device.Pool.BlockBytes
	}
	if end <= begin {
		return true
	}
	if n := len(m.ranges); n > 0 {
		if last := &m.ranges[n-1]; begin-(last.OffsetBytes+last.LengthBytes) < m.joinBytes {
			last.LengthBytes = end - last.OffsetBytes
			return true
		}
	}
	m.ranges = append(m.ranges, ByteRange{OffsetBytes: begin, LengthBytes: end - begin})
	return true
}

func (m *mappings) check() error {
	if !m.closed || m.devices != 1 || m.blocks != m.declared {
		return fmt.Errorf("%w: thin_dump's answer is not whole: %d devices, %d blocks of %d", ErrNoMapping, m.devices, m.blocks, m.declared)
	}
	return nil
}

// parseElement reads `<NAME KEY="VALUE" …>`, `<NAME …/>` or `</NAME>`, of values that need no escapes.
func parseElement(line string) (name string, attributes map[string]string, ok bool) {
	inner, found := strings.CutPrefix(line, "<")
	inner, closed := strings.CutSuffix(inner, ">")
	if !found || !closed {
		return "", nil, false
	}
	name, rest, _ := strings.Cut(strings.TrimSuffix(inner, "/"), " ")
	attributes = map[string]string{}
	for rest = strings.TrimSpace(rest); rest != ""; rest = strings.TrimSpace(rest) {
		key, more, found := strings.Cut(rest, `="`)
		value, after, ended := strings.Cut(more, `"`)
		if !found || !ended {
			return name, attributes, false
		}
		attributes[key] = value
		rest = after
	}
	return name, attributes, true
}
