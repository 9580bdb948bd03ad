package guests

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"voltar/lvm"
)

// statPatience is how long all links together may take that lead to a disk: one may lie on a filesystem that does not answer.
const statPatience = 10 * time.Second

// resolver knows the volumes of the host by all names that a disk may have.
type resolver struct {
	byPath map[string]lvm.Volume // /dev/VG/LV, and the device-mapper's names; a name that means two volumes means none
	byDev  map[lvm.Dev]lvm.Volume
	byName map[string][]lvm.Volume
	pools  map[string]string // libvirt's storage pools: VG by the pool's name
	naming []string          // templates of Cinder's names for volumes, in which %s is the ID
	device func(path string) (lvm.Dev, bool)
}

func newResolver(ctx context.Context, inventory lvm.Inventory) resolver {
	left := statPatience
	r := resolver{
		byPath: map[string]lvm.Volume{}, byDev: map[lvm.Dev]lvm.Volume{}, byName: map[string][]lvm.Volume{},
		pools: map[string]string{}, naming: []string{defaultNaming},
		device: func(path string) (lvm.Dev, bool) {
			began := time.Now()
			limited, cancel := context.WithTimeout(ctx, left)
			defer cancel()
			dev, isDevice := deviceAt(limited, path)
			left -= time.Since(began)
			return dev, isDevice
		},
	}
	twice := map[string]bool{}
	enter := func(name string, v lvm.Volume) {
		if _, taken := r.byPath[name]; taken {
			twice[name] = true
		}
		r.byPath[name] = v
	}
	for _, v := range inventory.Volumes {
		if v.Internal {
			continue
		}
		dm := lvm.DMName(v.VG, v.Name)
		enter("/dev/"+v.VG+"/"+v.Name, v)
		enter("/dev/mapper/"+dm, v)
		enter("/dev/disk/by-id/dm-name-"+dm, v)
		enter("/dev/disk/by-id/dm-uuid-LVM-"+strings.ReplaceAll(v.VGUUID+v.UUID, "-", ""), v)
		if dev, active := v.Dev(); active {
			r.byDev[dev] = v
		}
		r.byName[v.Name] = append(r.byName[v.Name], v)
	}
	for name := range twice {
		delete(r.byPath, name)
	}
	return r
}

// at returns the volume that a path leads to: by its name, which needs no device, or by the number of the device.
func (r resolver) at(name string) (lvm.Volume, bool) {
	if !strings.HasPrefix(name, "/") {
		return lvm.Volume{}, false
	}
	name = path.Clean(name)
	if v, found := r.byPath[name]; found {
		return v, true
	}
	dev, isDevice := r.device(name)
	if !isDevice {
		return lvm.Volume{}, false
	}
	v, found := r.byDev[dev]
	return v, found
}

// in returns the volume of a name in a volume group.
func (r resolver) in(vg, name string) (lvm.Volume, bool) {
	v, found := r.byPath["/dev/"+vg+"/"+name]
	return v, found && !strings.Contains(name, "/")
}

// named returns the volume VG/LV, or the only one of the name LV.
func (r resolver) named(name string) (lvm.Volume, bool) {
	if vg, lv, found := strings.Cut(name, "/"); found {
		return r.in(vg, lv)
	}
	if list := r.byName[name]; len(list) == 1 {
		return list[0], true
	}
	return lvm.Volume{}, false
}

var uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// defaultNaming is what Cinder calls its volumes unless volume_name_template of cinder.conf says otherwise.
const defaultNaming = "volume-%s"

// cinderConfigs are where cinder.conf lies: that of the host's own service, and that of a container of Kolla.
var cinderConfigs = []string{"/etc/cinder/cinder.conf", "/etc/kolla/cinder-volume/cinder.conf"}

var namingPattern = regexp.MustCompile(`(?m)^volume_name_template[ \t]*[=:][ \t]*([A-Za-z0-9_.+-]*%s[A-Za-z0-9_.+-]*)[ \t]*$`)

// readNaming takes the names that Cinder gives its volumes on this host from its configuration, where there is one. A template that is
// no name of a volume is passed over.
func (f *finder) readNaming() {
	for _, path := range cinderConfigs {
		content, err := readSmall(f.path(path), maxFileBytes)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			f.trouble("disks that libvirt knows by the IDs of Cinder's volumes may be of no guest; is voltar run as root?",
				"cannot read how Cinder names its volumes: %v", err)
		}
		for _, found := range namingPattern.FindAllSubmatch(content, -1) {
			f.volumes.naming = append(f.volumes.naming, string(found[1]))
		}
	}
}

// cinder returns the volume that Cinder made under an ID, which nova hands to the guest as the disk's serial number.
func (r resolver) cinder(serial string) (lvm.Volume, bool) {
	if !uuidPattern.MatchString(serial) {
		return lvm.Volume{}, false
	}
	for _, template := range slices.Backward(r.naming) {
		if v, found := r.named(strings.Replace(template, "%s", serial, 1)); found {
			return v, true
		}
	}
	return lvm.Volume{}, false
}

// deviceAt tells which block device a path leads to. A path that does not answer leads to none.
func deviceAt(ctx context.Context, path string) (lvm.Dev, bool) {
	dev := make(chan lvm.Dev, 1) // so that an answer that nobody waits for any more ends the goroutine
	go func() {
		defer close(dev)
		info, err := os.Stat(path)
		if err != nil || info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0 {
			return
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			dev <- lvm.Dev{Major: int(unix.Major(st.Rdev)), Minor: int(unix.Minor(st.Rdev))}
		}
	}()
	select {
	case found, isDevice := <-dev:
		return found, isDevice
	case <-ctx.Done():
		return lvm.Dev{}, false
	}
}
