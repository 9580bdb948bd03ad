package partmap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/hostcmd"
)

const (
	dmSectorBytes = 512 // device-mapper's unit, whatever the sectors of a device
	maxNameBytes  = 127 // of a map: DM_NAME_LEN less its NUL
	maxUUIDBytes  = 128 // of a map: DM_UUID_LEN less its NUL
	mapperDir     = "/dev/mapper"
	undoTime      = 30 * time.Second
	nodeWait      = 5 * time.Second
	pollEvery     = 200 * time.Millisecond
	listAttempts  = 5
	// DefaultRetryFor is how long Unmap goes on trying when a map is in use: udev's rules open new maps for a moment.
	DefaultRetryFor = 10 * time.Second
)

// ErrMapExists is wrapped by Map's error when a map of that name, or of that UUID, is there already.
var ErrMapExists = errors.New("the map exists already")

// Mapper makes and removes device-mapper devices with dmsetup. It is safe for concurrent use.
type Mapper struct {
	run      *hostcmd.Runner
	retryFor time.Duration
}

// MapperOptions are the options of NewMapper; the zero value is that of a production host.
type MapperOptions struct {
	RetryFor time.Duration // how long Unmap tries to remove a map in use; 0 means DefaultRetryFor
}

// NewMapper returns a Mapper.
func NewMapper(run *hostcmd.Runner, opts MapperOptions) *Mapper {
	if opts.RetryFor == 0 {
		opts.RetryFor = DefaultRetryFor
	}
	return &Mapper{run: run, retryFor: opts.RetryFor}
}

// Target is a map to make.
type Target struct {
	Name     string    // see MapName; letters, digits and #+-.:=@_ only
	UUID     string    // unique on the host; host LVM passes over those that begin with "LVM-"
	Segments []Segment // one after the other
	ReadOnly bool
}

// Segment is a contiguous part of a map: of one source, or striped over several.
type Segment struct {
	SizeBytes   int64
	Sources     []Source
	StripeBytes int64 // of one stripe, where there are several sources
}

// Source is where a segment's data begin.
type Source struct {
	Device      string // path of a block device
	OffsetBytes int64
}

// Mapped is a map that exists.
type Mapped struct {
	Name      string
	UUID      string
	Path      string // its node beneath /dev/mapper
	Major     uint32
	Minor     uint32
	OpenCount int
}

// Map makes a map and returns it with its node in place, with or without udev. When it fails, it leaves no map behind;
// a failure to take back what was made is part of the error. A map of that name or UUID that is there already is left alone.
func (m *Mapper) Map(ctx context.Context, target Target) (*Mapped, error) {
	mapped, err := m.create(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", target.Name, err)
	}
	return mapped, nil
}

func (m *Mapper) create(ctx context.Context, target Target) (*Mapped, error) {
	if err := target.check(); err != nil {
		return nil, err
	}
	table, err := target.table(deviceNumbers)
	if err != nil {
		return nil, err
	}
	// With --noudevrules, LVM's udev rules pass the map over; they would take its UUID for that of a logical volume and
	// link /dev/VG/NAME to it. udev then makes no node either; with --verifyudev dmsetup makes it.
	args := []string{"create", target.Name, "--uuid", target.UUID, "--noudevrules", "--verifyudev"}
	if target.ReadOnly {
		args = append(args, "--readonly")
	}
	_, err = m.dmsetup(ctx, table, args...)
	switch {
	case isTaken(err):
		return nil, m.explainTaken(ctx, target, err)
	case err == nil:
		if mapped, stands := standing(target.Name, target.UUID); stands {
			return mapped, nil
		}
		var mapped *Mapped
		if mapped, err = m.await(ctx, target); err == nil {
			return mapped, nil
		}
	}
	undoCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	return nil, errors.Join(err, m.Unmap(undoCtx, target.Name, target.UUID))
}

// isTaken knows the kernel's refusal of a name or UUID that another map has: dmsetup has made nothing.
func isTaken(err error) bool {
	var failure *hostcmd.Error
	return isBusy(err) && errors.As(err, &failure) && strings.Contains(failure.Stderr, "create ioctl")
}

// explainTaken names the map that is in the way.
func (m *Mapper) explainTaken(ctx context.Context, target Target, err error) error {
	maps, listErr := m.list(ctx)
	for _, other := range maps {
		if other.Name == target.Name || other.UUID == target.UUID {
			return fmt.Errorf("%w (%s, UUID %q)", ErrMapExists, other.Name, other.UUID)
		}
	}
	return errors.Join(err, listErr)
}

// standing returns the map of a name whose node is in place, as sysfs has it, where it has the UUID given. That costs no command. Whoever
// gets nothing asks dmsetup.
func standing(name, uuid string) (*Mapped, bool) {
	m := Mapped{Name: name, UUID: uuid, Path: filepath.Join(mapperDir, name)}
	var st unix.Stat_t
	if err := unix.Stat(m.Path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, false
	}
	m.Major, m.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	return &m, m.attribute("name") == name && m.attribute("uuid") == uuid
}

// attribute reads what the device-mapper says of the map's number; "" where there is no such map.
func (m *Mapped) attribute(name string) string {
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/dm/%s", m.Major, m.Minor, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// await waits for the node of a new map.
func (m *Mapper) await(ctx context.Context, target Target) (*Mapped, error) {
	mapped, err := m.find(ctx, target.Name)
	if err != nil {
		return nil, err
	}
	if mapped == nil || mapped.UUID != target.UUID {
		return nil, errors.New("cannot find the map that dmsetup made")
	}
	deadline := time.Now().Add(nodeWait)
	for asked := false; ; {
		if err = mapped.checkNode(); err == nil {
			return mapped, nil
		}
		if !asked {
			if _, err := m.dmsetup(ctx, "", "mknodes", target.Name); err != nil {
				return nil, err
			}
			asked = true
			continue
		}
		if time.Now().After(deadline) {
			return nil, err
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return nil, err
		}
	}
}

// checkNode tells whether the map's node is there and is that of the map.
func (m *Mapped) checkNode() error {
	var st unix.Stat_t
	if err := unix.Stat(m.Path, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: m.Path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK || unix.Major(st.Rdev) != m.Major || unix.Minor(st.Rdev) != m.Minor {
		return fmt.Errorf("cannot use %s: it is not the node of the map (%d:%d)", m.Path, m.Major, m.Minor)
	}
	return nil
}

// Unmap removes the map of a name, as long as it has the UUID given; a map of another UUID is somebody else's and stays.
// A map that is not there is no error. While the map is in use, it tries again for a time and then fails with a *BusyError.
func (m *Mapper) Unmap(ctx context.Context, name, uuid string) error {
	if mapped, stands := standing(name, uuid); stands && m.removeStanding(ctx, mapped) {
		return m.removeNode(ctx, name)
	}
	deadline := time.Now().Add(m.retryFor)
	for {
		mapped, err := m.find(ctx, name)
		if err != nil {
			return fmt.Errorf("unmap %s: %w", name, err)
		}
		if mapped == nil {
			return m.removeNode(ctx, name)
		}
		if mapped.UUID != uuid {
			return fmt.Errorf("cannot unmap %s: its UUID is %q, not %q: it was made by something else", name, mapped.UUID, uuid)
		}
		err = m.remove(ctx, name)
		switch {
		case err == nil:
			return m.removeNode(ctx, name)
		case ctx.Err() != nil || !isBusy(err) && !errors.Is(err, errStillThere):
			return fmt.Errorf("unmap %s: %w", name, err)
		case time.Now().After(deadline) && errors.Is(err, errStillThere):
			return fmt.Errorf("unmap %s: %w", name, err)
		case time.Now().After(deadline):
			return &BusyError{Name: name, OpenCount: mapped.OpenCount, Holders: holders(mapped), Err: err}
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return fmt.Errorf("unmap %s: %w", name, err)
		}
	}
}

// removeStanding removes a map that nothing holds, and reports whether it is gone.
func (m *Mapper) removeStanding(ctx context.Context, mapped *Mapped) bool {
	_, err := m.dmsetup(ctx, "", "remove", mapped.Name, "--noudevrules", "--verifyudev")
	return err == nil && mapped.attribute("uuid") != mapped.UUID
}

var errStillThere = errors.New("dmsetup said that it removed it, and it is still there")

// remove removes a map and looks whether it is gone.
func (m *Mapper) remove(ctx context.Context, name string) error {
	if _, err := m.dmsetup(ctx, "", "remove", name, "--noudevrules", "--verifyudev"); err != nil {
		return err
	}
	left, err := m.find(ctx, name)
	if err == nil && left != nil {
		return errStillThere
	}
	return err
}

// removeNode removes the node of a map that is gone: where udevd runs, dmsetup leaves nodes to it, and it did not make this.
func (m *Mapper) removeNode(ctx context.Context, name string) error {
	if _, err := os.Lstat(filepath.Join(mapperDir, name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := m.dmsetup(ctx, "", "mknodes", name); err != nil {
		return fmt.Errorf("remove the node of %s: %w", name, err)
	}
	return nil
}

func isBusy(err error) bool {
	var failure *hostcmd.Error
	return errors.As(err, &failure) && strings.Contains(failure.Stderr, "busy")
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// List returns the maps whose UUID begins with a prefix, as dmsetup orders them.
func (m *Mapper) List(ctx context.Context, uuidPrefix string) ([]Mapped, error) {
	maps, err := m.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("list maps: %w", err)
	}
	var ours []Mapped
	for _, mapped := range maps {
		if strings.HasPrefix(mapped.UUID, uuidPrefix) {
			ours = append(ours, mapped)
		}
	}
	return ours, nil
}

// list asks for all maps. dmsetup first lists the names and then looks at each: one that goes in between, as other
// volumes' maps do while this one is worked on, makes it fail, and another look helps.
func (m *Mapper) list(ctx context.Context) ([]Mapped, error) {
	for attempt := 1; ; attempt++ {
		out, err := m.dmsetup(ctx, "", "info", "--columns", "--noheadings", "--separator", infoSeparator, "--options", infoFields)
		if err == nil {
			return parseInfo(bytes.NewReader(out))
		}
		if attempt == listAttempts || hostcmd.ExitCode(err) != 1 {
			return nil, err
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return nil, err
		}
	}
}

// find returns the map of a name, or nil.
func (m *Mapper) find(ctx context.Context, name string) (*Mapped, error) {
	maps, err := m.list(ctx)
	if err != nil {
		return nil, err
	}
	for _, mapped := range maps {
		if mapped.Name == name {
			return &mapped, nil
		}
	}
	return nil, nil
}

// dmsetup runs dmsetup. Where no udevd runs it must be told, or it waits for one, or leaves nodes to one.
func (m *Mapper) dmsetup(ctx context.Context, stdin string, args ...string) ([]byte, error) {
	cmd := hostcmd.Cmd{Name: "dmsetup", Args: args, Stdin: strings.NewReader(stdin)}
	if _, err := os.Stat("/run/udev/control"); errors.Is(err, fs.ErrNotExist) {
		cmd.Env = []string{"DM_DISABLE_UDEV=1"}
	}
	res, err := m.run.Run(ctx, cmd)
	return res.Stdout, err
}

// check refuses targets that dmsetup would misread.
func (t Target) check() error {
	if t.Name == "" || len(t.Name) > maxNameBytes {
		return fmt.Errorf("cannot name a map %q: names have 1 to %d bytes", t.Name, maxNameBytes)
	}
	if i := strings.IndexFunc(t.Name, func(r rune) bool { return !inName(r) }); i >= 0 || t.Name[0] == '-' ||
		t.Name == "." || t.Name == ".." || t.Name == "control" {
		return fmt.Errorf("cannot name a map %q", t.Name)
	}
	if t.UUID == "" || len(t.UUID) > maxUUIDBytes || strings.ContainsFunc(t.UUID, func(r rune) bool { return !inName(r) }) ||
		t.UUID[0] == '-' {
		return fmt.Errorf("cannot give a map the UUID %q", t.UUID)
	}
	return nil
}

// inName tells the characters that device-mapper's library neither encodes nor refuses.
func inName(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("#+-.:=@_", r)
}

// table writes the target as dmsetup reads it: "START LENGTH linear DEVICE OFFSET" or
// "START LENGTH striped COUNT STRIPE DEVICE OFFSET ...", in sectors of 512 bytes. Devices are named by number, which
// leaves nothing of a path to be misread.
func (t Target) table(number func(device string) (string, error)) (string, error) {
	var b strings.Builder
	start := int64(0)
	for i, s := range t.Segments {
		if s.SizeBytes <= 0 || s.SizeBytes%dmSectorBytes != 0 || len(s.Sources) == 0 {
			return "", fmt.Errorf("cannot map segment %d: %d bytes from %d sources", i, s.SizeBytes, len(s.Sources))
		}
		fmt.Fprintf(&b, "%d %d ", start/dmSectorBytes, s.SizeBytes/dmSectorBytes)
		if len(s.Sources) == 1 {
			b.WriteString("linear")
		} else {
			if s.StripeBytes <= 0 || s.StripeBytes%dmSectorBytes != 0 {
				return "", fmt.Errorf("cannot map segment %d: stripes of %d bytes", i, s.StripeBytes)
			}
			fmt.Fprintf(&b, "striped %d %d", len(s.Sources), s.StripeBytes/dmSectorBytes)
		}
		for _, source := range s.Sources {
			if source.OffsetBytes < 0 || source.OffsetBytes%dmSectorBytes != 0 {
				return "", fmt.Errorf("cannot map segment %d: it begins at byte %d of %s", i, source.OffsetBytes, source.Device)
			}
			device, err := number(source.Device)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, " %s %d", device, source.OffsetBytes/dmSectorBytes)
		}
		b.WriteByte('\n')
		if start += s.SizeBytes; start < 0 {
			return "", fmt.Errorf("cannot map segment %d: the map is too large", i)
		}
	}
	if start == 0 {
		return "", errors.New("cannot make an empty map")
	}
	return b.String(), nil
}

// deviceNumbers returns "MAJOR:MINOR" of a block device.
func deviceNumbers(device string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		return "", &fs.PathError{Op: "stat", Path: device, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("cannot map %s: not a block device", device)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// What list asks dmsetup for. Numbers come first and the name last: only maps of other programs may have a separator in them.
const (
	infoSeparator = "|"
	infoFields    = "major,minor,open,uuid,name"
)

// parseInfo reads the output of dmsetup info, which is one line of words when there are no maps.
func parseInfo(r io.Reader) ([]Mapped, error) {
	var maps []Mapped
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line == "No devices found" {
			continue
		}
		fields := strings.SplitN(line, infoSeparator, 5)
		if len(fields) != 5 || fields[4] == "" {
			return nil, fmt.Errorf("cannot read dmsetup's answer %q", line)
		}
		var numbers [3]uint32
		for i := range numbers {
			n, err := strconv.ParseUint(fields[i], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("cannot read dmsetup's answer %q: %w", line, err)
			}
			numbers[i] = uint32(n)
		}
		maps = append(maps, Mapped{
			Name: fields[4], UUID: fields[3], Path: filepath.Join(mapperDir, fields[4]),
			Major: numbers[0], Minor: numbers[1], OpenCount: int(numbers[2]),
		})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot read dmsetup's answer: %w", err)
	}
	return maps, nil
}
