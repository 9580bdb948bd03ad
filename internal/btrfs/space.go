package btrfs

import (
	"encoding/binary"
	"fmt"
	"os"
)

const (
	spaceHeadBytes = 16
	spaceInfoBytes = 24
	spaceSlots     = 32 // there are fewer kinds
	globalReserve  = 1 << 49
)

// ReservedBytes is what a mounted btrfs keeps for its own operations and what statfs(2) counts as used, without anything being there.
func ReservedBytes(root *os.File) (int64, error) {
	argument := make([]byte, spaceHeadBytes+spaceSlots*spaceInfoBytes)
	binary.NativeEndian.PutUint64(argument, spaceSlots)
	if err := ioctl(root, iocSpaceInfo, argument); err != nil {
		return 0, fmt.Errorf("ask btrfs what it reserves: %w", err)
	}
	reserved := int64(0)
	for i := range min(binary.NativeEndian.Uint64(argument[8:]), spaceSlots) {
		info := argument[spaceHeadBytes+i*spaceInfoBytes:]
		if binary.NativeEndian.Uint64(info)&globalReserve != 0 {
			reserved += int64(min(binary.NativeEndian.Uint64(info[8:]), 1<<40))
		}
	}
	return reserved, nil
}
