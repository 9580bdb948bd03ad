package lab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"voltar/internal/hostcmd"
)

const (
	// debsFolder holds downloaded packages and what was unpacked from them, in the root of the module. It may be removed
	// whenever no machine uses it.
	debsFolder = ".cache/debs"
	// dpkgStatus says what the host has installed, and so what a set of packages still lacks.
	dpkgStatus = "/var/lib/dpkg/status"
	// downloadTimeLimit holds for each call of apt-get and dpkg-deb.
	downloadTimeLimit = 10 * time.Minute
)

// Debs returns the layer, for Machine.Layers and Options.Layers, that adds Debian packages to a machine without
// installing them on the host, where servers would start or displace others: the packages named, and those that they
// depend on and the host lacks, unpacked into one folder. It is empty when the host has them all. They are downloaded
// once for as long as the host's own packages stay the same, into the folder .cache/debs of the module. It needs no
// root, and processes that call it at the same time share the work.
//
// No maintainer script has run: a test makes the users, the folders under /var, the configuration and the links of
// update-alternatives that it needs. All files belong to root, and set-user-id bits have no effect.
func Debs(ctx context.Context, names ...string) ([]string, error) {
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	cache := debCache{dir: filepath.Join(sourceRoot(here), debsFolder), runner: hostcmd.New(hostcmd.Options{})}
	layer, err := cache.layer(ctx, slices.Sorted(slices.Values(names)))
	if err != nil {
		return nil, fmt.Errorf("cannot lay the packages %s over the host's: %w", strings.Join(names, ", "), err)
	}
	return []string{layer}, nil
}

// debCache is a folder with
//
//	archives/NAME_VERSION_ARCH.deb    what was downloaded, and checked by apt
//	sets/NAME-…-HASH/                 packages unpacked together: a layer
//	apt/                              lists of packages of its own, where the host's are missing or out of date
//	lock                              held by whoever changes something here
type debCache struct {
	dir    string
	runner *hostcmd.Runner
}

// layer returns the folder of a set of packages and fills it when it is not there yet. What the host has installed is
// part of its name: it decides which packages the set must bring along.
func (c debCache) layer(ctx context.Context, names []string) (string, error) {
	status, err := os.ReadFile(dpkgStatus)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(append([]byte(strings.Join(names, " ")+"\n"), status...))
	layer := filepath.Join(c.dir, "sets", fmt.Sprintf("%s-%x", strings.Join(names, "-"), sum[:6]))
	if isFolder(layer) {
		return layer, nil
	}
	for _, dir := range []string{"archives/partial", "sets", "none", "apt/lists/partial"} {
		if err := os.MkdirAll(filepath.Join(c.dir, dir), 0o755); err != nil {
			return "", err
		}
	}
	unlock, err := lockFile(ctx, filepath.Join(c.dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if isFolder(layer) {
		return layer, nil // made by another process meanwhile
	}
	archives, err := c.download(ctx, names)
	if err != nil {
		return "", err
	}
	return layer, c.unpack(ctx, archives, layer)
}

// download returns the archives of the packages and of those that the host lacks for them. Where the host's own lists
// of packages do not do, they are fetched anew, into the cache: the host's need root.
func (c debCache) download(ctx context.Context, names []string) ([]string, error) {
	archives, err := c.fetch(ctx, nil, names)
	if err == nil {
		return archives, nil
	}
	own := []string{
		"-o", "Dir::State::lists=" + filepath.Join(c.dir, "apt/lists"),
		"-o", "Dir::Cache::pkgcache=" + filepath.Join(c.dir, "apt/pkgcache.bin"),
		"-o", "Dir::Cache::srcpkgcache=" + filepath.Join(c.dir, "apt/srcpkgcache.bin"),
		"-o", "APT::Update::Post-Invoke=", "-o", "APT::Update::Post-Invoke-Success=",
	}
	if _, updateErr := c.apt(ctx, append(slices.Clone(own), "update")); updateErr != nil {
		return nil, errors.Join(err, updateErr)
	}
	return c.fetch(ctx, own, names)
}

// fetch resolves and downloads with the lists of packages that the options say.
func (c debCache) fetch(ctx context.Context, options, names []string) ([]string, error) {
	install := func(archives string, more ...string) ([]byte, error) {
		args := append(slices.Clone(options), "-o", "Dir::Cache::archives="+archives,
			"--no-install-recommends", "--no-upgrade", "--yes")
		return c.apt(ctx, append(append(append(args, more...), "install"), names...))
	}
	// apt prints only what is not downloaded yet: hence the folder that always stays empty.
	list, err := install(filepath.Join(c.dir, "none"), "--print-uris")
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(c.dir, "archives")
	if _, err := install(folder, "--download-only"); err != nil {
		return nil, err
	}
	var archives []string
	for line := range strings.Lines(string(list)) {
		// 'http://HOST/PATH' NAME SIZE SUM
		if fields := strings.Fields(line); len(fields) >= 3 && strings.HasPrefix(line, "'") {
			archives = append(archives, filepath.Join(folder, fields[1]))
		}
	}
	return archives, nil
}

func (c debCache) apt(ctx context.Context, args []string) ([]byte, error) {
	common := []string{"-qq", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"}
	res, err := c.runner.Run(ctx, hostcmd.Cmd{
		Name: "apt-get", Args: append(common, args...), Env: []string{"DEBIAN_FRONTEND=noninteractive"},
		Timeout: downloadTimeLimit,
	})
	return res.Stdout, err
}

// unpack makes the layer of these archives, complete or not at all.
func (c debCache) unpack(ctx context.Context, archives []string, layer string) (err error) {
	dir, err := os.MkdirTemp(filepath.Dir(layer), ".new-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil { // it shows as the machine's root folder
		return err
	}
	for _, archive := range archives {
		cmd := hostcmd.Cmd{Name: "dpkg-deb", Args: []string{"--extract", archive, dir}, Timeout: downloadTimeLimit}
		if _, err := c.runner.Run(ctx, cmd); err != nil {
			return err
		}
	}
	if err := mergeUsr(dir); err != nil {
		return err
	}
	return os.Rename(dir, layer)
}

// mergeUsr moves what lies in the folders that are links into /usr on the host to where these links lead: a folder of
// that name in a layer would hide the link.
func mergeUsr(layer string) error {
	for _, name := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		if _, err := os.Readlink("/" + name); err != nil {
			continue // a host where it is a folder of its own, or has none
		}
		from := filepath.Join(layer, name)
		if !isFolder(from) {
			continue
		}
		if err := os.MkdirAll(filepath.Join(layer, "usr"), 0o755); err != nil {
			return err
		}
		if err := mergeInto(from, filepath.Join(layer, "usr", name)); err != nil {
			return err
		}
	}
	return nil
}

// mergeInto moves a folder to another place, and into the folder that may be there already.
func mergeInto(from, to string) error {
	if !isFolder(from) || !isFolder(to) {
		return os.Rename(from, to)
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := mergeInto(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())); err != nil {
			return err
		}
	}
	return os.Remove(from)
}

// isFolder reports whether a folder, and no link to one, has this path.
func isFolder(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// lockFile takes the lock of a file that it makes where there is none, and waits for it until ctx ends. The lock ends
// with unlock or with the process.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = f.Close() }, nil // it was not written to
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return nil, errors.Join(&fs.PathError{Op: "lock", Path: path, Err: err}, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
