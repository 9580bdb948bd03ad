package setup

import (
	"fmt"
	"path/filepath"
	"slices"

	"voltar/internal/agefile"
	"voltar/internal/config"
	"voltar/internal/store"
	"voltar/internal/store/disk"
	"voltar/internal/store/s3"
)

// openStore opens a destination. One that cannot be opened stays in the run, and each use of it says why.
func (s *Setup) openStore(d config.Destination, memory *s3.Memory) store.Store {
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
			return nil, fmt.Errorf("read recipients_file of destination %s: %w", d.Name, err)
		}
		keys = append(keys, more...)
	}
	if len(keys) == 0 {
		return nil, nil
	}
	recipients, err := agefile.ParseRecipients(keys)
	if err != nil {
		return nil, fmt.Errorf("read recipients of destination %s: %w", d.Name, err)
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
			return opts, fmt.Errorf("read secret_key of destination %s: %w", d.Name, err)
		}
	}
	return opts, nil
}
