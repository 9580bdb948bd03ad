package revive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"voltar/archive"
	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/durable"
	"voltar/internal/guests"
	"voltar/internal/hostcmd"
	"voltar/internal/say"
)

// Bounds of what an archive of a definition may hold; more than any that voltar writes has.
const (
	maxFiles = 100
	maxBytes = 300 << 20
)

// Definition is what defines a guest, made fit for the volumes that its disks became.
type Definition struct {
	Notes []string // what a person has to know

	moment Moment
	folder string // where it was written
	as     string
	main   string            // domain.xml or VMID.conf
	files  map[string][]byte // by their names in the archive
	nvram  string            // where the firmware's variables of a new machine go
}

// Read reads the definition from the backup of a disk and rewrites it. to are the volumes of the disks, as Targets gives them. nil for a
// guest whose definition nobody knew.
func (m Moment) Read(
	ctx context.Context, b catalog.Backup, on catalog.Destination, decrypt browse.DecryptFunc, as string, to []catalog.Ref,
) (*Definition, error) {
	if b.Manifest.Definition == "" {
		return nil, nil
	}
	files, err := unpack(ctx, b, on, decrypt)
	if err != nil {
		return nil, fmt.Errorf("read the definition of %s from %s: %w", m.Guest.Name, b.ID, err)
	}
	d := &Definition{moment: m, as: as, files: files, main: "domain.xml"}
	places := map[string]string{}
	for i, disk := range m.Disks {
		places[disk.Guest.Disk] = devicePath(to[i])
		if m.Guest.Kind != string(guests.KindLibvirt) {
			places[disk.Guest.Disk] = to[i].Name
		}
	}
	var unknown []string
	switch guests.Kind(m.Guest.Kind) {
	case guests.KindLibvirt:
		files[d.main], d.nvram, unknown, err = rewriteDomain(files[d.main], as, places)
	case guests.KindMachine, guests.KindContainer:
		content := files[m.Guest.ID+".conf"]
		delete(files, m.Guest.ID+".conf")
		d.main = m.Guest.ID + ".conf"
		if as != "" {
			d.main = as + ".conf"
		}
		files[d.main], unknown, err = rewritePVE(content, as != "", places)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if d.Notes, err = m.checkDisks(unknown); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if to, allowed := d.place(name); strings.HasPrefix(name, guests.AttachedFolder+"/") && !allowed {
			d.Notes = append(d.Notes, fmt.Sprintf("the file %s is kept beside the definition, and put in its place by hand alone", to))
		}
	}
	return d, nil
}

// unpack reads the small archive that a definition is.
func unpack(
	ctx context.Context, b catalog.Backup, on catalog.Destination, decrypt browse.DecryptFunc,
) (files map[string][]byte, err error) {
	file, err := browse.Checked(decrypt)(ctx, on.Store, b, b.Manifest.Definition)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	r, err := archive.NewReader(ctx, file, file.SizeBytes(), archive.ReaderOptions{Workers: 1, MaxBytes: maxBytes})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	files = map[string][]byte{}
	for t := tar.NewReader(r); ; {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if len(files) == maxFiles || header.Typeflag != tar.TypeReg || !filepath.IsLocal(header.Name) {
			return nil, fmt.Errorf("%w: %q is no file that voltar keeps there", catalog.ErrDamaged, header.Name)
		}
		if files[path.Clean(header.Name)], err = io.ReadAll(t); err != nil {
			return nil, err
		}
	}
}

// FolderName is a name for the folder that the definition is written to. A guest's own name may be anything.
func (m Moment) FolderName(as string) string {
	for _, name := range []string{as, m.Guest.Name, m.Guest.ID} {
		if namePattern.MatchString(name) {
			return name + "-" + catalog.FormatTime(m.Time)
		}
	}
	return "guest-" + catalog.FormatTime(m.Time)
}

// Write writes the definition into a folder that nobody else can enter, which it makes.
func (d *Definition) Write(folder string) error {
	for name, content := range d.files {
		to := filepath.Join(folder, name)
		if err := durable.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if err := durable.WriteFile(to, content, 0o600); err != nil {
			return err
		}
	}
	d.folder = folder
	return nil
}

// attachedRoots are where files of guests lie. Nothing is placed elsewhere by itself: whoever may write to a store must not have a file of
// his made anywhere on the host.
var attachedRoots = []string{"/var/lib/libvirt/", "/var/lib/vz/", "/mnt/pve/"}

// place gives the path on the host of a file that is kept beside the definition, and whether it may be made there.
func (d *Definition) place(name string) (to string, allowed bool) {
	to = strings.TrimPrefix(name, guests.AttachedFolder)
	if d.nvram != "" && path.Dir(to) == path.Dir(d.nvram) {
		to = d.nvram
	}
	return to, slices.ContainsFunc(attachedRoots, func(root string) bool { return strings.HasPrefix(to, root) })
}

// commands are what gives the definition to libvirt or Proxmox VE, as argument vectors.
func (d *Definition) commands() (list [][]string) {
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		if !strings.HasPrefix(name, guests.AttachedFolder+"/") {
			continue
		}
		if to, allowed := d.place(name); allowed {
			list = append(list, []string{"cp", "--no-clobber", "--", filepath.Join(d.folder, name), to})
		}
	}
	main := filepath.Join(d.folder, d.main)
	switch guests.Kind(d.moment.Guest.Kind) {
	case guests.KindLibvirt:
		list = append(list, []string{"virsh", "define", main})
	case guests.KindMachine:
		list = append(list, []string{"cp", "--no-clobber", "--", main, "/etc/pve/qemu-server/" + d.main})
	case guests.KindContainer:
		list = append(list, []string{"cp", "--no-clobber", "--", main, "/etc/pve/lxc/" + d.main})
	}
	return list
}

// Show returns the commands as they are typed.
func (d *Definition) Show() []string {
	var lines []string
	for _, argv := range d.commands() {
		lines = append(lines, strings.Join(argv, " "))
	}
	return lines
}

// Define gives the commands.
func (d *Definition) Define(ctx context.Context, runner *hostcmd.Runner) error {
	for _, argv := range d.commands() {
		if _, err := runner.Output(ctx, argv[0], argv[1:]...); err != nil {
			return say.WithHint(fmt.Errorf("define %s: %w", d.moment.Guest.Name, err),
				"the disks are restored; the definition lies in "+d.folder)
		}
	}
	return nil
}
