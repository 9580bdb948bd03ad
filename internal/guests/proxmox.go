package guests

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"voltar/internal/hostcmd"
	"voltar/lvm"
)

// pveFolder is where Proxmox VE's cluster filesystem is mounted. It is a FUSE filesystem: when its daemon hangs, so does whoever looks
// into it, and nothing ends that process. So a child looks, which can be left behind.
const pveFolder = "/etc/pve"

// pvePatience is how long the child may take.
const pvePatience = 20 * time.Second

// storage is one of storage.cfg.
type storage struct {
	kind string // lvm, lvmthin, dir, …
	vg   string
	path string // of a dir
}

func (s storage) isLVM() bool { return s.kind == "lvm" || s.kind == "lvmthin" }

// proxmox finds the machines and containers of this node of Proxmox VE.
func (f *finder) proxmox() {
	files, err := f.readPVE()
	if err != nil {
		f.trouble("`systemctl status pve-cluster` says how the filesystem with the definitions is",
			"cannot look for guests of Proxmox VE: %v", err)
	}
	f.storages = parseStorages(files["storage.cfg"])
	if list := files[".vmlist"]; len(list) > 0 {
		if f.nodes, err = parseNodes(list); err != nil {
			f.trouble("`cat /etc/pve/.vmlist` shows it", "cannot read which guests Proxmox VE has on other nodes: %v", err)
		}
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		content := files[name]
		folder, base := path.Split(name)
		found := vmidPattern.FindStringSubmatch(base)
		kind, known := map[string]Kind{"qemu-server/": KindMachine, "lxc/": KindContainer}[folder]
		if found == nil || !known {
			continue
		}
		g := f.guest(kind, found[1])
		if g == nil || !f.take(len(content)) {
			return
		}
		g.Definition = []File{{base, content}}
		c := parsePVE(content)
		g.Name = c.name
		g.HasAgent = kind == KindMachine && c.hasAgent
		if g.HasAgent {
			g.Socket = "/var/run/qemu-server/" + g.ID + ".qga"
		}
		g.Running = f.runsPVE(g)
		for _, d := range c.disks {
			f.diskPVE(g, d)
		}
		for _, snippet := range c.snippets {
			if at, relative, cut := strings.Cut(snippet, ":snippets/"); cut && f.storages[at].path != "" {
				g.attach(path.Join(f.storages[at].path, "snippets", path.Clean("/"+relative)))
			}
		}
	}
}

var vmidPattern = regexp.MustCompile(`^([1-9][0-9]{2,8})\.conf$`)

// readPVE reads the storages and the definitions of this node, by their paths.
func (f *finder) readPVE() (map[string][]byte, error) {
	etc, name := path.Split(f.path(pveFolder))
	names, err := namesIn(etc, name) // which does not look into it
	if err != nil {
		return nil, err
	}
	if !slices.Contains(names, name) {
		return nil, nil // this host has no Proxmox VE
	}
	cmd := hostcmd.Cmd{Name: "tar", Timeout: pvePatience, Args: []string{
		"--create", "--file=-", "--ignore-failed-read", "--directory=" + etc + name, "storage.cfg", ".vmlist",
		"--directory=local", "qemu-server", "lxc",
	}}
	var out bytes.Buffer
	cmd.Stdout = &limited{&out, maxBytes + maxBytes/4}
	_, err = f.Runner.Run(f.ctx, cmd)
	files, readErr := readTar(&out)
	if hostcmd.ExitCode(err) == 1 { // something changed while it was read: it is whole, as this filesystem gives it
		err = nil
	}
	return files, errors.Join(err, readErr)
}

// limited takes so many bytes.
type limited struct {
	to   io.Writer
	left int64
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, errors.New("it has more than is read")
	}
	return l.to.Write(p)
}

// readTar reads the files of a tar archive.
func readTar(from io.Reader) (map[string][]byte, error) {
	files := map[string][]byte{}
	archive := tar.NewReader(from)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return files, fmt.Errorf("what was read of it breaks off: %w", err)
		}
		if header.Typeflag != tar.TypeReg || header.Size > maxFileBytes || len(files) > maxGuests {
			continue
		}
		if files[header.Name], err = io.ReadAll(archive); err != nil {
			return files, fmt.Errorf("what was read of it breaks off: %w", err)
		}
	}
}

// runsPVE tells whether a machine's process or a container's cgroup is there.
func (f *finder) runsPVE(g *Guest) bool {
	if g.Kind == KindContainer {
		for _, folder := range []string{"/sys/fs/cgroup/lxc/", "/sys/fs/cgroup/systemd/lxc/"} {
			if _, err := os.Stat(f.path(folder + g.ID)); err == nil {
				return true
			}
		}
		return false
	}
	text, err := readSmall(f.path("/run/qemu-server/"+g.ID+".pid"), 64)
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return false
	}
	_, err = os.Stat(f.path("/proc/" + strconv.Itoa(pid)))
	return err == nil
}

// diskPVE enters a disk of a machine or container.
func (f *finder) diskPVE(g *Guest, d diskLine) {
	entry := Disk{Name: d.key, Detached: d.detached}
	if strings.HasPrefix(d.volume, "/") { // a device of the host, or a folder of it for a container
		v, found := f.volumes.at(d.volume)
		switch {
		case found:
			g.add(v, entry)
		case !d.removable && !d.detached && strings.HasPrefix(d.volume, "/dev/"):
			g.elsewhere(d.key, d.volume)
		}
		return
	}
	at, name, _ := strings.Cut(d.volume, ":")
	s := f.storages[at]
	name = name[strings.LastIndexByte(name, '/')+1:] // a linked clone may name what it was made of in front
	var v lvm.Volume
	found := false
	if s.isLVM() {
		v, found = f.volumes.in(s.vg, name)
	}
	switch {
	case found:
		g.add(v, entry)
	case !d.removable && !d.detached && d.volume != "none" && d.volume != "":
		g.elsewhere(d.key, d.volume)
	}
	// The snapshot of a thin volume is one by itself. A qcow2 image goes on from that of its snapshot, and is nothing without it.
	base, isChained := strings.CutSuffix(name, ".qcow2")
	snapshot := "snap_" + base + "_" + d.snapshot
	switch {
	case d.snapshot == "" || !s.isLVM():
		return
	case isChained:
		snapshot += ".qcow2"
	}
	if v, found := f.volumes.in(s.vg, snapshot); found {
		g.add(v, Disk{Name: d.key + "@" + d.snapshot, Detached: !isChained})
	}
}
