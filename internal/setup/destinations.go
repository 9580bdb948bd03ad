package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"voltar/internal/agefile"
	"voltar/internal/catalog"
	"voltar/internal/config"
	"voltar/internal/exitcode"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/internal/store/disk"
	"voltar/internal/store/patient"
	"voltar/internal/store/s3"
	"voltar/internal/verify"
)

// openFolder opens the one folder that a flag names, instead of the destinations of the configuration. It has to be there: a folder
// that a slip of the pen names would fill the host's own disk. ifMissing is what to do then.
func (s *Setup) openFolder(flag, folder, ifMissing string) error {
	path, err := filepath.Abs(folder)
	if err != nil {
		return err
	}
	mount, err := patient.Within(context.Background(), s.patience(config.Destination{}), func() (string, error) { // which may hang
		mount, err := disk.HostMount(path)
		if err == nil {
			err = checkFolder(path, ifMissing)
		}
		return mount, err
	})
	if err != nil {
		return exitcode.UsageError(fmt.Errorf("%s %s: %w", flag, folder, err))
	}
	s.Config.Destinations = []config.Destination{
		{Name: "folder", Type: "disk", Path: path, RequireMount: cmp.Or(mount, "none"), Retention: &config.Retention{}},
	}
	return s.openStores()
}

// checkFolder wants a folder to be there.
func checkFolder(path, ifMissing string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return say.WithHint(errors.New("there is no such folder"), ifMissing)
	case errors.Is(err, fs.ErrPermission):
		return say.AsRoot(err)
	case err == nil && !info.IsDir():
		return errors.New("it is no folder")
	}
	return err
}

// openStores opens the destinations.
func (s *Setup) openStores() error {
	vouch, noKey, err := s.vouching()
	if err != nil {
		return err
	}
	memory := s3.NewMemory(s3.DefaultMemoryBytes)
	for _, d := range s.Config.Destinations {
		keep := s.Config.Retention
		if d.Retention != nil {
			keep = *d.Retention
		}
		opened := vouch(patient.Wrap(s.openStore(d, memory), s.patience(d), s.opts.whenDown()))
		recipients, err := recipientsOf(d)
		s.Stores = append(s.Stores, Destination{
			Destination: verify.Destination{
				Destination: catalog.Destination{Name: d.Name, Store: opened}, Recipients: recipients,
				Unfit: errors.Join(err, noKey),
			},
			Folder: d.Path, keep: keep, catchUp: d.CatchUp == nil || *d.CatchUp,
		})
		if d.Path != "" {
			s.folders = append(s.folders, s.Stores[len(s.Stores)-1])
		}
		if closer, ok := store.As[io.Closer](opened); ok {
			s.opts.AtEnd(closer.Close)
		}
	}
	s.refuseTwins()
	return nil
}

// refuseTwins takes a store for unfit that keeps the very objects of an earlier one: what both hold is there once, and each would
// remove what only the other's policy keeps.
func (s *Setup) refuseTwins() {
	first := map[string]Destination{}
	for i, place := range catalog.AskAll(s.Stores, s.placeOf) {
		d := &s.Stores[i]
		earlier, isTwin := first[place]
		switch {
		case place == "":
		case isTwin:
			d.twin = say.WithHint(fmt.Errorf("it is the same place as destination %s (%s): a backup would be there once, and not twice",
				earlier.Name, earlier.Store), "give it a place of its own, or remove one of the two from the configuration")
			d.Unfit = errors.Join(d.Unfit, d.twin)
		default:
			first[place] = *d
		}
	}
}

// RefuseWithin refuses to write what comes out of backups to a path where backups lie: in the folder of any destination, however the path
// leads there.
func (s *Setup) RefuseWithin(ctx context.Context, flag, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for _, d := range s.folders {
		isWithin := isBelow(path, d.Folder)
		if !isWithin {
			isWithin, err = patient.Ask(ctx, d.Store, func(context.Context) (bool, error) { return liesIn(path, d.Folder), nil })
			if err != nil {
				continue // nobody can write there now
			}
		}
		if isWithin {
			return exitcode.UsageError(say.WithHint(fmt.Errorf("%s %s: destination %s keeps its backups there, in %s", flag, path, d.Name, d.Folder),
				"give a place outside of it, as "+flag+" /var/tmp/"+filepath.Base(path)))
		}
	}
	return nil
}

// isBelow tells whether a path is a folder, or below it, by their names.
func isBelow(path, folder string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && filepath.IsLocal(rel)
}

// liesIn tells whether a path, or the nearest above it that is there, is a folder or below it. What cannot be looked at is not.
func liesIn(path, folder string) bool {
	is, err := os.Stat(folder)
	if err != nil {
		return false
	}
	for {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real // whose folders are all there
			break
		}
		if path == "/" {
			return false
		}
		path = filepath.Dir(path)
	}
	for {
		if at, err := os.Stat(path); err == nil && os.SameFile(at, is) {
			return true
		}
		if path == "/" {
			return false
		}
		path = filepath.Dir(path)
	}
}

// placeOf is what tells a store from others; "" of one that cannot tell, which says so itself when it is used. The only disk, or bucket,
// is not asked: no disk is touched before it is used.
func (s *Setup) placeOf(d Destination) string {
	isDisk := func(d Destination) bool { return d.Folder != "" }
	if !slices.ContainsFunc(s.Stores, func(other Destination) bool { return other.Name != d.Name && isDisk(other) == isDisk(d) }) {
		return ""
	}
	placed, ok := store.As[store.Placed](d.Store)
	if !ok {
		return ""
	}
	place, err := placed.Place(context.Background()) // which lasts as long as the patience
	if err != nil {
		return ""
	}
	return place
}

// openStore opens a destination. One that cannot be opened stays in the run, and each use of it says why.
func (s *Setup) openStore(d config.Destination, memory *s3.Memory) store.Store {
	if d.Wrong != nil {
		return store.Unavailable(d.Name, d.Wrong)
	}
	if d.Type == "s3" {
		opts, err := s.bucketOptions(d, memory)
		if err != nil {
			return store.Unavailable(opts.String(), err)
		}
		opened, err := s3.Open(opts)
		if err != nil {
			return store.Unavailable(opts.String(), err)
		}
		return opened
	}
	opened, err := disk.Open(disk.Options{Path: d.Path, RequireMount: d.MountPoint()})
	if err != nil {
		return store.Unavailable(filepath.Clean(d.Path), err) // by its name as a disk's
	}
	return opened
}

// recipientsOf reads for whom what goes to a destination is encrypted; nil for nobody.
func recipientsOf(d config.Destination) (*agefile.Recipients, error) {
	keys := slices.Clone(d.Recipients)
	if d.RecipientsFile != "" {
		more, err := agefile.ReadKeys(d.RecipientsFile)
		if err != nil {
			return nil, fmt.Errorf("read recipients_file: %w", err)
		}
		keys = append(keys, more...)
	}
	if len(keys) == 0 {
		return nil, nil
	}
	recipients, err := agefile.ParseRecipients(keys)
	if err != nil {
		return nil, fmt.Errorf("read recipients: %w", err)
	}
	return recipients, nil
}

// BucketStateDir is where all buckets keep what outlives a run.
func (s *Setup) BucketStateDir() string { return filepath.Join(s.Config.StateDir, "s3") }

func (s *Setup) bucketOptions(d config.Destination, memory *s3.Memory) (s3.Options, error) {
	opts := s3.Options{
		Endpoint: d.Endpoint, Bucket: d.Bucket, Prefix: d.Prefix, Region: d.Region, PathStyle: d.PathStyle, CAFile: d.CAFile,
		Credentials:  s3.Credentials{AccessKey: d.AccessKey, InstanceRole: d.InstanceRole},
		StorageClass: d.StorageClass, Encryption: d.SSE, Checksum: s3.Checksum(d.Checksum),
		NoTags: d.Tags != nil && !*d.Tags, Lock: s3.Lock{Mode: d.ObjectLock.Mode, Days: d.ObjectLock.Days},
		UploadLimit: d.UploadLimit.Bytes(), Memory: memory, StateDir: s.BucketStateDir(),
		Timeout: s.patience(d), RetryFor: s.patience(d),
	}
	if d.SecretKey.Set() {
		var err error
		if opts.Credentials.SecretKey, err = d.SecretKey.Read(); err != nil {
			return opts, fmt.Errorf("read secret_key: %w", err)
		}
	}
	return opts, nil
}
