package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"voltar/archive"
	"voltar/internal/say"
)

// ownFolder is a folder of this host to which backups go: in the archive of a directory, each night would hold the nights before.
type ownFolder struct {
	destination string
	path        string
	id          archive.FolderID
	isHosts     bool // this host's folder on the destination, and not the destination's own
}

type ownFolders []ownFolder

// ownFolders returns the folders of the destinations, as far as they are there, and this host's folder on each.
func (e *Engine) ownFolders() (own ownFolders, err error) {
	for _, d := range e.opts.Destinations {
		path := d.Store.String() // of a disk that cannot be used now as well
		if !filepath.IsAbs(path) {
			continue
		}
		for _, f := range []ownFolder{
			{destination: d.Name, path: path}, {destination: d.Name, path: filepath.Join(path, e.opts.Host.Name), isHosts: true},
		} {
			f.id, err = archive.IdentifyFolder(f.path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("look whether destination %s lies in it: %w", d.Name, err)
			}
			own = append(own, f)
		}
	}
	return own, nil
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

// noteBelow says which of the folders lie in a directory and are left out of its archive; "" where none does.
func (own ownFolders) noteBelow(path string) (string, error) {
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
		folder, err := filepath.EvalSymlinks(f.path)
		if err != nil {
			return "", err
		}
		below, err := filepath.Rel(root, folder)
		isBelow := err == nil && below != "." && filepath.IsLocal(below)
		isPart := f.isHosts && filepath.Dir(below) != "." // of a destination's folder that is left out itself
		if isBelow && !isPart && f.id.OnOneFilesystem(id) {
			notes = append(notes, f.note())
		}
	}
	return strings.Join(notes, "; "), nil
}
