package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelLog follows the kernel's log, where most filesystems say why they do not mount: few use the log of the context.
// It is for messages only, so it never fails: a log that cannot be read has nothing to say.
type kernelLog struct {
	fd     int    // -1 when there is none
	device string // as the kernel's messages name it: dm-0
}

// followKernelLog begins to listen for what the kernel says of a device.
func followKernelLog(device string) kernelLog {
	var stat unix.Stat_t
	if err := unix.Stat(device, &stat); err != nil {
		return kernelLog{fd: -1}
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev)))
	if err != nil {
		return kernelLog{fd: -1}
	}
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return kernelLog{fd: -1}
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		return kernelLog{fd: -1}
	}
	return kernelLog{fd: fd, device: filepath.Base(link)}
}

// close ends listening. The child that mounts leaves it to its end.
func (l kernelLog) close() {
	if l.fd >= 0 {
		_ = unix.Close(l.fd) // only read from
	}
}

// messages returns what has been said of the device since.
func (l kernelLog) messages() []string {
	var found []string
	record := make([]byte, 8<<10)
	for range 1000 {
		n, err := unix.Read(l.fd, record)
		if err == unix.EPIPE { // older records were overwritten: the next read goes on behind them
			continue
		}
		if err != nil {
			break
		}
		if text, ok := logText(string(record[:n]), l.device); ok && len(found) < 16 {
			found = append(found, text)
		}
	}
	return found
}

// logText returns the text of a record of /dev/kmsg (the kernel's Documentation/ABI/testing/dev-kmsg: fields, a semicolon,
// the text, and lines of further fields) if it names the device.
func logText(record, device string) (string, bool) {
	_, text, ok := strings.Cut(record, ";")
	if !ok {
		return "", false
	}
	text, _, _ = strings.Cut(text, "\n")
	if !strings.Contains(text, "("+device+")") && !strings.Contains(text, "(device "+device+")") {
		return "", false
	}
	return strings.ToValidUTF8(text, "\uFFFD"), true
}
