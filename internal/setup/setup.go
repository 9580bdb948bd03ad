// Package setup makes of the configuration what commands work with: destinations that are open, and engines for runs and
// restores.
package setup

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"voltar/archive"
	"voltar/internal/backup"
	"voltar/internal/catalog"
	"voltar/internal/config"
	"voltar/internal/durable"
	"voltar/internal/exitcode"
	"voltar/internal/extent"
	"voltar/internal/gentle"
	"voltar/internal/guests"
	"voltar/internal/history"
	"voltar/internal/hostcmd"
	"voltar/internal/loopdev"
	"voltar/internal/mount"
	"voltar/internal/owned"
	"voltar/internal/placement"
	"voltar/internal/probe"
	"voltar/internal/quiesce"
	"voltar/internal/restore"
	"voltar/internal/say"
	"voltar/internal/sign"
	"voltar/internal/store"
	"voltar/internal/store/patient"
	"voltar/internal/verify"
	"voltar/lvm"
	"voltar/partmap"
)

// Options change what the configuration says.
type Options struct {
	Config       string               // the file; "" for the usual one
	Version      string               // of the program
	Folder       string               // the one destination, instead of the configured ones
	Untrusted    bool                 // accept backups that no trusted key has signed
	Lookup       bool                 // somebody waits for the answer, which must not take long
	ReadOnly     bool                 // the command only reads backups: what else is wrong in the configuration is a warning
	WhenDown     string               // what whoever waits can do about a destination that does not answer; "" for the usual
	SnapshotSize *config.SnapshotSize // instead of what the configuration says
	MustBeQuiet  bool                 // what cannot be frozen fails

	Log   func(level string) (*slog.Logger, error)
	Now   func() time.Time
	AtEnd func(func() error) // has something done when the program ends
}

// Setup is what a command works with: the configuration and what was built from it.
type Setup struct {
	Config *config.Config
	Log    *slog.Logger
	Host   string
	Runner *hostcmd.Runner
	Stores []Destination
	Now    func() time.Time
	opts   Options

	folders []Destination // on disks, those of the configuration and of flags

	guests atomic.Pointer[guests.Found] // as they were found last; nil before
}

// Destination is a destination that is open, with what the configuration says of it.
type Destination struct {
	verify.Destination
	Folder  string // of a disk; "" for a bucket
	keep    config.Retention
	catchUp bool
	twin    error // which other destination is the same place, and comes before it; nil for none
}

// New reads the configuration and opens the destinations. logLevel is that of the configuration if it is "".
func New(logLevel string, o Options) (*Setup, error) {
	load, warnings := config.Load, []error(nil)
	if o.ReadOnly {
		load = func(file string) (c *config.Config, err error) {
			c, warnings, err = config.LoadToRead(file)
			return c, err
		}
	}
	cfg, err := loadWith(load, o.Config)
	err = say.AsRoot(err)
	if config.IsMissing(err) {
		err = say.WithHint(err, fmt.Sprintf("`voltar init --config %s` writes one", o.Config))
	}
	if err != nil {
		return nil, exitcode.UsageError(err)
	}
	s, err := bare(cfg, cmp.Or(logLevel, cfg.Log.Level), o)
	if err != nil {
		return nil, err
	}
	for _, warning := range warnings {
		say.Log(s.Log.Warn, warning)
	}
	if o.Folder != "" {
		return s, s.openFolder("--to", o.Folder, "correct the path, mount the disk that it is on, or make it: `mkdir -p "+o.Folder+"`")
	}
	return s, s.openStores()
}

// Emergency is what works without a configuration: the host's name, a log, and the defaults.
func Emergency(logLevel string, o Options) (*Setup, error) {
	cfg := config.Default()
	return bare(cfg, cmp.Or(logLevel, cfg.Log.Level), o)
}

// bare is a setup without destinations.
func bare(cfg *config.Config, logLevel string, o Options) (*Setup, error) {
	s := &Setup{Config: cfg, Host: cfg.Host, Now: o.Now, opts: o}
	var err error
	if s.Log, err = o.Log(logLevel); err != nil {
		return nil, exitcode.UsageError(err)
	}
	if s.Host == "" {
		if s.Host, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("cannot tell the name of this host: %w", err)
		}
		s.Host, _, _ = strings.Cut(s.Host, ".")
	}
	s.Runner = hostcmd.New(hostcmd.Options{Log: s.Log})
	return s, nil
}

// HostOr is the host whose backups are meant: the one that is named, or this one.
func (s *Setup) HostOr(name string) string { return cmp.Or(name, s.Host) }

// Past is the history of this host's runs.
func (s *Setup) Past() *history.Store {
	return history.New(filepath.Join(s.Config.StateDir, "history"), durable.Host(nil), s.Now)
}

// vouching returns what has the manifests of a store signed and checked, as the configuration says, and why nothing can be
// signed, where that is so. --untrusted takes those that no key has signed, too, also where no keys are left.
func (s *Setup) vouching() (vouch func(store.Store) store.Store, noKey, err error) {
	if s.Config.Sign.TrustedKeys == "" {
		return func(plain store.Store) store.Store { return plain }, nil, nil
	}
	opts := sign.Options{TakeAll: s.opts.Untrusted}
	if opts.Trusted, err = sign.ReadTrusted(s.Config.Sign.TrustedKeys); err != nil && !s.opts.Untrusted {
		return nil, nil, exitcode.UsageError(err)
	}
	if opts.NoKey = err; err == nil {
		opts.Key, opts.NoKey = s.signingKey(opts.Trusted)
	}
	return func(plain store.Store) store.Store { return sign.Wrap(plain, opts) }, opts.NoKey, nil
}

// signingKey reads the key of this host, which has to be one of those that are trusted.
func (s *Setup) signingKey(trusted sign.Trusted) (*sign.Key, error) {
	if s.Config.Sign.Key == "" {
		return nil, say.WithHint(errors.New("cannot sign: what this host makes would be a stranger's"),
			"set sign.key, with its public key in sign.trusted_keys")
	}
	key, err := sign.ReadKey(s.Config.Sign.Key)
	if err == nil && !trusted.Has(key) {
		key, err = nil, say.WithHint(errors.New("cannot sign: sign.key is not among sign.trusted_keys"),
			"what this host makes would be a stranger's: add "+s.Config.Sign.Key+".pub to "+s.Config.Sign.TrustedKeys+", behind a name")
	}
	return key, err
}

// whenDown says what can be done about a destination that does not answer.
func (o *Options) whenDown() string {
	switch {
	case o.WhenDown != "":
		return o.WhenDown
	case o.ReadOnly || o.Lookup:
		return "try again as soon as it answers"
	}
	return "the next run copies what is missing there as soon as it answers again"
}

// lookupPatience bounds how long a destination may take to answer a command that only looks something up.
const lookupPatience = 30 * time.Second

// patience is for how long a destination may give no answer.
func (s *Setup) patience(d config.Destination) time.Duration {
	patience := cmp.Or(time.Duration(d.Patience), patient.Default)
	if s.opts.Lookup {
		return min(patience, lookupPatience)
	}
	return patience
}

// LoadConfig reads the file that is named, or the usual one; only the usual one may be missing.
func LoadConfig(file string) (*config.Config, error) { return loadWith(config.Load, file) }

func loadWith(load func(file string) (*config.Config, error), file string) (*config.Config, error) {
	if file != "" {
		file, err := filepath.Abs(file) // the lock goes by it
		if err != nil {
			return nil, err
		}
		return load(file)
	}
	cfg, err := load(config.DefaultPath)
	if config.IsMissing(err) {
		return config.WithoutFile(), nil
	}
	return cfg, err
}

// OwnedHost is where runs and restores make what they have only for a while. Its commands carry the mark of this process,
// for which recovery waits.
func (s *Setup) OwnedHost() *owned.Host {
	runner := hostcmd.New(hostcmd.Options{Log: s.Log, Env: []string{owned.OwnerEnv()}})
	h := &owned.Host{
		LVM: lvm.New(runner, lvm.Options{}), Maps: partmap.NewMapper(runner, partmap.MapperOptions{}), Loops: loopdev.New(runner),
		Runner: runner, Log: s.Log, StateDir: s.Config.StateDir,
	}
	for _, d := range s.Stores {
		h.Stores = append(h.Stores, d.Store)
	}
	return h
}

func (s *Setup) mounter() *mount.Mounter {
	return mount.New(mount.Options{Log: s.Log, Env: []string{owned.OwnerEnv()}})
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

// Engine builds what a run works with.
func (s *Setup) Engine(progress backup.Progress) (*backup.Engine, error) {
	machineID, err := readMachineID("/etc/machine-id")
	if err != nil {
		return nil, err
	}
	cfg := s.Config
	workers := cfg.Archive.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	pool := archive.NewPool(workers)
	s.opts.AtEnd(func() error { pool.Close(); return nil })
	if rate := cfg.Limits.ReadRate.Bytes(); rate > 0 {
		pool.LimitReads(rate)
	}
	host := s.OwnedHost()
	deps := backup.Deps{
		Host:     host,
		Prober:   probe.New(host.Runner),
		Mounts:   s.mounter(),
		Quieter:  quiesce.New(s.Runner, quiesce.Options{Log: s.Log}),
		Pool:     pool,
		Progress: progress,
		Now:      s.Now,
	}
	opts := backup.Options{
		Host: catalog.Host{Name: s.Host, MachineID: machineID}, Version: s.opts.Version, ConfigPath: cfg.Path(), RunDir: cfg.RunDir,
		Limits: backup.Limits{
			Parallel: cfg.Parallel, MaxDuration: cfg.Limits.MaxDuration.Span(), MaxRunDuration: cfg.Limits.MaxRunDuration.Span(),
		},
		Select: backup.Select{
			VolumeGroups: cfg.Select.VolumeGroups, Include: cfg.Select.Include, Exclude: cfg.Select.Exclude,
			IncludeTags: cfg.Select.IncludeTags, ExcludeTags: cfg.Select.ExcludeTags,
			ActivateInactive: cfg.Select.ActivateInactive, SharedSingleWriter: cfg.Select.SharedVG == "single-writer",
			Match: s.matches, MatchGroup: matchesGroup,
		},
		Snapshot: backup.SnapshotOptions{
			KeepFreeBytes:   cfg.Snapshot.KeepFree.Bytes(),
			ExtendAtPercent: cfg.Snapshot.ExtendAtPercent, ExtendByPercent: cfg.Snapshot.ExtendByPercent,
			PollInterval:    cfg.Snapshot.PollInterval.Span(),
			ThinDataPercent: cfg.Snapshot.ThinDataPercent, ThinMetadataPercent: cfg.Snapshot.ThinMetadataPercent,
		},
		Settings:     s.volumeSettings,
		FindGuests:   s.findGuests(),
		VanishedKeep: cfg.Retention.VanishedKeep.Span(),
		Damage:       s.Damage(),
		Known:        s.Known(),
		Written:      s.Written(),
		MarkDamaged:  s.MarkDamaged,
		FoundSound:   s.foundSound,
		Fresh:        cfg.Archive.Fresh.Span(),
	}
	for _, d := range s.Stores {
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
func (s *Setup) volumeSettings(v lvm.Volume) backup.Settings {
	cfg := s.Config
	level, size := cfg.Archive.Level, cfg.Snapshot.Size
	settings := backup.Settings{As: extent.AsAuto, KeepLast: cfg.Snapshot.KeepLast, Exclude: append([]string{}, cfg.Archive.Exclude...)}
	var freeze []string
	for _, rule := range cfg.Volumes {
		if !s.matches(rule.Match, v) {
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
		if rule.KeepLast != nil {
			settings.KeepLast = *rule.KeepLast
		}
	}
	settings.Level, _ = archive.ParseLevel(level) // checked when the file was read
	if s.opts.SnapshotSize != nil {
		size = *s.opts.SnapshotSize
	}
	settings.SnapshotSize = lvm.SizePolicy{Percent: size.Percent, Bytes: size.Bytes, FloorBytes: cfg.Snapshot.MinSize.Bytes()}
	s.volumeQuiescing(v, freeze, &settings)
	return settings
}

// Known is what is remembered of manifests.
func (s *Setup) Known() *catalog.Known {
	if s.Config.Path() == "" {
		return nil // without a configuration there is no state either
	}
	return catalog.NewKnown(filepath.Join(s.Config.StateDir, "manifests"), s.Log)
}

// Written is by which manifests that this host wrote are known again.
func (s *Setup) Written() *catalog.Written {
	if s.Config.Path() == "" {
		return nil
	}
	return catalog.NewWritten(filepath.Join(s.Config.StateDir, "written"))
}

// DamageNotes are what is known of damaged backups.
func (s *Setup) DamageNotes() *verify.Notes {
	return verify.NewNotes(filepath.Join(s.Config.StateDir, "damage"), durable.Host(nil))
}

// Damage is what `voltar verify` found wrong with backups, as in catalog.Filter.
func (s *Setup) Damage() map[string]string {
	if s.Config.Path() == "" {
		return nil // without a configuration there is no state either
	}
	notes, err := s.DamageNotes().All()
	if err != nil {
		s.Log.Warn("backups that verify found damaged may count as good", "err", err)
	}
	damage := map[string]string{}
	for backup, note := range notes {
		damage[backup] = "verify found " + note.String()
	}
	return damage
}

// MarkDamaged remembers what a run, a drill or a restore found wrong with a backup, as if verify had found it by its sums.
func (s *Setup) MarkDamaged(place, what string) error {
	if s.Config.Path() == "" {
		return nil
	}
	return s.DamageNotes().Enter(verify.Note{Backup: place, Found: s.Now().UTC(), Level: verify.Sums, What: what})
}

// foundSound forgets what was found wrong with a backup whose files have their sums: whatever that was if they were replaced, and
// otherwise what a look at the sums had found.
func (s *Setup) foundSound(place string, replaced bool) error {
	switch {
	case s.Config.Path() == "":
		return nil
	case replaced:
		return s.DamageNotes().Forget(place)
	}
	return s.DamageNotes().Enter(verify.Note{Backup: place, Found: s.Now().UTC(), Level: verify.Sums})
}

// GiveWay makes a run as gentle as the configuration says. A host that does not let it is told so, and backed up.
func (s *Setup) GiveWay() {
	limits := s.Config.Limits
	err := gentle.Apply(gentle.Options{Nice: limits.Nice, IO: gentle.IOClass(limits.IONice), CPUs: limits.CPUs})
	if err != nil {
		s.Log.Warn("the run goes on without some of its limits", "err", err)
	}
}

// RestoreEngine builds what a restore works with.
func (s *Setup) RestoreEngine(host *owned.Host, progress restore.Progress) *restore.Engine {
	return restore.New(restore.Deps{
		Host: host, Prober: probe.New(host.Runner), Mounts: s.mounter(), Progress: progress, Now: s.Now,
	}, restore.Options{Host: s.Host, RunDir: s.Config.RunDir})
}

// Recover removes what a dead run or restore left: its maps would make a target look used.
func (s *Setup) Recover(ctx context.Context, host *owned.Host) {
	removed, err := host.Recover(ctx)
	for _, what := range removed {
		s.Log.Info("removed " + what)
	}
	if err != nil {
		say.Log(s.Log.Warn, fmt.Errorf("what an earlier run left: %w", err))
	}
}
