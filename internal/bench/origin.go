package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"voltar/internal/lab"
)

//go:embed origin.sh
var originScript string

// measureOrigin tells what snapshots cost those who write to the volume, in a throw-away machine with a real
// device-mapper, whose disk is in memory.
func measureOrigin(ctx context.Context, stdout io.Writer) (err error) {
	dir, err := os.MkdirTemp("/dev/shm", "voltar-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	disk := filepath.Join(dir, "disk.img")
	if err := lab.NewDisk(disk, 4<<30); err != nil {
		return err
	}
	status, err := lab.Run(ctx, lab.Machine{Script: originScript, Stdout: stdout, Disk: disk, Share: dir})
	if err == nil && status != 0 {
		err = fmt.Errorf("the script in the machine ended with status %d", status)
	}
	return err
}
