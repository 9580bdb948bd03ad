package revive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

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

// Read reads the definition from the backup of a disk and rewrites it. to are the volumes of the disks, as Targets gives them, and here is
// what this host has. nil for a guest whose definition nobody knew.
func (m Moment) Read(
	ctx context.Context, b catalog.Backup, on catalog.Destination, decrypt browse.DecryptFunc, as string, to []catalog.Ref, here guests.Found,
) (*Definition, error) {
	if b.Manifest.Definition == "" {
		return nil, nil
	}
	files, err := unpack(ctx, b, on, decrypt)
	if err != nil {
		return nil, fmt.Errorf("read the definition of %s from %s: %w", m.Guest.Name, b.ID, err)
	}
	d := &Definition{moment: m, as: as, files: files, main: "domain.xml"}
	devices, places := map[string]string{}, map[string]pvePlace{}
	for i, disk := range m.Disks {
		devices[disk.Guest.Disk] = devicePath(to[i])
		places[disk.Guest.Disk] = pvePlace{to[i].Name, here.Storages[to[i].VG], to[i].VG != disk.ID.Ref.VG}
	}
	var unknown, astray []string
	switch guests.Kind(m.Guest.Kind) {
	case guests.KindLibvirt:
		files[d.main], d.nvram, unknown, err = rewriteDomain(files[d.main], as, devices)
	case guests.KindMachine, guests.KindContainer:
		content := files[m.Guest.ID+".conf"]
		delete(files, m.Guest.ID+".conf")
		d.main = m.Guest.ID + ".conf"
		if as != "" {
			d.main = as + ".conf"
		}
		files[d.main], unknown, astray, err = rewritePVE(content, as != "", places)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if d.Notes, err = m.checkDisks(unknown); err != nil {
		return nil, err
	}
	for _, name := range astray {
		d.Notes = append(d.Notes, fmt.Sprintf("the definition names a storage for %s that its volume is not in: correct it by hand", name))
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

// placed are the files beside the definition that have their place below attachedRoots, by their names.
func (d *Definition) placed() (names []string) {
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		if _, allowed := d.place(name); allowed && strings.HasPrefix(name, guests.AttachedFolder+"/") {
			names = append(names, name)
		}
	}
	return names
}

// command gives the definition to libvirt or Proxmox VE, as an argument vector.
func (d *Definition) command() []string {
	main := filepath.Join(d.folder, d.main)
	switch guests.Kind(d.moment.Guest.Kind) {
	case guests.KindMachine:
		return []string{"cp", "--no-clobber", "--", main, "/etc/pve/qemu-server/" + d.main}
	case guests.KindContainer:
		return []string{"cp", "--no-clobber", "--", main, "/etc/pve/lxc/" + d.main}
	}
	return []string{"virsh", "define", main}
}

// Show returns the commands that define the guest, as they are typed.
func (d *Definition) Show() []string {
	var lines []string
	for _, name := range d.placed() {
		to, _ := d.place(name)
		lines = append(lines, say.ShellWords([]string{"cp", "--no-clobber", "--", filepath.Join(d.folder, name), to}))
	}
	return append(lines, say.ShellWords(d.command()))
}

// Define puts the files that belong to the definition in their places, and gives it to libvirt or Proxmox VE.
func (d *Definition) Define(ctx context.Context, runner *hostcmd.Runner) error {
	err := d.putFiles(ctx)
	if err == nil {
		argv := d.command()
		_, err = runner.Output(ctx, argv[0], argv[1:]...)
	}
	if err != nil {
		return say.WithHint(fmt.Errorf("define %s: %w", d.moment.Guest.Name, err), "the disks are restored; the definition lies in "+d.folder)
	}
	return nil
}

// placePatience is how long all files of a definition may take: their places may be on a filesystem that does not answer.
const placePatience = time.Minute

func (d *Definition) putFiles(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, placePatience, fmt.Errorf("no answer from where its files go within %s", placePatience))
	defer cancel()
	done := make(chan error, 1) // so that an answer that nobody waits for any more ends the goroutine
	go func() {
		for _, name := range d.placed() {
			to, _ := d.place(name)
			at := slices.IndexFunc(attachedRoots, func(root string) bool { return strings.HasPrefix(to, root) })
			if err := putFile(attachedRoots[at], to, d.files[name]); err != nil {
				done <- fmt.Errorf("cannot put %s in place: %w", to, err)
				return
			}
		}
		done <- nil
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// putFile makes a file below a folder, whole or not at all. One that is there stays, and no link leads out of the folder: what lies in it
// may belong to QEMU's own user.
func putFile(folder, path string, content []byte) error {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	file, err := durable.In(root, nil).Create(strings.TrimPrefix(path, folder), 0o600, durable.CreateOptions{Exclusive: true})
	if err != nil {
		return err
	}
	if _, err := file.Write(content); err != nil {
		return errors.Join(err, file.Abort())
	}
	if err := file.Commit(); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
