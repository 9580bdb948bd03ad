package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// FreezeLocal in the place of a guest's name means the filesystems of the volume that this host has mounted.
const FreezeLocal = "local"

// What a failure means. For guests the default is FailureGoOn, for hooks and groups FailureFail.
const (
	FailureFail = "fail"
	FailureGoOn = "go-on"
)

// What is done for the volumes of a guest that was found, where they are in no [[group]].
const (
	ConsistencyOff    = "off"    // each by itself
	ConsistencyGroup  = "group"  // at one moment
	ConsistencyFreeze = "freeze" // and frozen meanwhile, where the guest can be
)

// Guest says how to make something quiet around a snapshot.
type Guest struct {
	Name        string   `toml:"name"`
	Method      string   `toml:"method"` // local, ssh, agent, virsh, command, or none
	Host        string   `toml:"host"`   // as ssh takes it; also where the database and dumps are
	SSHConfig   string   `toml:"ssh_config"`
	Sudo        bool     `toml:"sudo"`
	Mountpoints []string `toml:"mountpoints"`
	Socket      string   `toml:"socket"` // agent
	Domain      string   `toml:"domain"` // virsh
	Freeze      []string `toml:"freeze"` // command
	Thaw        []string `toml:"thaw"`
	Database    string   `toml:"database"` // mysql or postgresql
	Client      []string `toml:"client"`
	Deadline    Duration `toml:"deadline"`
	Timeout     Duration `toml:"timeout"`
	Retries     int      `toml:"retries"`
	OnFailure   string   `toml:"on_failure"`
}

// Group is a set of volumes that are snapshotted together.
type Group struct {
	Name      string   `toml:"name"`
	Volumes   []string `toml:"volumes"` // patterns as in Select
	Freeze    []string `toml:"freeze"`
	OnFailure string   `toml:"on_failure"`
}

// Hook is a command around a run or a volume.
type Hook struct {
	Name      string   `toml:"name"`
	Phase     string   `toml:"phase"`
	Scope     string   `toml:"scope"` // volume unless it is run
	Volumes   []string `toml:"volumes"`
	Command   []string `toml:"command"`
	Shell     string   `toml:"shell"` // instead of Command: a line for sh
	Timeout   Duration `toml:"timeout"`
	Retries   int      `toml:"retries"`
	OnFailure string   `toml:"on_failure"`
}

// Argv is the command to run.
func (h Hook) Argv() []string {
	if h.Shell != "" {
		return []string{"sh", "-c", h.Shell}
	}
	return h.Command
}

// Dump is a command whose output is kept; a stream is one that is run by itself.
type Dump struct {
	Name    string   `toml:"name"`
	Volumes []string `toml:"volumes"` // those that it belongs to; none makes it a source of its own
	Preset  string   `toml:"preset"`
	Options []string `toml:"options"` // for the preset's program
	Command []string `toml:"command"`
	Guest   string   `toml:"guest"` // whose host it runs on
	Timeout Duration `toml:"timeout"`
	Level   string   `toml:"level"`
}

// Directory is a mounted tree that is archived without a snapshot.
type Directory struct {
	Name         string   `toml:"name"`
	Path         string   `toml:"path"`
	RequireMount string   `toml:"require_mount"`
	Exclude      []string `toml:"exclude"`
	Level        string   `toml:"level"`
}

// Guest returns the guest of a name.
func (c *Config) Guest(name string) (Guest, bool) {
	i := slices.IndexFunc(c.Guests, func(g Guest) bool { return g.Name == name })
	if i < 0 {
		return Guest{}, false
	}
	return c.Guests[i], true
}

func (p *problems) failure(key, value string) {
	if value != "" {
		p.oneOf(key+": on_failure", value, FailureFail, FailureGoOn)
	}
}

func (p *problems) retries(key string, n int) {
	if n < 0 || n > 100 {
		p.add(key+": retries", "%d is not between 0 and 100", n)
	}
}

func (c *Config) validateQuiescing(p *problems) {
	seen := names{}
	for i, g := range c.Guests {
		key := fmt.Sprintf("guest #%d (%s)", i+1, g.Name)
		seen.check(p, key, g.Name)
		g.validate(p, key)
	}
	for i, v := range c.Volumes {
		c.checkGuests(p, fmt.Sprintf("volume #%d (match %q): freeze", i+1, v.Match), v.Freeze)
	}
	seen = names{}
	for i, g := range c.Groups {
		key := fmt.Sprintf("group #%d (%s)", i+1, g.Name)
		seen.check(p, key, g.Name)
		p.globs(key+": volumes", g.Volumes)
		p.failure(key, g.OnFailure)
		c.checkGuests(p, key+": freeze", g.Freeze)
	}
	for i, h := range c.Hooks {
		h.validate(p, fmt.Sprintf("hook #%d (%s)", i+1, h.Name))
	}
	for word, list := range map[string][]Dump{"dump": c.Dumps, "stream": c.Streams} {
		seen = names{}
		for i, d := range list {
			key := fmt.Sprintf("%s #%d (%s)", word, i+1, d.Name)
			seen.check(p, key, d.Name)
			c.validateDump(p, key, d)
			if word == "stream" && len(d.Volumes) > 0 {
				p.add(key+": volumes", "a stream belongs to no volume")
			}
		}
	}
	seen = names{}
	for i, d := range c.Directories {
		key := fmt.Sprintf("directory #%d (%s)", i+1, d.Name)
		seen.check(p, key, d.Name)
		p.absolute(key+": path", d.Path)
		if d.RequireMount != "" {
			p.absolute(key+": require_mount", d.RequireMount)
		}
		validateExcludes(p, key+": exclude", d.Exclude)
		if d.Level != "" {
			p.level(key+": level", d.Level)
		}
	}
}

func (c *Config) checkGuests(p *problems, key string, guests []string) {
	for _, name := range guests {
		if _, found := c.Guest(name); !found && name != FreezeLocal {
			p.add(key, "there is no [[guest]] of the name %q", name)
		}
	}
}

// minDeadline leaves LVM the time to make a snapshot.
const minDeadline = 5 * time.Second

func (g Guest) validate(p *problems, key string) {
	if g.Name == FreezeLocal {
		p.add(key+": name", "%q has a meaning of its own", g.Name)
	}
	p.oneOf(key+": method", g.Method, "local", "ssh", "agent", "virsh", "command", "none")
	if g.Database != "" {
		p.oneOf(key+": database", g.Database, "mysql", "postgresql")
	}
	for _, need := range []struct {
		method, what string
		missing      bool
	}{
		{"local", "mountpoints", len(g.Mountpoints) == 0},
		{"ssh", "mountpoints", len(g.Mountpoints) == 0},
		{"ssh", "host", g.Host == ""},
		{"agent", "socket", g.Socket == ""},
		{"virsh", "domain", g.Domain == ""},
		{"command", "freeze", len(g.Freeze) == 0},
		{"command", "thaw", len(g.Thaw) == 0},
	} {
		if need.method == g.Method && need.missing {
			p.add(key+": "+need.what, "method %q needs it", g.Method)
		}
	}
	if strings.HasPrefix(g.Host, "-") || strings.ContainsAny(g.Host, " \t\n") {
		p.add(key+": host", "%q is no host for ssh", g.Host)
	}
	if g.Host == "" && (g.SSHConfig != "" || g.Sudo) {
		p.add(key+": host", "ssh_config and sudo need it")
	}
	for _, point := range g.Mountpoints {
		p.absolute(key+": mountpoints", point)
	}
	if g.Deadline != 0 && g.Deadline.Span() < minDeadline {
		p.add(key+": deadline", "less than %s is too short to make a snapshot", minDeadline)
	}
	p.retries(key, g.Retries)
	p.failure(key, g.OnFailure)
}

func (h Hook) validate(p *problems, key string) {
	if !namePattern.MatchString(h.Name) {
		p.add(key+": name", "%q is no name: letters, digits, dots and dashes", h.Name)
	}
	if h.Scope != "" {
		p.oneOf(key+": scope", h.Scope, "volume", "run")
	}
	if h.Scope == "run" {
		p.oneOf(key+": phase", h.Phase, "before", "after", "on-error")
		if len(h.Volumes) > 0 {
			p.add(key+": volumes", "a hook of the run is for no volume")
		}
	} else {
		p.oneOf(key+": phase", h.Phase, "before", "snapshot-before", "snapshot-after", "after", "on-error")
	}
	p.globs(key+": volumes", h.Volumes)
	if (len(h.Command) == 0) == (h.Shell == "") {
		p.add(key+": command", "set one of command and shell")
	}
	p.retries(key, h.Retries)
	p.failure(key, h.OnFailure)
}

func (c *Config) validateDump(p *problems, key string, d Dump) {
	p.globs(key+": volumes", d.Volumes)
	if (len(d.Command) == 0) == (d.Preset == "") {
		p.add(key+": command", "set one of command and preset")
	}
	if d.Preset != "" {
		p.oneOf(key+": preset", d.Preset, "mysql", "postgresql")
	} else if len(d.Options) > 0 {
		p.add(key+": options", "they are a preset's")
	}
	if d.Guest != "" {
		if g, found := c.Guest(d.Guest); !found || g.Host == "" {
			p.add(key+": guest", "there is no [[guest]] of the name %q that has a host", d.Guest)
		}
	}
	for _, word := range slices.Concat(d.Options, d.Command) {
		if name, _, found := strings.Cut(word, "="); found && (name == "--password" || name == "-p") {
			p.add(key, "a password on a command line is seen by everybody: use an option file, as --defaults-extra-file, or ~/.pgpass")
		}
	}
	if d.Level != "" {
		p.level(key+": level", d.Level)
	}
}
