package config

import (
	"cmp"
	"fmt"
	"net/mail"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"voltar/internal/agefile"
	"voltar/internal/say"
)

var (
	namePattern  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	levelPattern = regexp.MustCompile(`^(fast|default|best|[1-9])$`)
	heloPattern  = regexp.MustCompile(`^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+|\[[0-9A-Za-z.:]+\])$`) // RFC 5321, 4.1.1.1
)

// levelWords are what levelPattern fits.
const levelWords = `"fast", "default", "best" and "1" to "9"`

// maxFresh bounds archive.fresh: ten years.
const maxFresh = 3650 * 24 * time.Hour

// maxKept bounds what retention counts: days of a hundred years.
const maxKept = 36500

// problem is one thing that is wrong with a configuration.
type problem struct {
	key         string // as lines has it
	line        int    // 0 where it stands nowhere
	text        string
	isUnknown   bool // the key
	isOfWriting bool // it keeps nobody from reading
}

func (p problem) Error() string {
	if p.line == 0 {
		return p.text
	}
	return fmt.Sprintf("line %d: %s", p.line, p.text)
}

// problems collects what is wrong with a configuration.
type problems struct {
	lines lines
	list  []problem
}

func (p *problems) add(key, format string, args ...any) {
	plain := plainKey(key)
	p.list = append(p.list, problem{key: plain, line: p.lines.of(plain), text: key + ": " + fmt.Sprintf(format, args...)})
}

// ofWriting is add, for what keeps nobody from reading.
func (p *problems) ofWriting(key, format string, args ...any) {
	p.add(key, format, args...)
	p.list[len(p.list)-1].isOfWriting = true
}

// unknown adds the keys that the decoder does not know.
func (p *problems) unknown(err *toml.StrictMissingError) {
	for _, e := range err.Errors {
		row, _ := e.Position()
		key := strings.Join(e.Key(), ".")
		p.list = append(p.list, problem{key: key, line: row, text: fmt.Sprintf("unknown key %q%s", key, meant(e.Key())), isUnknown: true})
	}
}

// sort puts them in the order of the file.
func (p *problems) sort() {
	slices.SortStableFunc(p.list, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
}

// parted are those of unknown keys, and the others.
func (p *problems) parted() (unknown, invalid []error) {
	for _, one := range p.list {
		if one.isUnknown {
			unknown = append(unknown, one)
		} else {
			invalid = append(invalid, one)
		}
	}
	return unknown, invalid
}

func (p *problems) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.add(key, "%q is none of %s%s", value, strings.Join(allowed, ", "), say.DidYouMean(value, allowed))
	}
}

func (p *problems) globs(key string, patterns []string) {
	for _, pattern := range patterns {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			p.add(key, "%q is no pattern", pattern)
		}
	}
}

func (p *problems) percent(key string, value float64) {
	if value <= 0 || value > 100 {
		p.add(key, "%g is not between 0 and 100", value)
	}
}

func (p *problems) absolute(key, value string) {
	if !filepath.IsAbs(value) || filepath.Clean(value) != value {
		p.add(key, "%q is not an absolute path in its shortest form", value)
	}
}

func (p *problems) level(key, value string) {
	if !levelPattern.MatchString(value) {
		p.add(key, "%q is none of %s", value, levelWords)
	}
}

// leastDuration is shorter than any that makes sense. The decoder takes a number without quotes for nanoseconds.
const leastDuration = Duration(10 * time.Millisecond)

// units finds durations that were written as a number, in a table and those below it.
func (p *problems) units(table reflect.Value, path string) {
	switch table.Kind() {
	case reflect.Pointer:
		if !table.IsNil() {
			p.units(table.Elem(), path)
		}
	case reflect.Slice:
		for i := range table.Len() {
			p.units(table.Index(i), fmt.Sprintf("%s #%d", path, i+1))
		}
	case reflect.Struct:
		for i := range table.NumField() {
			f := table.Type().Field(i)
			key, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
			if f.Anonymous || key != "" && key != "-" {
				p.units(table.Field(i), strings.Trim(path+"."+key, "."))
			}
		}
	default:
		if d, ok := table.Interface().(Duration); ok && d != 0 && d < leastDuration {
			p.add(path, `%d has no unit: write a duration in quotes, as "2h30m" or "30d"`, int64(d))
		}
	}
}

// validate finds every problem at once.
func (c *Config) validate(p *problems) {
	p.units(reflect.ValueOf(*c), "")
	if c.Host != "" && !namePattern.MatchString(c.Host) {
		p.add("host", "%q is no host name", c.Host)
	}
	p.absolute("state_dir", c.StateDir)
	p.absolute("run_dir", c.RunDir)
	if c.Parallel < 1 || c.Parallel > 64 {
		p.add("parallel", "%d is not between 1 and 64", c.Parallel)
	}
	c.Select.validate(p)
	p.oneOf("guests.consistency", c.FoundBy.Consistency, ConsistencyOff, ConsistencyGroup, ConsistencyFreeze)
	c.Snapshot.validate(p)
	p.level("archive.level", c.Archive.Level)
	if c.Archive.Workers < 0 || c.Archive.Workers > 256 {
		p.add("archive.workers", "%d is not between 0 and 256", c.Archive.Workers)
	}
	validateExcludes(p, "archive.exclude", c.Archive.Exclude)
	if fresh := c.Archive.Fresh.Span(); fresh%(24*time.Hour) != 0 || fresh > maxFresh {
		p.add("archive.fresh", "%v is not a number of whole days up to %d", fresh, maxFresh/(24*time.Hour))
	}
	c.Limits.validate(p)
	c.Retention.validate(p, "retention")
	if c.Drill.Folder != "" {
		p.absolute("drill.folder", c.Drill.Folder)
	}
	c.Mail.validate(p)
	p.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	c.validateSign(p)
	c.validateDestinations(p)
	c.validateNotify(p)
	for i, v := range c.Volumes {
		v.validate(p, fmt.Sprintf("volume #%d (match %q)", i+1, v.Match))
	}
	c.validateQuiescing(p)
}

func (s Select) validate(p *problems) {
	p.globs("select.volume_groups", s.VolumeGroups)
	p.globs("select.include", s.Include)
	p.globs("select.exclude", s.Exclude)
	p.oneOf("select.shared_vg", s.SharedVG, "refuse", "single-writer")
}

func (s Snapshot) validate(p *problems) {
	p.percent("snapshot.extend_at_percent", s.ExtendAtPercent)
	p.percent("snapshot.extend_by_percent", s.ExtendByPercent)
	p.percent("snapshot.thin_data_percent", s.ThinDataPercent)
	p.percent("snapshot.thin_metadata_percent", s.ThinMetadataPercent)
	if s.PollInterval <= 0 {
		p.add("snapshot.poll_interval", "must be more than 0")
	}
}

func (l Limits) validate(p *problems) {
	if l.Nice < 0 || l.Nice > 19 {
		p.add("limits.nice", "%d is not between 0 and 19", l.Nice)
	}
	p.oneOf("limits.ionice", l.IONice, "none", "best-effort", "idle")
	if l.CPUs < 0 {
		p.add("limits.cpus", "%d is negative", l.CPUs)
	}
}

func (r Retention) validate(p *problems, key string) {
	for _, rule := range []struct {
		name  string
		count int
	}{{"days", r.Days}, {"keep_last", r.KeepLast}, {"daily", r.Daily}, {"weekly", r.Weekly}, {"monthly", r.Monthly}, {"yearly", r.Yearly}} {
		switch {
		case rule.count < 0:
			p.add(key+"."+rule.name, "%d is negative", rule.count)
		case rule.count > maxKept:
			p.add(key+"."+rule.name, "%d is more than %d", rule.count, maxKept)
		}
	}
}

func (m Mail) validate(p *problems) {
	for _, to := range m.To {
		if _, err := mail.ParseAddress(to); err != nil {
			p.add("mail.to", "%q is no mail address: write name@domain, as root@localhost", to)
		}
	}
	if m.From != "" {
		if _, err := mail.ParseAddress(m.From); err != nil {
			p.add("mail.from", "%q is no mail address: write name@domain", m.From)
		}
	}
	if m.Helo != "" && !heloPattern.MatchString(m.Helo) {
		p.add("mail.helo", "%q is no name with a domain, and no address in brackets", m.Helo)
	}
	p.oneOf("mail.tls", m.TLS, "starttls", "tls", "none")
	p.oneOf("mail.notify", m.Notify, "always", "failure", "change")
	if m.Port < 0 || m.Port > 65535 {
		p.add("mail.port", "%d is no port", m.Port)
	}
	if m.Server == "" && m.Sendmail == "" && len(m.To) > 0 {
		p.add("mail", "there is neither a server nor a sendmail to send it with")
	}
	if m.Password.Set() && m.Username == "" {
		p.add("mail.username", "a password needs a user name")
	}
	m.Password.validate(p, "mail.password")
}

func (s Secret) validate(p *problems, key string) {
	set := 0
	for _, field := range []string{s.File, s.Env, s.Credential} {
		if field != "" {
			set++
		}
	}
	if set > 1 {
		p.add(key, "set one of file, env and credential")
	}
	if strings.ContainsAny(s.Credential, "/") {
		p.add(key+".credential", "%q is no credential name", s.Credential)
	}
}

// names checks that each name is one, and stands once.
type names map[string]bool

func (n names) check(p *problems, key, name string) {
	switch {
	case !namePattern.MatchString(name):
		p.add(key+": name", "%q is no name: letters, digits, dots and dashes", name)
	case n[name]:
		p.add(key+": name", "%q stands twice", name)
	}
	n[name] = true
}

func (c *Config) validateSign(p *problems) {
	for key, value := range map[string]string{"sign.key": c.Sign.Key, "sign.trusted_keys": c.Sign.TrustedKeys} {
		if value != "" {
			p.absolute(key, value)
		}
	}
	if c.Sign.Key != "" && c.Sign.TrustedKeys == "" {
		p.add("sign.key", "it needs sign.trusted_keys: what is signed without being checked would vouch for backups of strangers "+
			"when they are copied")
	}
}

func (c *Config) validateDestinations(p *problems) {
	seen := names{}
	for i, d := range c.Destinations {
		key := fmt.Sprintf("destination #%d (%s)", i+1, d.Name)
		seen.check(p, key, d.Name)
		d.validate(p, key)
		c.validatePlace(p, key+": path", d)
	}
}

// kernelFolders show what the kernel has, and keep nothing.
var kernelFolders = []string{"/proc", "/sys", "/dev"}

// validatePlace refuses a folder that keeps nothing, and one that is that of voltar's own state. State may lie within a destination's
// folder, and the other way round: neither touches what is not its own.
func (c *Config) validatePlace(p *problems, key string, d Destination) {
	if d.Type != "disk" || !filepath.IsAbs(d.Path) {
		return
	}
	for _, folder := range kernelFolders {
		if isBelow(d.Path, folder) {
			p.add(key, "%s cannot keep backups: what lies in %s is the kernel's own", d.Path, folder)
		}
	}
	if path := filepath.Clean(d.Path); path == c.StateDir || path == c.RunDir {
		p.ofWriting(key, "voltar's own state lies in %s (state_dir, run_dir): give backups a folder of their own", path)
	}
}

// isBelow tells whether a path is a folder, or lies below it, by their names.
func isBelow(path, folder string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && filepath.IsLocal(rel)
}

func (d Destination) validate(p *problems, key string) {
	p.oneOf(key+": type", d.Type, "disk", "s3")
	switch {
	case d.Type == "s3":
		d.S3.validate(p, key)
		if d.Path != "" || d.RequireMount != "" {
			p.add(key+": path", "it is of disks: an s3 destination has endpoint, bucket and prefix")
		}
	case !reflect.DeepEqual(d.S3, S3{}):
		p.add(key+": type", "it has settings of s3 destinations, but is not of type \"s3\"")
	}
	if d.Type == "disk" {
		p.absolute(key+": path", d.Path)
		if d.RequireMount != "" && d.RequireMount != "none" {
			p.absolute(key+": require_mount", d.RequireMount)
		}
	}
	if len(d.Recipients) > 0 {
		if _, err := agefile.ParseRecipients(d.Recipients); err != nil {
			p.add(key+": recipients", "%v", err)
		}
	} else if d.Recipients != nil && d.RecipientsFile == "" {
		p.add(key+": recipients", "it names nobody: name a public key, or leave it out to store everything as it is")
	}
	if d.RecipientsFile != "" {
		p.absolute(key+": recipients_file", d.RecipientsFile)
	}
	if d.Retention != nil {
		d.Retention.validate(p, key+": retention")
	}
}

func (v Volume) validate(p *problems, key string) {
	p.globs(key+": match", []string{v.Match})
	if v.As != "" {
		p.oneOf(key+": as", v.As, "auto", "files", "image", "skip")
	}
	if v.Level != "" {
		p.level(key+": level", v.Level)
	}
	validateExcludes(p, key+": exclude", v.Exclude)
}

func validateExcludes(p *problems, key string, patterns []string) {
	for _, pattern := range patterns {
		if !strings.HasPrefix(pattern, "/") {
			p.add(key, `%q does not begin with "/": patterns are anchored at the root of the filesystem`, pattern)
		}
	}
}

// MatchVolume tells whether a glob of the configuration means a volume: over "VG/LV" when it holds a slash, over the
// name of the LV otherwise.
func MatchVolume(pattern, vg, lv string) bool {
	name := lv
	if strings.Contains(pattern, "/") {
		name = vg + "/" + lv
	}
	matched, err := path.Match(pattern, name)
	return err == nil && matched
}
