package quiesce

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"voltar/internal/say"
)

// Remote is a machine that is reached through the system's own ssh, with its configuration, keys and known hosts.
type Remote struct {
	Host   string // as ssh takes it: an alias of ssh_config(5), HOST or USER@HOST; empty is this host
	Config string // ssh_config file instead of the usual ones
	Sudo   bool   // commands run through `sudo -n`
}

// IsZero says that it is this host.
func (r Remote) IsZero() bool { return r.Host == "" }

func (r Remote) check() error {
	if strings.HasPrefix(r.Host, "-") || strings.ContainsAny(r.Host, " \t\n\x00") {
		return fmt.Errorf("%q is no host for ssh", r.Host)
	}
	if r.IsZero() && (r.Config != "" || r.Sudo) {
		return errors.New("an ssh configuration or sudo needs a host")
	}
	return nil
}

// argv is the command line that runs a command there, or here.
func (r Remote) argv(timeout time.Duration, command ...string) []string {
	if r.IsZero() {
		return command
	}
	argv := []string{"ssh"}
	if r.Config != "" {
		argv = append(argv, "-F", r.Config)
	}
	// Nobody is there to answer questions. Of host keys nothing is said: an unknown one is refused, because a batch
	// cannot ask. The server is asked for signs of life, so that a cut line ends the session.
	argv = append(argv, "-T", "-o", "BatchMode=yes", "-o", fmt.Sprintf("ConnectTimeout=%d", seconds(timeout)),
		"-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3", "-o", "ControlMaster=no", "--", r.Host)
	if r.Sudo {
		command = append([]string{"sudo", "-n", "--"}, command...)
	}
	return append(argv, say.ShellWords(command))
}

func seconds(d time.Duration) int { return max(1, int((d+time.Second-1)/time.Second)) }

// sshScript is the session's side on the guest, for any POSIX shell. It says ready, waits for the word, starts a
// watchdog that thaws at the deadline, and only then freezes. At the end of its input it thaws as well.
// A thaw that fails proves that somebody else had thawed before.
//
// The kernel may hold a freeze up for as long as it writes, beyond the deadline too. So the watchdog goes on thawing for
// as long again: what comes through late does not stay frozen, and is told to have been lost.
//
// Nothing is written to disk on the way, as the filesystem that holds /tmp or the logs may be the frozen one.
const sshScript = `
watchdog=
thaw() {
	held=yes
	for m in $frozen_order; do
		eval "point=\$point_$m"
		fsfreeze -u "$point" 2>/dev/null || held=no
	done
	frozen_order=
	[ "$held" = yes ]
}
end() {
	[ -z "$watchdog" ] || kill "$watchdog" 2>/dev/null
	watchdog=
}
leave() {
	[ -z "$frozen_order" ] || thaw
	end
	exit 1
}
frozen_order=
trap leave HUP INT TERM PIPE
command -v fsfreeze >/dev/null 2>&1 || { echo "failed there is no fsfreeze on the guest: install util-linux"; exit 1; }
sync
echo ready
while read -r word; do
	case $word in
	freeze)
		(
			trap '' HUP INT PIPE
			exec </dev/null >/dev/null 2>&1
			n=0
			while [ "$n" -lt "$deadline" ]; do sleep 1; n=$((n + 1)); done
			while [ "$n" -ge 0 ]; do
				m=1
				while [ "$m" -le "$count" ]; do
					eval "point=\$point_$m"
					fsfreeze -u "$point"
					m=$((m + 1))
				done
				sleep 1
				n=$((n - 1))
			done
		) &
		watchdog=$!
		m=1
		failed=
		while [ "$m" -le "$count" ]; do
			eval "point=\$point_$m"
			if why=$(fsfreeze -f "$point" 2>&1); then
				frozen_order="$m $frozen_order"
			else
				failed="$point: $why"
				break
			fi
			m=$((m + 1))
		done
		if [ -n "$failed" ]; then
			thaw
			end
			echo "failed $failed" | tr '\n' ' '
			echo
			exit 1
		fi
		echo frozen
		;;
	thaw)
		if thaw; then echo thawed; else echo lost; fi
		end
		exit 0
		;;
	esac
done
leave
`

// sshSession is the command line of a session on the guest, and what goes before the first word on its input. The
// script itself travels on the input too, so that the command line stays short and the same for every login shell; dd
// takes exactly its bytes and leaves the rest to read.
func sshSession(f Freeze) (argv []string, preamble string) {
	var b strings.Builder
	fmt.Fprintf(&b, "deadline=%d\ncount=%d\n", seconds(f.deadline()), len(f.Mountpoints))
	for i, point := range f.Mountpoints {
		fmt.Fprintf(&b, "point_%d=%s\n", i+1, say.ShellWord(point))
	}
	b.WriteString(sshScript)
	script := b.String()
	load := fmt.Sprintf(`eval "$(dd bs=1 count=%d 2>/dev/null)"`, len(script))
	return f.Remote.argv(f.timeout(), "sh", "-c", load), script
}
