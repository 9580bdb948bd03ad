// Package loopdev makes loop devices over files and over block devices (losetup(8)): to give an image a device, or a
// device other sectors than its own.
package loopdev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"voltar/internal/hostcmd"
)

// Loops makes and removes loop devices. It is safe for concurrent use.
type Loops struct{ runner *hostcmd.Runner }

// New returns Loops that find losetup through r.
func New(r *hostcmd.Runner) *Loops { return &Loops{runner: r} }

// Attach makes a loop device over the whole of a file or device, with logical sectors of sectorBytes, and returns its
// path. The caller detaches it.
func (l *Loops) Attach(ctx context.Context, path string, sectorBytes int) (device string, err error) {
	out, err := l.runner.Output(ctx, "losetup", "--find", "--show",
		"--sector-size", strconv.Itoa(sectorBytes), "--", path)
	if err != nil {
		return "", fmt.Errorf("attach a loop device to %s: %w", path, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Detach removes a loop device, provided that it is one over path; one that is gone, or is over something else by now,
// is no error.
func (l *Loops) Detach(ctx context.Context, device, path string) error {
	devices, err := l.Over(ctx, path)
	if err != nil {
		return err
	}
	for _, found := range devices {
		if found != device {
			continue
		}
		if _, err := l.runner.Output(ctx, "losetup", "--detach", device); err != nil {
			return fmt.Errorf("detach %s from %s: %w", device, path, err)
		}
	}
	return nil
}

// Over returns the loop devices over a file or device.
func (l *Loops) Over(ctx context.Context, path string) ([]string, error) {
	out, err := l.runner.Output(ctx, "losetup", "--list", "--json", "--output", "NAME,BACK-FILE")
	if err != nil {
		return nil, fmt.Errorf("list loop devices: %w", err)
	}
	devices, err := parseList(out, sameAs(path))
	if err != nil {
		return nil, fmt.Errorf("list loop devices: %w", err)
	}
	return devices, nil
}

// sameAs returns a function that tells whether a path as the kernel names it is the one given, which may have gone.
func sameAs(path string) func(string) bool {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		resolved = path
	}
	info, err := os.Stat(resolved)
	return func(backing string) bool {
		backing = strings.TrimSuffix(backing, " (deleted)")
		if backing == path || backing == resolved {
			return true
		}
		other, otherErr := os.Stat(backing)
		return err == nil && otherErr == nil && os.SameFile(info, other)
	}
}

// parseList picks from losetup's report the devices whose backing file is wanted. Without any loop device the report is
// empty.
func parseList(report []byte, wanted func(string) bool) ([]string, error) {
	if strings.TrimSpace(string(report)) == "" {
		return nil, nil
	}
	var list struct {
		Devices []struct {
			Name string `json:"name"`
			File string `json:"back-file"`
		} `json:"loopdevices"`
	}
	if err := json.Unmarshal(report, &list); err != nil {
		return nil, fmt.Errorf("cannot read losetup's report: %w", err)
	}
	var devices []string
	for _, d := range list.Devices {
		if !strings.HasPrefix(d.Name, "/dev/") {
			return nil, errors.New("cannot read losetup's report: a device without a path")
		}
		if d.File != "" && wanted(d.File) {
			devices = append(devices, d.Name)
		}
	}
	return devices, nil
}
