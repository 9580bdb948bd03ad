package main

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"

	"voltar/archive"
	"voltar/internal/backup"
	"voltar/internal/catalog"
	"voltar/internal/config"
	"voltar/internal/extent"
	"voltar/internal/hostcmd"
	"voltar/internal/loopdev"
	"voltar/internal/mount"
	"voltar/internal/owned"
	"voltar/internal/placement"
	"voltar/internal/probe"
	"voltar/internal/quiesce"
	"voltar/internal/say"
	"voltar/internal/sign"
	"voltar/internal/store"
	"voltar/internal/store/disk"
	"voltar/internal/store/patient"
	"voltar/internal/store/s3"
	"voltar/internal/verify"
	"voltar/lvm"
	"voltar/partmap"
)

// setup is what a subcommand works with: the configuration and what was built from it.
type setup struct {
	config *config.Config
	log    *slog.Logger
	host   string
	runner *hostcmd.Runner
	stores []openDestination
	now    func() time.Time
	atEnd  func(func() error) // runs something when the program ends
	opts   setupOptions
}

// openDestination is a destination that is open, with what the configuration says of it.
type openDestination struct {
	verify.Destination
	keep    config.Retention
	catchUp bool
}

// setup reads the configuration and opens the destinations.
func (a *app) setup(o setupOptions) (*setup, error) {
	cfg, err := loadConfig(o.config)
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		err = say.WithHint(err, "run it as root")
	}
	if err != nil {
		return nil, usageError{err}
	}
	s := &setup{config: cfg, host: cfg.Host, now: a.now, atEnd: a.atEnd, opts: o}
	if s.log, err = a.logger(cmp.Or(o.logLevel, cfg.Log.Level)); err != nil {
		return nil, err
	}
	if s.host == "" {
		if s.host, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("cannot tell the name of this host: %w", err)
		}
		s.host, _, _ = strings.Cut(s.host, ".")
	}
	s.runner = hostcmd.New(hostcmd.Options{Log: s.log})
	return s, s.openStores(o.folder)
}

// vouching returns what has the manifests of a store signed and checked, as the configuration says, and why nothing can be
// signed, where that is so. --untrusted takes those that no key has signed, too, also where no keys are left.
func (s *setup) vouching() (vouch func(store.Store) store.Store, noKey, err error) {
	if s.config.Sign.TrustedKeys == "" {
		return func(plain store.Store) store.Store { return plain }, nil, nil
	}
	opts := sign.Options{TakeAll: s.opts.untrusted}
	if opts.Trusted, err = sign.ReadTrusted(s.config.Sign.TrustedKeys); err != nil && !s.opts.untrusted {
		return nil, nil, usageError{err}
	}
	if opts.NoKey = err; err == nil {
		opts.Key, opts.NoKey = s.signingKey(opts.Trusted)
	}
	return func(plain store.Store) store.Store { return sign.Wrap(plain, opts) }, opts.NoKey, nil
}

// signingKey reads the key of this host, which has to be one of those that are trusted.
func (s *setup) signingKey(trusted sign.Trusted) (*sign.Key, error) {
	if s.config.Sign.Key == "" {
		return nil, say.WithHint(errors.New("cannot sign: what this host makes would be a stranger's"),
			"set sign.key, with its public key in sign.trusted_keys")
	}
	key, err := sign.ReadKey(s.config.Sign.Key)
	if err == nil && !trusted.Has(key) {
		key, err = nil, say.WithHint(errors.New("cannot sign: sign.key is not among sign.trusted_keys"),
			"what this host makes would be a stranger's: add "+s.config.Sign.Key+".pub to "+s.config.Sign.TrustedKeys+", behind a name")
	}
	return key, err
}

// lookupPatience bounds how long a destination may take to answer a command that only looks something up.
const lookupPatience = 30 * time.Second

// patience is for how long a destination may give no answer.
func (s *setup) patience(d config.Destination) time.Duration {
	patience := cmp.Or(time.Duration(d.Patience), patient.Default)
	if s.opts.lookup {
		return min(patience, lookupPatience)
	}
	return patience
}

// openStores opens the destinations of the configuration, or the one folder that a flag names in their stead.
func (s *setup) openStores(folder string) error {
	if folder != "" {
		path, err := filepath.Abs(folder)
		if err != nil {
			return err
		}
		mount, err := disk.HostMount(path)
		if err != nil {
			return usageError{fmt.Errorf("--to %s: %w", folder, err)}
		}
		s.config.Destinations = []config.Destination{
			{Name: "folder", Type: "disk", Path: path, RequireMount: cmp.Or(mount, "none"), Retention: &config.Retention{}},
		}
	}
	vouch, noKey, err := s.vouching()
	if err != nil {
		return err
	}
	memory := s3.NewMemory(s3.DefaultMemoryBytes)
	for _, d := range s.config.Destinations {
		keep := s.config.Retention
		if d.Retention != nil {
			keep = *d.Retention
		}
		opened := vouch(patient.Wrap(s.openStore(d, memory), s.patience(d)))
		recipients, err := recipientsOf(d)
		s.stores = append(s.stores, openDestination{
			Destination: verify.Destination{
				Destination: catalog.Destination{Name: d.Name, Store: opened}, Recipients: recipients, Unfit: errors.Join(err, noKey),
			},
			keep: keep, catchUp: d.CatchUp == nil || *d.CatchUp,
		})
		if closer, ok := store.As[io.Closer](opened); ok {
			s.atEnd(closer.Close)
		}
	}
	return nil
}

// loadConfig reads the file that is named, or the usual one; only the usual one may be missing.
func loadConfig(file string) (*config.Config, error) {
	if file != "" {
		file, err := filepath.Abs(file) // the lock goes by it
		if err != nil {
			return nil, err
		}
		return config.Load(file)
	}
	cfg, err := config.Load(config.DefaultPath)
	if config.IsMissing(err) {
		return config.WithoutFile(), nil
	}
	return cfg, err
}

// logger writes plain lines to standard error, or structured ones to the journal when standard error leads there. What
// libraries log by themselves, as net/http does of an answer that nobody asked for, goes the same way, for who looks for
// faults: otherwise it would reach the terminal as a server wrote it.
func (a *app) logger(level string) (*slog.Logger, error) {
	handler, err := a.logHandler(level)
	if err != nil {
		return nil, err
	}
	log.SetFlags(0)
	log.SetOutput(slog.NewLogLogger(handler, slog.LevelDebug).Writer())
	return slog.New(handler), nil
}

func (a *app) logHandler(name string) (slog.Handler, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return nil, usageError{fmt.Errorf("--log-level: %q is none of debug, info, warn, error", name)}
	}
	if file, ok := a.rawErr.(*os.File); ok {
		if toJournal, err := journal.StderrIsJournalStream(); err == nil && toJournal && file == os.Stderr {
			return newJournalHandler(level), nil
		}
	}
	return newLineHandler(a.stderr, level), nil
}

// ownedHost is where runs and restores make what they have only for a while. Its commands carry the mark of this process,
// for which recovery waits.
func (s *setup) ownedHost() *owned.Host {
	runner := hostcmd.New(hostcmd.Options{Log: s.log, Env: []string{owned.OwnerEnv()}})
	h := &owned.Host{
		LVM: lvm.New(runner, lvm.Options{}), Maps: partmap.NewMapper(runner, partmap.MapperOptions{}), Loops: loopdev.New(runner),
		Runner: runner, Log: s.log, StateDir: s.config.StateDir,
	}
	for _, d := range s.stores {
		h.Stores = append(h.Stores, d.Store)
	}
	return h
}

func (s *setup) mounter() *mount.Mounter {
	return mount.New(mount.Options{Log: s.log, Env: []string{owned.OwnerEnv()}})
}

// readMachineID reads the machine's own number (machine-id(5)), by which a host's folder in a store is known as its own. An
// image that many machines are made of has none, or the word "uninitialized": all of them would pass for one.
func readMachineID(path string) (string, error) {
	data, err := os.ReadFile(path)
	id := strings.TrimSpace(string(data))
	switch raw, hexErr := hex.DecodeString(id); {
	case err != nil:
	case id == "":
		err = fmt.Errorf("%s is empty", path)
	case hexErr != nil || len(raw) != 16:
		err = fmt.Errorf("%s holds %q, which is no machine ID", path, id)
	}
	if err != nil {
		return "", say.WithHint(fmt.Errorf("cannot tell which machine this is: %w", err), "run `systemd-machine-id-setup`")
	}
	return id, nil
}

// setupEngine is setup, for commands that work with an engine and show no progress.
func (a *app) setupEngine(o setupOptions) (*setup, *backup.Engine, error) {
	s, err := a.setup(o)
	if err != nil {
		return nil, nil, err
	}
	engine, err := s.engine(nil)
	return s, engine, err
}

// engine builds what a run works with.
func (s *setup) engine(progress backup.Progress) (*backup.Engine, error) {
	machineID, err := readMachineID("/etc/machine-id")
	if err != nil {
		return nil, err
	}
	cfg := s.config
	workers := cfg.Archive.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	pool := archive.NewPool(workers)
	s.atEnd(func() error { pool.Close(); return nil })
	if rate := cfg.Limits.ReadRate.Bytes(); rate > 0 {
		pool.LimitReads(rate)
	}
	host := s.ownedHost()
	deps := backup.Deps{
		Host:     host,
		Prober:   probe.New(host.Runner),
		Mounts:   s.mounter(),
		Quieter:  quiesce.New(s.runner, quiesce.Options{Log: s.log}),
		Pool:     pool,
		Progress: progress,
		Now:      s.now,
	}
	opts := backup.Options{
		Host: catalog.Host{Name: s.host, MachineID: machineID}, Version: programVersion(), ConfigPath: cfg.Path(), RunDir: cfg.RunDir,
		Limits: backup.Limits{
			Parallel: cfg.Parallel, MaxDuration: cfg.Limits.MaxDuration.Span(), MaxRunDuration: cfg.Limits.MaxRunDuration.Span(),
		},
		Select: backup.Select{
			VolumeGroups: cfg.Select.VolumeGroups, Include: cfg.Select.Include, Exclude: cfg.Select.Exclude,
			IncludeTags: cfg.Select.IncludeTags, ExcludeTags: cfg.Select.ExcludeTags,
			ActivateInactive: cfg.Select.ActivateInactive, SharedSingleWriter: cfg.Select.SharedVG == "single-writer",
			Match: config.MatchVolume,
		},
		Snapshot: backup.SnapshotOptions{
			KeepFreeBytes:   cfg.Snapshot.KeepFree.Bytes(),
			ExtendAtPercent: cfg.Snapshot.ExtendAtPercent, ExtendByPercent: cfg.Snapshot.ExtendByPercent,
			PollInterval:    cfg.Snapshot.PollInterval.Span(),
			ThinDataPercent: cfg.Snapshot.ThinDataPercent, ThinMetadataPercent: cfg.Snapshot.ThinMetadataPercent,
		},
		Settings:     s.volumeSettings,
		VanishedKeep: cfg.Retention.VanishedKeep.Span(),
		Damage:       s.damage(),
	}
	for _, d := range s.stores {
		to := d.Store
		if d.Unfit != nil { // never in the clear, never unsigned
			to = store.Unavailable(d.Store.String(), d.Unfit)
		}
		opts.Destinations = append(opts.Destinations, placement.Destination{
			Name: d.Name, Store: to, Policy: d.keep.Policy(), CatchUp: d.catchUp, Recipients: d.Recipients,
		})
	}
	s.addQuiescing(&opts)
	return backup.New(deps, opts), nil
}

// volumeSettings lays the configuration's word on one volume out: the general settings, then every matching [[volume]]
// in the order of the file.
func (s *setup) volumeSettings(v lvm.Volume) backup.Settings {
	cfg := s.config
	level, size := cfg.Archive.Level, cfg.Snapshot.Size
	settings := backup.Settings{As: extent.AsAuto, Exclude: append([]string{}, cfg.Archive.Exclude...)}
	var freeze []string
	for _, rule := range cfg.Volumes {
		if !config.MatchVolume(rule.Match, v.VG, v.Name) {
			continue
		}
		if rule.As != "" {
			settings.As = extent.As(rule.As)
		}
		settings.Exclude = append(settings.Exclude, rule.Exclude...)
		freeze = append(freeze, rule.Freeze...)
		if rule.SnapshotSize != nil {
			size = *rule.SnapshotSize
		}
		if rule.Level != "" {
			level = rule.Level
		}
	}
	settings.Level, _ = archive.ParseLevel(level) // checked when the file was read
	if s.opts.snapshotSize != nil {
		size = *s.opts.snapshotSize
	}
	settings.SnapshotSize = lvm.SizePolicy{Percent: size.Percent, Bytes: size.Bytes, FloorBytes: cfg.Snapshot.MinSize.Bytes()}
	s.volumeQuiescing(v, freeze, &settings)
	return settings
}

// isTerminal tells whether a stream is one that a person watches.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}
