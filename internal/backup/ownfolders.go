package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"voltar/archive"
	"voltar/internal/say"
	"voltar/internal/store/patient"
)

// ownFolder is a folder of this host to which backups go: in the archive of a directory, each night would hold the nights before.
type ownFolder struct {
	destination string
	path        string
	resolved    string // the path without symbolic links
	id          archive.FolderID
	isHosts     bool // this host's folder on the destination, and not the destination's own
}

type ownFolders []ownFolder

// ownFolders returns the folders of the destinations, as far as they are there, and this host's folder on each. What may lie in a
// directory and cannot be told is an error of its own, which costs the directory nothing.
func (e *Engine) ownFolders(ctx context.Context, directory string) (own ownFolders, unknown []error) {
	for _, d := range e.opts.Destinations {
		path := d.Store.String() // of a disk that cannot be used now as well
		if !filepath.IsAbs(path) {
			continue
		}
		found, err := patient.Ask(ctx, d.Store, func(context.Context) (ownFolders, error) {
			return identify(ownFolder{destination: d.Name, path: path},
				ownFolder{destination: d.Name, path: filepath.Join(path, e.opts.Host.Name), isHosts: true})
		})
		if err != nil && !liesElsewhere(directory, path) {
			unknown = append(unknown, fmt.Errorf("whether destination %s keeps its backups there cannot be told: %w", d.Name, err))
		}
		own = append(own, found...)
	}
	return own, unknown
}

// identify returns those of some folders that are there.
func identify(folders ...ownFolder) (found ownFolders, err error) {
	for _, f := range folders {
		f.id, err = archive.IdentifyFolder(f.path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return found, err
		}
		if f.resolved, err = filepath.EvalSymlinks(f.path); err != nil {
			return found, err
		}
		found = append(found, f)
	}
	return found, nil
}

// liesElsewhere tells whether a destination lies on another filesystem than a directory, whose archive ends at mounts. The host's
// mounts say so, and nothing of the destination is touched; where they cannot be read it is not known.
func liesElsewhere(directory, destination string) bool {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return false
	}
	on, other := mountOf(mounts, directory), mountOf(mounts, destination)
	return on != nil && other != nil && (on.Major != other.Major || on.Minor != other.Minor)
}

// mountOf returns the mount that a path lies on: the nearest one above it, and of several at one place the last.
func mountOf(mounts []*mountinfo.Info, path string) (nearest *mountinfo.Info) {
	for _, m := range mounts {
		below, err := filepath.Rel(m.Mountpoint, path)
		if err == nil && filepath.IsLocal(below) && (nearest == nil || len(m.Mountpoint) >= len(nearest.Mountpoint)) {
			nearest = m
		}
	}
	return nearest
}

func (own ownFolders) ids() (ids []archive.FolderID) {
	for _, f := range own {
		ids = append(ids, f.id)
	}
	return ids
}

// of are the folders of some IDs, each once: several destinations may name one.
func (own ownFolders) of(ids []archive.FolderID) (found ownFolders) {
	for _, id := range ids {
		if i := slices.IndexFunc(own, func(f ownFolder) bool { return f.id == id }); i >= 0 {
			found = append(found, own[i])
		}
	}
	return found
}

func (f ownFolder) reason() string {
	return "destination " + f.destination + " keeps its backups there"
}

// note says that the folder is left out of an archive.
func (f ownFolder) note() string { return "without " + f.path + ": " + f.reason() }

// checkRoot refuses a directory that holds nothing but backups.
func (own ownFolders) checkRoot(path string) error {
	id, err := archive.IdentifyFolder(path)
	if err != nil {
		return err
	}
	for _, f := range own.of([]archive.FolderID{id}) {
		if f.isHosts {
			return say.WithHint(fmt.Errorf("%s is the folder of the backups themselves: %s", path, f.reason()),
				"name another path in the [[directory]]; `voltar copy`, or a second destination, keeps backups twice")
		}
	}
	return nil
}

// noteBelow says which of the folders lie in a directory and are left out of its archive, and of which that is unknown; "" where
// there is nothing to say.
func (own ownFolders) noteBelow(path string, unknown []error) (string, error) {
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	id, err := archive.IdentifyFolder(root)
	if err != nil {
		return "", err
	}
	var notes []string
	for _, f := range own {
		below, err := filepath.Rel(root, f.resolved)
		isBelow := err == nil && below != "." && filepath.IsLocal(below)
		isPart := f.isHosts && filepath.Dir(below) != "." // of a destination's folder that is left out itself
		if isBelow && !isPart && f.id.OnOneFilesystem(id) {
			notes = append(notes, f.note())
		}
	}
	for _, err := range unknown {
		notes = append(notes, err.Error())
	}
	return strings.Join(notes, "; "), nil
}
