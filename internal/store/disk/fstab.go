package disk

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"

	"voltar/internal/say"
)

// unitFolders are where a host's own mount units are (systemd.unit(5)). Those of packages may be meant for other hosts.
var unitFolders = []string{"etc/systemd/system", "run/systemd/system"}

// resolveSteps bounds the symbolic links and missing folders on a path.
const resolveSteps = 4096

// HostMount returns the mountpoint at path, or the nearest one above it, that this host is told to mount: by fstab(5) or by a mount
// unit (systemd.mount(5)) of its own. It is "" where there is none. The error wraps ErrNotMounted when nothing is mounted there.
func HostMount(path string) (string, error) { return hostMount("/", path, mountinfo.Mounted) }

func hostMount(root, path string, mounted func(string) (bool, error)) (string, error) {
	points, err := hostMounts(root)
	if err != nil {
		return "", err
	}
	path = resolve(path)
	var nearest, length, by = "", 0, ""
	for point, source := range points {
		at := resolve(point)
		rel, err := filepath.Rel(at, path)
		if err == nil && filepath.IsLocal(rel) && len(at) > length {
			nearest, length, by = point, len(at), source
		}
	}
	if nearest == "" {
		return "", nil
	}
	switch is, err := mounted(nearest); {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("look whether %s is mounted: %w", nearest, err)
	case !is:
		return "", say.WithHint(fmt.Errorf("%s is %w, and is a mountpoint by %s", nearest, ErrNotMounted, by), "`mount "+nearest+"`")
	}
	return nearest, nil
}

// hostMounts returns the mountpoints that the host is told to mount, and the file that tells each.
func hostMounts(root string) (map[string]string, error) {
	points := map[string]string{}
	fstab, err := os.Open(filepath.Join(root, "etc/fstab"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		defer fstab.Close()
		lines := bufio.NewScanner(fstab)
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
				continue
			}
			if point := unescape(fields[1], `\`, 8, 3); filepath.IsAbs(point) { // swap areas have "none"
				points[filepath.Clean(point)] = "/etc/fstab"
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read /etc/fstab: %w", err)
		}
	}
	for _, folder := range unitFolders {
		units, err := filepath.Glob(filepath.Join(root, folder, "*.mount"))
		if err != nil {
			return nil, err
		}
		for _, unit := range units {
			if info, err := os.Stat(unit); err != nil || !info.Mode().IsRegular() {
				continue // masked: a link to /dev/null
			}
			escaped := strings.TrimSuffix(filepath.Base(unit), ".mount")
			point := "/" + unescape(strings.ReplaceAll(escaped, "-", "/"), `\x`, 16, 2)
			points[filepath.Clean(point)] = "/" + filepath.Join(folder, filepath.Base(unit))
		}
	}
	return points, nil
}

// unescape replaces marks that so many digits of a base follow by the bytes of these numbers.
func unescape(text, mark string, base, digits int) string {
	first, rest, found := strings.Cut(text, mark)
	for found {
		end := min(digits, len(rest))
		n, err := strconv.ParseUint(rest[:end], base, 8)
		if err != nil || end < digits {
			first += mark
		} else {
			first, rest = first+string([]byte{byte(n)}), rest[digits:]
		}
		var next string
		next, rest, found = strings.Cut(rest, mark)
		first += next
	}
	return first
}

// resolve follows the symbolic links of a path, into what is not there too: a link may lead to a disk that is not mounted.
func resolve(path string) string {
	there, missing := filepath.Clean(path), ""
	for range resolveSteps {
		real, err := filepath.EvalSymlinks(there)
		if err == nil {
			return filepath.Join(real, missing)
		}
		target, err := os.Readlink(there)
		switch {
		case err != nil:
			there, missing = filepath.Dir(there), filepath.Join(filepath.Base(there), missing)
		case filepath.IsAbs(target):
			there = filepath.Clean(target)
		default:
			there = filepath.Join(filepath.Dir(there), target)
		}
	}
	return filepath.Join(there, missing)
}
