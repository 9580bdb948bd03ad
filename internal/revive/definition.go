package revive

import (
	"archive/tar"
	"cmp"
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
	"voltar/internal/store/patient"
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
	rewritten
}

// Read reads the definition from the first backup of a disk that has a good copy of it, and rewrites it. to are the volumes of the disks,
// as Targets gives them, and here is what this host has. ErrNoDefinition is wrapped by the error of a guest whose definition nobody knew,
// or of which no copy can be read.
func (m Moment) Read(
	ctx context.Context, backups []catalog.Backup, decrypt browse.DecryptFunc, as string, to []catalog.Ref, here guests.Found,
) (*Definition, error) {
	disks := make([]became, len(m.Disks))
	for i, d := range m.Disks {
		disks[i] = became{d.Guest.Disk, d.ID.Ref, to[i], here.Storages[to[i].VG]}
	}
	var troubles []error
	for i, b := range backups {
		if b.Manifest.Definition == "" || !m.isDefinable() {
			continue
		}
		files, err := unpack(ctx, b, m.Disks[i].On, decrypt)
		var d *Definition
		var unknown []string
		if err == nil {
			d, unknown, err = m.rewrite(files, as, disks)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			troubles = append(troubles, fmt.Errorf("%w can be read from %s: %w", ErrNoDefinition, b.ID, err))
			continue
		}
		notes, err := m.checkDisks(unknown, as != "")
		d.Notes = append(d.Notes, notes...)
		for _, trouble := range troubles {
			d.Notes = append(d.Notes, fmt.Sprintf("another copy of the definition was taken: %v", trouble))
		}
		return d, err
	}
	if len(troubles) == 0 {
		troubles = []error{fmt.Errorf("%w is in these backups", ErrNoDefinition)}
	}
	return nil, errors.Join(append(troubles, m.checkUndefined())...)
}

func (m Moment) isDefinable() bool { return m.Guest.Kind == string(guests.KindLibvirt) || m.isPVE() }

func (m Moment) isPVE() bool {
	return m.Guest.Kind == string(guests.KindMachine) || m.Guest.Kind == string(guests.KindContainer)
}

// rewrite makes a definition of its files. unknown are the disks that it has and that do not come back.
func (m Moment) rewrite(files map[string][]byte, as string, disks []became) (d *Definition, unknown []string, err error) {
	d = &Definition{moment: m, as: as, files: files, main: "domain.xml"}
	if m.isPVE() {
		if !catalog.IsVMID(m.Guest.ID) { // which would become a path
			return nil, nil, fmt.Errorf("%w: %q is no VMID of Proxmox VE", catalog.ErrDamaged, m.Guest.ID)
		}
		stored := m.Guest.ID + ".conf"
		d.main = cmp.Or(as, m.Guest.ID) + ".conf"
		d.rewritten, err = rewritePVE(files[stored], as != "", disks)
		delete(files, stored)
	} else {
		d.rewritten, err = rewriteDomain(files[d.main], as, disks)
	}
	if err != nil {
		return nil, nil, err
	}
	files[d.main] = d.content
	d.Notes = d.notes
	for _, b := range d.lacking {
		d.Notes = append(d.Notes, fmt.Sprintf("the disk %s comes back as %s, and is not in the definition: "+
			"it was attached while the guest ran, or kept beside it", b.name, b.to))
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if to, allowed := d.place(name); strings.HasPrefix(name, guests.AttachedFolder+"/") && !allowed {
			d.Notes = append(d.Notes, fmt.Sprintf("the file %s is kept beside the definition, and put in its place by hand alone", to))
		}
	}
	return d, d.unknown, nil
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
	return readFiles(r)
}

// readFiles reads the files of a tar archive.
func readFiles(from io.Reader) (map[string][]byte, error) {
	files := map[string][]byte{}
	left := int64(maxBytes)
	for t := tar.NewReader(from); ; {
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
		if left -= header.Size; left < 0 { // a sparse file has its size without being stored
			return nil, fmt.Errorf("%w: its files have more than %s", catalog.ErrDamaged, say.Size(maxBytes))
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
		if !filepath.IsLocal(name) {
			return fmt.Errorf("%w: %q leads out of the folder of the definition", catalog.ErrDamaged, name)
		}
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
	if d.nvramFrom != "" && to == d.nvramFrom {
		to = d.nvramTo
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

// command gives the definition to libvirt or Proxmox VE, as an argument vector. One that is there is not replaced: dd fails then.
func (d *Definition) command() []string {
	main := filepath.Join(d.folder, d.main)
	if !d.moment.isPVE() {
		return []string{"virsh", "define", main}
	}
	folder := "/etc/pve/qemu-server/"
	if d.moment.Guest.Kind == string(guests.KindContainer) {
		folder = "/etc/pve/lxc/"
	}
	return []string{"dd", "if=" + main, "of=" + folder + d.main, "bs=4M", "conv=excl", "status=none"}
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

// Define puts the files that belong to the definition in their places, and gives it to libvirt or Proxmox VE. notes are of files that are
// there already.
func (d *Definition) Define(ctx context.Context, runner *hostcmd.Runner) (notes []string, err error) {
	// libvirt replaces a definition of the same name and UUID, and says nothing of it.
	if !d.moment.isPVE() {
		if name, err := runner.Output(ctx, "virsh", "domname", d.uuid); err == nil {
			return nil, d.notDefined(fmt.Errorf("libvirt has a guest %s of the UUID %s already, which stays as it is",
				strings.TrimSpace(string(name)), d.uuid))
		}
	}
	if notes, err = d.putFiles(ctx); err == nil {
		argv := d.command()
		_, err = runner.Output(ctx, argv[0], argv[1:]...)
	}
	return notes, d.notDefined(err)
}

func (d *Definition) notDefined(err error) error {
	if err == nil {
		return nil
	}
	return say.WithHint(fmt.Errorf("define %s: %w", d.moment.Guest.Name, err), "the disks are restored; the definition lies in "+d.folder)
}

// placePatience is how long all files of a definition may take: their places may be on a filesystem that does not answer.
const placePatience = time.Minute

func (d *Definition) putFiles(ctx context.Context) (notes []string, err error) {
	return patient.Within(ctx, placePatience, func() (notes []string, err error) {
		for _, name := range d.placed() {
			to, _ := d.place(name)
			at := slices.IndexFunc(attachedRoots, func(root string) bool { return strings.HasPrefix(to, root) })
			switch err := putFile(attachedRoots[at], to, d.files[name]); {
			case errors.Is(err, fs.ErrExist):
				notes = append(notes, fmt.Sprintf("the file %s is there already, and stays as it is", to))
			case err != nil:
				return notes, fmt.Errorf("cannot put %s in place: %w", to, err)
			}
		}
		return notes, nil
	})
}

// putFile makes a file below a folder, whole or not at all. One that is there stays (fs.ErrExist), and no link leads out of the folder:
// what lies in it may belong to QEMU's own user.
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
	return file.Commit()
}
