// Package quiesce makes applications and filesystems quiet for the moment in which snapshots are made, and runs what
// people want done around them: hooks and dump commands.
//
// A Freeze names one thing that can be made quiet: filesystems of this host, those of a guest reached through SSH, the
// QEMU guest agent or virsh, a pair of commands, or the tables of a database. Arm opens a Session for it. A session is
// held by something that outlives this process and lets go by itself: a child that thaws at the end of its input or at
// its deadline, a script with a deadline of its own on the far side of SSH, or a database connection, which a server
// ends. What was frozen counts as consistent only when Thaw proves that it still was: FITHAW
// (linux/fs.h, fsfreeze(8)) fails with EINVAL on a filesystem that somebody thawed meanwhile, and the other ways have
// their own words for it.
package quiesce

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"voltar/internal/hostcmd"
)

var (
	// ErrNotHeld says that what was frozen was no longer so when it was to be thawed: snapshots made meanwhile may not
	// be consistent.
	ErrNotHeld = errors.New("it was no longer frozen when the last snapshot was made")
	// ErrNoAnswer says that a session did not answer in time.
	ErrNoAnswer = errors.New("no answer")
)

// Method is a way to make something quiet.
type Method string

// Methods. Filesystem freezes stop writers; MySQL stops them at its tables; PostgreSQL's backup mode stops nobody and
// makes sure that what is copied can be recovered.
const (
	MethodLocal      Method = "local"      // FIFREEZE on this host: Mountpoints
	MethodSSH        Method = "ssh"        // fsfreeze on the far side: Remote, Mountpoints
	MethodSuspend    Method = "suspend"    // dmsetup suspend of Devices, until LVM resumes them: see CanNest
	MethodAgent      Method = "agent"      // the QEMU guest agent's socket: Socket, Mountpoints (none means all)
	MethodVirsh      Method = "virsh"      // virsh domfsfreeze: Domain, Mountpoints (none means all)
	MethodCommand    Method = "command"    // FreezeCommand and ThawCommand, here or on the far side
	MethodMySQL      Method = "mysql"      // FLUSH TABLES WITH READ LOCK: Client
	MethodPostgreSQL Method = "postgresql" // pg_backup_start and pg_backup_stop: Client
)

// IsDatabase says that the method speaks to a database server.
func (m Method) IsDatabase() bool { return m == MethodMySQL || m == MethodPostgreSQL }

// Defaults of a Freeze.
const (
	DefaultDeadline = time.Minute
	DefaultTimeout  = 30 * time.Second
)

// Freeze is one thing that can be made quiet.
type Freeze struct {
	Name        string // for people; that of the guest
	Method      Method
	Mountpoints []string
	Remote      Remote   // where, for MethodSSH and databases; the zero value is this host
	Devices     []string // device-mapper names, for MethodSuspend
	Socket      string   // path of the agent's socket
	Domain      string   // libvirt's name of the machine

	FreezeCommand, ThawCommand []string // argv; the latter fails when it was no longer frozen
	Client                     []string // argv of mysql or psql; the usual one when empty

	Deadline time.Duration // what is frozen thaws by itself after this; 0 means DefaultDeadline
	Timeout  time.Duration // for each answer; 0 means DefaultTimeout
	Retries  int           // further tries when it cannot be frozen
	// Must says that what it is for fails when it cannot be frozen. Otherwise it goes on and is called crash-consistent.
	Must bool
}

// String names it for people: "web1 (ssh)".
func (f Freeze) String() string { return fmt.Sprintf("%s (%s)", f.Name, f.Method) }

func (f Freeze) deadline() time.Duration { return cmp.Or(f.Deadline, DefaultDeadline) }
func (f Freeze) timeout() time.Duration  { return cmp.Or(f.Timeout, DefaultTimeout) }

// Leftover is the command that ends what a session has frozen, for a journal. Nil means that nothing on this host can
// be left: the far side lets go by itself.
func (f Freeze) Leftover() []string {
	switch f.Method {
	case MethodLocal:
		return append([]string{"fsfreeze", "-u"}, f.Mountpoints...)
	case MethodSuspend:
		return append([]string{"dmsetup", "resume"}, f.Devices...)
	case MethodVirsh:
		return virshThaw(f.Domain, f.Mountpoints)
	case MethodAgent:
		return []string{agentThawWord, f.Socket}
	case MethodCommand:
		return f.commandThere(f.ThawCommand)
	}
	return nil
}

// Check tells what is missing in a Freeze.
func (f Freeze) Check() error {
	var all []error
	need := func(missing bool, what string) {
		if missing {
			all = append(all, fmt.Errorf("method %q needs %s", f.Method, what))
		}
	}
	switch f.Method {
	case MethodLocal:
		need(len(f.Mountpoints) == 0, "mountpoints")
	case MethodSSH:
		need(f.Remote.Host == "", "a host")
		need(len(f.Mountpoints) == 0, "mountpoints")
	case MethodSuspend:
		need(len(f.Devices) == 0, "devices")
	case MethodAgent:
		need(f.Socket == "", "a socket")
	case MethodVirsh:
		need(f.Domain == "", "a domain")
	case MethodCommand:
		need(len(f.FreezeCommand) == 0 || len(f.ThawCommand) == 0, "a freeze and a thaw command")
	case MethodMySQL, MethodPostgreSQL:
	default:
		all = append(all, fmt.Errorf("there is no method %q", f.Method))
	}
	for _, point := range f.Mountpoints {
		if !strings.HasPrefix(point, "/") || strings.ContainsAny(point, "\n\x00") {
			all = append(all, fmt.Errorf("mountpoint %q is no absolute path", point))
		}
	}
	return errors.Join(append(all, f.Remote.check())...)
}

// Quieter arms sessions and runs hooks and dump commands. It is safe for concurrent use.
type Quieter struct {
	run  *hostcmd.Runner
	log  *slog.Logger
	exe  string
	unit bool // children get a systemd scope of their own
}

// Options of New; the zero value is that of a production host.
type Options struct {
	Log *slog.Logger // nil discards
	// Executable is a program that calls RunChild; empty means this one.
	Executable string
	RunRoot    string // where systemd keeps its state; empty means /run
}

// New returns a Quieter that runs its commands by r.
func New(r *hostcmd.Runner, opts Options) *Quieter {
	q := &Quieter{run: r, log: opts.Log, exe: opts.Executable}
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	if q.exe == "" {
		// A link into procfs works although the file was replaced by an upgrade; systemd-run would take "self" for itself.
		q.exe = fmt.Sprintf("/proc/%d/exe", os.Getpid())
	}
	_, err := os.Stat(cmp.Or(opts.RunRoot, "/run") + "/systemd/system")
	q.unit = err == nil
	return q
}
