// Package config reads /etc/voltar/voltar.toml into checked structs. It is strict: an unknown key is an error that
// names its line, and every problem is reported at once. Only cmd, setup, check and deliver import it; the other packages
// take options of their own. docs/configuration.md describes each key.
package config

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"voltar/internal/safedir"
	"voltar/internal/say"
	"voltar/retention"
)

// DefaultPath is where the configuration is looked for when no flag says otherwise.
const DefaultPath = "/etc/voltar/voltar.toml"

// Sample is the commented file that `voltar init` writes. Read, it equals Default but for its destination.
//
//go:embed voltar.toml
var Sample string

// Config is the whole configuration.
type Config struct {
	Host     string `toml:"host"`      // name in paths and reports; the host's own when empty
	StateDir string `toml:"state_dir"` // journal, history, spool
	RunDir   string `toml:"run_dir"`   // locks
	Parallel int    `toml:"parallel"`  // volumes at a time

	Select    Select    `toml:"select"`
	FoundBy   FoundBy   `toml:"guests"`
	Snapshot  Snapshot  `toml:"snapshot"`
	Archive   Archive   `toml:"archive"`
	Limits    Limits    `toml:"limits"`
	Retention Retention `toml:"retention"`
	Mail      Mail      `toml:"mail"`
	Ping      Ping      `toml:"ping"`
	Metrics   Metrics   `toml:"metrics"`
	Log       Log       `toml:"log"`
	Sign      Sign      `toml:"sign"`
	Drill     Drill     `toml:"drill"`

	Destinations []Destination `toml:"destination"`
	Volumes      []Volume      `toml:"volume"`
	Webhooks     []Webhook     `toml:"webhook"`

	EnableMySQLDump bool        `toml:"enable_mysql_dump"` // in each guest with a host that a volume is frozen by
	Guests          []Guest     `toml:"guest"`
	Groups          []Group     `toml:"group"`
	Hooks           []Hook      `toml:"hook"`
	Dumps           []Dump      `toml:"dump"`
	Streams         []Dump      `toml:"stream"`
	Directories     []Directory `toml:"directory"`

	path string
}

// Drill says how backups are tried.
type Drill struct {
	Folder      string   `toml:"folder"`       // for scratch files; "drill" in StateDir when empty
	MaxSize     Size     `toml:"max_size"`     // of data that one drill writes; 0 sets no limit
	MaxDuration Duration `toml:"max_duration"` // of one drill; 0 sets no limit
}

// Sign says who vouches for backups. Nothing is signed or checked without it.
type Sign struct {
	Key         string `toml:"key"`          // private Ed25519 key of OpenSSH; signs what is made
	TrustedKeys string `toml:"trusted_keys"` // allowed signers of OpenSSH; backups of others are strangers'
}

// Select says which volumes are backed up. Patterns are globs as path.Match has them, over "VG/LV", or over the LV's
// name where they hold no slash.
type Select struct {
	VolumeGroups     []string `toml:"volume_groups"` // globs; none means all
	Include          []string `toml:"include"`       // none means all
	Exclude          []string `toml:"exclude"`
	IncludeTags      []string `toml:"include_tags"` // LVM tags: one of them is needed
	ExcludeTags      []string `toml:"exclude_tags"`
	ActivateInactive bool     `toml:"activate_inactive"`
	SharedVG         string   `toml:"shared_vg"` // refuse or single-writer
}

// FoundBy says how this host's guests are found, and what is done for the volumes of each that are in no [[group]].
type FoundBy struct {
	Libvirt     bool     `toml:"libvirt"`
	Proxmox     bool     `toml:"proxmox"`
	Command     []string `toml:"command"`     // argv; prints a JSON object for each volume
	Consistency string   `toml:"consistency"` // off, group or freeze
}

// Snapshot says how much room snapshots get and when they are given up.
type Snapshot struct {
	Size                SnapshotSize `toml:"size"`
	MinSize             Size         `toml:"min_size"` // never less, or the volume fails
	KeepFree            Size         `toml:"keep_free"`
	ExtendAtPercent     float64      `toml:"extend_at_percent"`
	ExtendByPercent     float64      `toml:"extend_by_percent"`
	PollInterval        Duration     `toml:"poll_interval"`
	ThinDataPercent     float64      `toml:"thin_data_percent"`     // pools fuller than this refuse
	ThinMetadataPercent float64      `toml:"thin_metadata_percent"` // likewise
	KeepLast            bool         `toml:"keep_last"`             // of thin volumes, until the next night, which reads what changed
}

// Archive says how data is stored.
type Archive struct {
	Level   string   `toml:"level"`   // fast, default, best, 1 to 9
	Workers int      `toml:"workers"` // compression workers, shared by all volumes; 0 means one for each CPU
	Exclude []string `toml:"exclude"` // anchored patterns
	Fresh   Duration `toml:"fresh"`   // age at which unchanged data are compressed anew, in whole days; 0 for each night
}

// Limits say how a run gives way to whatever else the host does.
type Limits struct {
	Nice     int    `toml:"nice"`      // niceness, 0 to 19; 0 leaves it as it is
	IONice   string `toml:"ionice"`    // none, best-effort or idle
	CPUs     int    `toml:"cpus"`      // used at a time; 0 means all
	ReadRate Size   `toml:"read_rate"` // bytes a second from all volumes together; 0 sets no limit

	MaxDuration    Duration `toml:"max_duration"`     // of one volume or other source, from its turn on; 0 sets no limit
	MaxRunDuration Duration `toml:"max_run_duration"` // of all of them in a run; 0 sets no limit
	TellAfter      Duration `toml:"tell_after"`       // a run that is still going on is told, each time; 0 never
}

// Retention says what is kept. All that is 0 does not count; a policy of nothing but zeros is refused by prune.
type Retention struct {
	Days     int `toml:"days"`
	KeepLast int `toml:"keep_last"`
	Daily    int `toml:"daily"`
	Weekly   int `toml:"weekly"`
	Monthly  int `toml:"monthly"`
	Yearly   int `toml:"yearly"`

	VanishedKeep Duration `toml:"vanished_keep"` // backups of a volume that is gone, after its last; 0 keeps them
}

// Policy returns the retention policy.
func (r Retention) Policy() retention.Policy {
	return retention.Policy{Days: r.Days, KeepLast: r.KeepLast, Daily: r.Daily, Weekly: r.Weekly, Monthly: r.Monthly, Yearly: r.Yearly}
}

// Mail says where the report goes. Without To there is no mail.
type Mail struct {
	To       []string `toml:"to"`
	From     string   `toml:"from"` // root at this host's full name when empty
	Helo     string   `toml:"helo"` // how the server is greeted; this host's full name when empty
	Server   string   `toml:"server"`
	Port     int      `toml:"port"` // by TLS when 0
	TLS      string   `toml:"tls"`  // starttls, tls or none
	CAFile   string   `toml:"ca_file"`
	Username string   `toml:"username"`
	Password Secret   `toml:"password"`
	Sendmail string   `toml:"sendmail"` // path; used when no server is set
	Notify   string   `toml:"notify"`   // always, failure or change
	Timeout  Duration `toml:"timeout"`
}

// Log says what is written on standard error.
type Log struct {
	Level string `toml:"level"` // debug, info, warn, error
}

// Destination is one place for backups.
type Destination struct {
	Name         string     `toml:"name"`
	Type         string     `toml:"type"`          // disk or s3
	Path         string     `toml:"path"`          // disk: folder
	RequireMount string     `toml:"require_mount"` // disk: a mountpoint that must be mounted; "path" itself unless set, "none" for none
	Retention    *Retention `toml:"retention"`     // instead of the general one
	CatchUp      *bool      `toml:"catch_up"`      // runs make up what it lacks of the others; true when not set
	Patience     Duration   `toml:"patience"`      // without an answer for so long, it is given up for the run; 0 for the default

	// Public keys of age for whom everything that goes there is encrypted; none stores it as it is.
	Recipients     []string `toml:"recipients"`
	RecipientsFile string   `toml:"recipients_file"` // more of them, one in each line

	S3

	Wrong error `toml:"-"` // by LoadToRead: why it cannot be used
}

// MountPoint returns the mountpoint that must be mounted before anything is written, or "" for none.
func (d Destination) MountPoint() string {
	switch d.RequireMount {
	case "":
		return d.Path
	case "none":
		return ""
	}
	return d.RequireMount
}

// Volume is what differs for the volumes that match. All matching ones apply in order; a later one wins.
type Volume struct {
	Match        string        `toml:"match"`
	As           string        `toml:"as"` // auto, files, image or skip
	Exclude      []string      `toml:"exclude"`
	SnapshotSize *SnapshotSize `toml:"snapshot_size"`
	Level        string        `toml:"level"`
	KeepLast     *bool         `toml:"keep_last"` // instead of what [snapshot] says
	Freeze       []string      `toml:"freeze"`    // names of guests; "local" for what this host has mounted of the volume
}

// Secret is a password or the like, which never stands in the file itself.
type Secret struct {
	File       string `toml:"file"`       // 0600
	Env        string `toml:"env"`        // name of an environment variable
	Credential string `toml:"credential"` // name of a systemd credential (LoadCredential=)
}

// Set tells whether there is one.
func (s Secret) Set() bool { return s != Secret{} }

// Read returns the secret, without a newline at its end. Its errors say what to do.
func (s Secret) Read() (string, error) {
	switch {
	case s.Env != "":
		value, found := os.LookupEnv(s.Env)
		if !found {
			return "", say.WithHint(fmt.Errorf("environment variable %s is not set", s.Env),
				"set it where voltar starts, or keep the secret in a file: { file = \"/etc/voltar/…\" }")
		}
		return value, nil
	case s.Credential != "":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return "", say.WithHint(fmt.Errorf("credential %s: not started by systemd with LoadCredential=%s", s.Credential, s.Credential),
				"LoadCredential= belongs into the unit of voltar; for commands that people type, keep the secret in a file: "+
					"{ file = \"/etc/voltar/…\" }")
		}
		return trimmed(safedir.ReadFile(path.Join(dir, s.Credential)))
	}
	info, err := os.Stat(s.File)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		return "", say.WithHint(fmt.Errorf("%s can be read by others", s.File), "run `chmod 600 "+s.File+"`")
	}
	if err != nil {
		return "", secretHint(s.File, err)
	}
	secret, err := trimmed(safedir.ReadFile(s.File))
	return secret, secretHint(s.File, err)
}

func trimmed(content []byte, err error) (string, error) {
	return strings.TrimRight(string(content), "\r\n"), err
}

// secretHint says what to do about the file of a secret.
func secretHint(file string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return say.WithHint(err, "`install -m 600 /dev/null "+file+"` makes it, for the secret alone; or correct the path in the configuration")
	}
	return say.AsRoot(err)
}

// Default is the configuration of an empty file.
func Default() *Config {
	return &Config{
		StateDir: "/var/lib/voltar",
		RunDir:   "/run/voltar",
		Parallel: 2,
		Select:   Select{Exclude: []string{"_snapshot-*", "snap_*"}, SharedVG: "refuse"},
		FoundBy:  FoundBy{Libvirt: true, Proxmox: true, Consistency: ConsistencyGroup},
		Snapshot: Snapshot{
			Size: SnapshotSize{Percent: 100}, MinSize: 256 << 20,
			ExtendAtPercent: 70, ExtendByPercent: 20, PollInterval: Duration(2 * time.Second),
			ThinDataPercent: 95, ThinMetadataPercent: 90,
		},
		Archive: Archive{Level: "default", Exclude: []string{"/lost+found/*"}, Fresh: Duration(120 * 24 * time.Hour)},
		Limits: Limits{
			Nice: 10, IONice: "best-effort", MaxDuration: Duration(24 * time.Hour), TellAfter: Duration(12 * time.Hour),
		},
		Drill:     Drill{MaxDuration: Duration(12 * time.Hour)},
		Retention: Retention{Days: 7},
		Mail:      Mail{TLS: "starttls", Sendmail: "/usr/sbin/sendmail", Notify: "always", Timeout: Duration(time.Minute)},
		Log:       Log{Level: "info"},
	}
}

// WithoutFile is the configuration of a run that was given none: named volumes only, and nothing is ever pruned.
func WithoutFile() *Config {
	c := Default()
	c.Retention = Retention{}
	return c
}

// Load reads and checks a file. A file that is missing is an error that wraps fs.ErrNotExist.
func Load(file string) (*Config, error) {
	content, err := safedir.ReadFile(file) // hooks and commands run from it
	if err != nil {
		return nil, unreadable(err)
	}
	c, err := Parse(content)
	if err != nil {
		return nil, inFile(file, err)
	}
	c.path = file
	return c, nil
}

// inFile names the file in each of the errors that are joined, as each is a line of its own.
func inFile(file string, err error) error {
	joined := say.Joined(err)
	if joined == nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	var all []error
	for _, err := range joined {
		all = append(all, inFile(file, err))
	}
	return errors.Join(all...)
}

// Path returns the file that the configuration came from, or "".
func (c *Config) Path() string { return c.path }

// Parse reads and checks the text of a file.
func Parse(content []byte) (*Config, error) {
	content, err := plainText(content)
	if err != nil {
		return nil, err
	}
	c, found, err := read(content)
	if err != nil {
		return nil, explain(err, content)
	}
	unknown, invalid := found.parted()
	if len(unknown) > 0 { // of which the others may come
		return nil, errors.Join(unknown...)
	}
	return c, errors.Join(invalid...)
}

// plainText is the text of a file as TOML has it.
func plainText(content []byte) ([]byte, error) {
	content = bytes.TrimPrefix(content, []byte("\uFEFF"))
	if bytes.HasPrefix(content, []byte("\xff\xfe")) || bytes.HasPrefix(content, []byte("\xfe\xff")) {
		return nil, errors.New("its text is UTF-16: save it as UTF-8")
	}
	return content, nil
}

// read reads what a text says, and finds all that is wrong with it. The error is the decoder's, of what is no TOML or of another
// type; nothing is known of the rest then.
func read(content []byte) (*Config, problems, error) {
	c := Default()
	decoder := toml.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(c)
	var unknown *toml.StrictMissingError
	if err != nil && !errors.As(err, &unknown) {
		return nil, problems{}, err
	}
	p := problems{lines: linesOf(content)}
	if unknown != nil {
		p.unknown(unknown)
	}
	c.validate(&p)
	p.sort()
	return c, p, nil
}

// IsMissing tells whether Load failed because there is no such file.
func IsMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
