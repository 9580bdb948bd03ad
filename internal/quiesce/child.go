package quiesce

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"voltar/internal/hostcmd"
)

// childArg as the first argument makes the program the child that freezes and thaws.
const childArg = "freeze-child"

// order is what the child is told in the first line of its input.
type order struct {
	Method         Method        `json:"method"`
	Mountpoints    []string      `json:"mountpoints,omitempty"`
	Devices        []string      `json:"devices,omitempty"`
	Socket         string        `json:"socket,omitempty"`
	Domain         string        `json:"domain,omitempty"`
	Freeze         []string      `json:"freeze,omitempty"`
	Thaw           []string      `json:"thaw,omitempty"`
	Deadline       time.Duration `json:"deadline"`
	CommandTimeout time.Duration `json:"command_timeout"`
}

// child returns the command line of the child for a freeze, and the line that it is told.
func (q *Quieter) child(f Freeze) (argv []string, preamble string, err error) {
	line, err := json.Marshal(order{
		Method: f.Method, Mountpoints: f.Mountpoints, Devices: f.Devices, Socket: f.Socket, Domain: f.Domain,
		Freeze: f.commandThere(f.FreezeCommand), Thaw: f.commandThere(f.ThawCommand),
		Deadline: f.deadline(), CommandTimeout: f.timeout(),
	})
	if err != nil {
		return nil, "", fmt.Errorf("cannot encode the child's order: %w", err)
	}
	return []string{q.exe, childArg}, string(line) + "\n", nil
}

// commandThere is a command of MethodCommand as the child runs it.
func (f Freeze) commandThere(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	return f.Remote.argv(f.timeout(), argv...)
}

// freezer is one way to freeze, inside the child.
type freezer interface {
	freeze(ctx context.Context) error
	// thaw returns an error that wraps ErrNotHeld when it was not frozen any more.
	thaw(ctx context.Context) error
}

// RunChild does the work of the child when args (those of the program, its name first) say that this process is one, and
// returns its exit status. Programs call it before anything else, and end at once with the status when it was handled.
func RunChild(args []string) (status int, handled bool) {
	if len(args) < 2 || args[1] != childArg {
		return 0, false
	}
	// Whoever stops the service means the run, and the run closes the pipe; a signal alone must not leave anything frozen.
	// Taken and dropped, not ignored: commands would inherit that, and could only be killed.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	return serve(os.Stdin, os.Stdout), true
}

// serve is the child: it takes its order, and then words.
func serve(input io.Reader, output io.Writer) int {
	lines := bufio.NewReader(input)
	text, err := lines.ReadString('\n')
	var o order
	if err == nil {
		err = json.Unmarshal([]byte(text), &o)
	}
	var f freezer
	if err == nil {
		f, err = o.freezer()
	}
	answer := func(word string) {
		// The one who asked may be gone: what is to be done is the same.
		_, _ = fmt.Fprintln(output, strings.ReplaceAll(word, "\n", " "))
	}
	if err != nil {
		answer("failed " + err.Error())
		return 1
	}
	answer("ready")
	k := keeper{freezer: f, limit: o.Deadline}
	defer func() { _ = k.letGo() }() // at the end of the input, nobody is left to tell
	words, gone := listen(lines)
	for word := range words {
		switch word {
		case "freeze":
			if err := k.hold(gone); err != nil {
				answer("failed " + err.Error())
				return 1
			}
			answer("frozen")
		case "thaw":
			switch err := k.letGo(); {
			case err == nil:
				answer("thawed")
			case errors.Is(err, ErrNotHeld):
				answer("lost")
			default:
				answer("failed " + err.Error())
			}
			return 0
		}
	}
	return 0
}

// listen returns the words of the input as they come. The context ends with the input: what takes its time to freeze is
// then wanted by nobody any more.
func listen(lines *bufio.Reader) (<-chan string, context.Context) {
	words := make(chan string)
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		defer close(words)
		for {
			word, err := lines.ReadString('\n')
			if err != nil {
				cancel(errors.New("whoever wanted it frozen has gone"))
				return
			}
			words <- strings.TrimSpace(word)
		}
	}()
	return words, ctx
}

// keeper thaws when it is told or at the deadline, whichever comes first.
type keeper struct {
	freezer
	limit time.Duration

	mu    sync.Mutex
	begun bool
	over  bool // thawed, or given up
	timer *time.Timer
	err   error // of the thaw
}

// hold freezes. The deadline runs before the freeze begins: the kernel may hold a freeze up for as long as it writes.
func (k *keeper) hold(gone context.Context) error {
	k.mu.Lock()
	k.begun = true
	k.timer = time.AfterFunc(k.limit, k.expire)
	k.mu.Unlock()
	ctx, cancel := context.WithTimeout(gone, k.limit)
	defer cancel()
	err := k.freeze(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.over && err == nil: // what froze after the deadline's thaw has to go, too
		err = errors.Join(errors.New("it took longer than the deadline to freeze"), k.undo())
	case err != nil && !k.over:
		k.timer.Stop()
	}
	k.over = k.over || err != nil
	return err
}

// expire is the deadline.
func (k *keeper) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.over {
		k.over, k.err = true, errors.Join(k.undo(), ErrNotHeld)
	}
}

// letGo thaws unless that was done, and returns the thaw's error.
func (k *keeper) letGo() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.begun && !k.over {
		k.timer.Stop()
		k.over, k.err = true, k.undo()
	}
	return k.err
}

func (k *keeper) undo() error {
	ctx, cancel := context.WithTimeout(context.Background(), k.limit)
	defer cancel()
	return k.thaw(ctx)
}

func (o order) freezer() (freezer, error) {
	commands := commandFreezer{run: hostcmd.New(hostcmd.Options{}), timeout: o.CommandTimeout}
	switch o.Method {
	case MethodLocal:
		return openLocal(o.Mountpoints)
	case MethodSuspend:
		return newSuspender(o.Devices, o.CommandTimeout), nil
	case MethodAgent:
		return &agentFreezer{socket: o.Socket, mountpoints: o.Mountpoints}, nil
	case MethodVirsh:
		return &virshFreezer{commands: commands, domain: o.Domain, mountpoints: o.Mountpoints}, nil
	case MethodCommand:
		commands.freezeArgv, commands.thawArgv = o.Freeze, o.Thaw
		return &commands, nil
	}
	return nil, fmt.Errorf("a child cannot freeze by method %q", o.Method)
}
