package mount

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of the kernel's include/uapi/linux/btrfs.h, and where in their arguments the fields lie that are read here.
const (
	btrfsIOCFSInfo  = 0x8400941f // _IOR(0x94, 31, 1024 bytes): max_id, num_devices, …
	btrfsIOCDevInfo = 0xd000941e // _IOWR(0x94, 30, 4096 bytes): devid, uuid, …, path

	btrfsFSInfoBytes   = 1024
	btrfsDevInfoBytes  = 4096
	btrfsDevPathOffset = 3072
	btrfsMaxDeviceID   = 1 << 16
)

// btrfsDevice returns the number of the one device of a mounted btrfs, which stat does not tell. A filesystem with more is
// refused: the others would be guessed by their UUIDs and could be a running guest's.
func btrfsDevice(root int) (uint64, error) {
	info := make([]byte, btrfsFSInfoBytes)
	if err := ioctl(root, btrfsIOCFSInfo, info); err != nil {
		return 0, err
	}
	maxID, count := binary.NativeEndian.Uint64(info), binary.NativeEndian.Uint64(info[8:])
	if count != 1 {
		return 0, fmt.Errorf("it has %d devices and only those with one are mounted", count)
	}
	for id := uint64(1); id <= min(maxID, btrfsMaxDeviceID); id++ {
		device := make([]byte, btrfsDevInfoBytes)
		binary.NativeEndian.PutUint64(device, id)
		err := ioctl(root, btrfsIOCDevInfo, device)
		if errors.Is(err, unix.ENODEV) {
			continue // one that was taken out
		}
		if err != nil {
			return 0, err
		}
		path, _, _ := bytes.Cut(device[btrfsDevPathOffset:], []byte{0})
		var stat unix.Stat_t
		if err := unix.Stat(string(path), &stat); err != nil {
			return 0, fmt.Errorf("cannot look at %q: %w", path, err)
		}
		return stat.Rdev, nil
	}
	return 0, errors.New("its device is not told")
}

func ioctl(fd int, request uintptr, argument []byte) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&argument[0]))); errno != 0 {
		return errno
	}
	return nil
}
