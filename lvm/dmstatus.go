package lvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The device-mapper's own interface (include/uapi/linux/dm-ioctl.h), of which the state of a device is all that is asked here. It
// costs one system call, whatever else there is on the host; dmsetup would cost a process.
const (
	dmControl        = "/dev/mapper/control"
	dmTableStatus    = 3<<30 | dmHeaderBytes<<16 | 0xfd<<8 | 12 // _IOWR(0xfd, 12, struct dm_ioctl)
	dmHeaderBytes    = 312
	dmUUIDBytes      = 129
	dmTargetBytes    = 40
	dmBufferFull     = 1 << 8
	dmNoFlush        = 1 << 11 // without it a pool would first write its metadata
	dmStatusMaxBytes = 16 << 10
)

// dmHeader is struct dm_ioctl.
type dmHeader struct {
	Version              [3]uint32
	DataBytes, DataStart uint32
	Targets              uint32
	OpenCount            int32
	Flags, Event, _      uint32
	Dev                  uint64
	Name                 [128]byte
	UUID                 [dmUUIDBytes]byte
	_                    [7]byte
}

// dmTargetSpec is struct dm_target_spec; its words follow it.
type dmTargetSpec struct {
	StartSectors, LengthSectors uint64
	Status                      int32
	Next                        uint32
	Kind                        [16]byte
}

// readTarget asks the kernel for the one target of the device of a UUID.
func readTarget(uuid string) (dmTarget, error) {
	if len(uuid) >= dmUUIDBytes {
		return dmTarget{}, fmt.Errorf("%w: no device has the UUID %.200q", errKernelUnknown, uuid)
	}
	header := dmHeader{Version: [3]uint32{4, 0, 0}, DataBytes: dmStatusMaxBytes, DataStart: dmHeaderBytes, Flags: dmNoFlush}
	copy(header.UUID[:], uuid)
	buffer := make([]byte, dmStatusMaxBytes)
	if _, err := binary.Encode(buffer, binary.NativeEndian, header); err != nil {
		return dmTarget{}, fmt.Errorf("cannot ask the device-mapper: %w", err)
	}
	control, err := os.OpenFile(dmControl, os.O_RDWR, 0)
	if err != nil {
		return dmTarget{}, fmt.Errorf("cannot ask the device-mapper: %w", err)
	}
	defer control.Close()
	// The kernel writes no further than DataBytes.
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), dmTableStatus, uintptr(unsafe.Pointer(&buffer[0])))
	switch errno {
	case 0:
		return parseDMStatus(buffer)
	case unix.ENXIO:
		return dmTarget{}, fmt.Errorf("%w: there is no device of the UUID %s", errKernelUnknown, uuid)
	}
	return dmTarget{}, fmt.Errorf("cannot ask the device-mapper for %s: %w", uuid, errno)
}

// parseDMStatus reads the kernel's answer. A device of several targets is neither a snapshot nor a pool.
func parseDMStatus(buffer []byte) (dmTarget, error) {
	var header dmHeader
	var spec dmTargetSpec
	if _, err := binary.Decode(buffer, binary.NativeEndian, &header); err != nil {
		return dmTarget{}, fmt.Errorf("%w: %w", errKernelUnknown, err)
	}
	start := int64(header.DataStart)
	if header.Flags&dmBufferFull != 0 || header.Targets != 1 || start+dmTargetBytes > int64(len(buffer)) {
		return dmTarget{}, fmt.Errorf("%w: an answer of %d targets with the flags %#x", errKernelUnknown, header.Targets, header.Flags)
	}
	if _, err := binary.Decode(buffer[start:], binary.NativeEndian, &spec); err != nil {
		return dmTarget{}, fmt.Errorf("%w: %w", errKernelUnknown, err)
	}
	words, _, whole := bytes.Cut(buffer[start+dmTargetBytes:], []byte{0})
	if !whole || spec.StartSectors != 0 || spec.LengthSectors == 0 || spec.LengthSectors > maxSectors {
		return dmTarget{}, fmt.Errorf("%w: an answer of %d sectors from %d on", errKernelUnknown, spec.LengthSectors, spec.StartSectors)
	}
	kind, _, _ := bytes.Cut(spec.Kind[:], []byte{0})
	return dmTarget{kind: string(kind), sizeBytes: int64(spec.LengthSectors) * sectorBytes, status: strings.Fields(string(words))}, nil
}

// targetStatus returns the state of the device of a UUID, which has to be one target of a kind.
func (c *Client) targetStatus(uuid, kind string) (dmTarget, error) {
	target, err := c.target(uuid)
	if err == nil && target.kind != kind {
		err = fmt.Errorf("%w: %s is a %q and no %s", errKernelUnknown, uuid, target.kind, kind)
	}
	return target, err
}

// deviceOf returns what the device node at path stands for, and the name and UUID that the device-mapper has for that. The
// node's own name proves nothing: volumes are renamed.
func (c *Client) deviceOf(path string) (dev Dev, name, uuid string, err error) {
	if dev = c.blockDev(path); dev == (Dev{}) {
		return dev, "", "", fmt.Errorf("cannot find the device node %s", path)
	}
	name, nameErr := c.dmAttribute(dev, "name")
	uuid, uuidErr := c.dmAttribute(dev, "uuid")
	return dev, name, uuid, errors.Join(nameErr, uuidErr)
}
