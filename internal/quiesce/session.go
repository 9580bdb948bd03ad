package quiesce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"voltar/internal/hostcmd"
)

// lingerTimeout is how long Close waits for a session's process to end by itself.
const lingerTimeout = 5 * time.Second

// Session is one thing that can be made quiet, armed but not yet quiet. Its process is another than this one, and lets
// go when this one ends. The methods are called one after the other; Close ends it in any case.
type Session struct {
	Freeze Freeze

	dialect dialect
	input   *os.File // what the process reads; closing it lets go
	lines   chan string
	done    chan struct{} // closed when the process has ended
	err     error         // how it ended; read after done

	frozenAt time.Time // zero while it is not frozen
	detail   string
}

// dialect is what is said to a process and how its answers are understood. Answers are lines; those before the awaited
// word are details, as of a binary log.
type dialect interface {
	// greeting is written first, and answered by a line that begins with "ready", whose rest ready takes.
	greeting() string
	ready(rest string)
	freeze() string // answered by "frozen"
	thaw() string   // answered by "thawed" when it was held all the time, or "lost"
}

// words is the dialect of our own scripts and children.
type words struct{ preamble string }

func (w words) greeting() string { return w.preamble }
func (words) ready(string)       {}
func (words) freeze() string     { return "freeze\n" }
func (words) thaw() string       { return "thaw\n" }

// Arm opens a session: whatever will freeze, and what will thaw should this process die, is ready when it returns. The
// caller must Close it.
func (q *Quieter) Arm(ctx context.Context, f Freeze) (*Session, error) {
	if err := f.Check(); err != nil {
		return nil, fmt.Errorf("freeze %s: %w", f, err)
	}
	s, err := q.open(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("arm %s: %w", f, err)
	}
	return s, nil
}

// open starts the session's process. A child of our own gets a scope of its own under systemd, so that stopping the
// service that this process belongs to leaves it to its work; where systemd will not, it is started without.
func (q *Quieter) open(ctx context.Context, f Freeze) (*Session, error) {
	switch f.Method {
	case MethodSSH:
		argv, preamble := sshSession(f)
		return q.start(ctx, f, argv, words{preamble})
	case MethodMySQL:
		return q.start(ctx, f, f.Remote.argv(f.timeout(), mysqlClient(f)...), &mysql{freezeFor: f})
	case MethodPostgreSQL:
		return q.start(ctx, f, f.Remote.argv(f.timeout(), psqlClient(f)...), &postgresql{freezeFor: f})
	}
	argv, preamble, err := q.child(f)
	if err != nil {
		return nil, err
	}
	if q.unit {
		scope := []string{"systemd-run", "--scope", "--quiet", "--collect", "--description=voltar: thaw what is frozen", "--"}
		s, err := q.start(ctx, f, append(scope, argv...), words{preamble})
		if err == nil || ctx.Err() != nil {
			return s, err
		}
		q.log.Warn("systemd gives the child that thaws no unit of its own: it belongs to this service", "guest", f.Name, "err", err)
	}
	return q.start(ctx, f, argv, words{preamble})
}

// start runs a process and waits until it is ready.
func (q *Quieter) start(ctx context.Context, f Freeze, argv []string, d dialect) (*Session, error) {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	s := &Session{Freeze: f, dialect: d, input: ours, lines: make(chan string, 64), done: make(chan struct{})}
	cmd := hostcmd.Cmd{
		Name: argv[0], Args: argv[1:], Stdin: theirs, Stdout: &lineWriter{lines: s.lines}, Timeout: -1,
	}
	go func() {
		defer close(s.done)
		defer theirs.Close() // kept until here, so that writing to a process that has ended is no signal
		// It ends when its input does. Cancelling ctx must not kill what still has to thaw.
		_, s.err = q.run.Run(context.WithoutCancel(ctx), cmd)
	}()
	rest, err := s.ask(ctx, d.greeting(), "ready")
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	d.ready(rest)
	s.detail = ""
	return s, nil
}

// ask writes a request and returns the rest of the line that answers it with a word.
func (s *Session) ask(ctx context.Context, request, word string) (rest string, err error) {
	if request != "" {
		if err := s.say(request); err != nil {
			return "", err
		}
	}
	limit := time.NewTimer(s.Freeze.timeout())
	defer limit.Stop()
	for {
		select {
		case line := <-s.lines:
			first, rest, _ := strings.Cut(line, " ")
			switch first {
			case word:
				return strings.TrimSpace(rest), nil
			case "failed":
				return "", errors.New(strings.TrimSpace(rest))
			case "lost":
				return "", ErrNotHeld
			}
			s.detail = strings.TrimSpace(s.detail + "\n" + line)
		case <-s.done:
			if len(s.lines) > 0 {
				continue // its last words
			}
			return "", s.ended()
		case <-limit.C:
			return "", fmt.Errorf("%w within %s", ErrNoAnswer, s.Freeze.timeout())
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// say writes to the process. Requests are shorter than a pipe takes without a reader.
func (s *Session) say(request string) error {
	if err := s.input.SetWriteDeadline(time.Now().Add(s.Freeze.timeout())); err != nil {
		return fmt.Errorf("cannot bound a write: %w", err)
	}
	if _, err := s.input.WriteString(request); err != nil {
		return fmt.Errorf("cannot speak to it: %w", err)
	}
	return nil
}

func (s *Session) ended() error {
	if s.err == nil {
		return errors.New("it ended without an answer")
	}
	return s.err
}

// Hold freezes. When it fails, nothing stays frozen, or what might thaws at its deadline at the latest; the session is
// then of no more use.
func (s *Session) Hold(ctx context.Context) error {
	s.frozenAt = time.Now()
	if _, err := s.ask(ctx, s.dialect.freeze(), "frozen"); err != nil {
		s.frozenAt = time.Time{}
		return fmt.Errorf("freeze %s: %w", s.Freeze, err)
	}
	return nil
}

// Thaw lets go, and returns how long it was frozen. The error wraps ErrNotHeld when it was not frozen any more; with any
// other error nobody knows. It works after ctx has ended.
func (s *Session) Thaw(ctx context.Context) (time.Duration, error) {
	if s.frozenAt.IsZero() {
		return 0, nil
	}
	_, err := s.ask(context.WithoutCancel(ctx), s.dialect.thaw(), "thawed")
	took := time.Since(s.frozenAt)
	s.frozenAt = time.Time{}
	if err != nil {
		return took, fmt.Errorf("thaw %s: %w", s.Freeze, err)
	}
	return took, nil
}

// Detail is what a database said of itself while it was held, such as the position in its binary log.
func (s *Session) Detail() string { return s.detail }

// Close ends the session, and with it whatever it held. What does not end soon is left to its deadline, and said so.
func (s *Session) Close() error {
	err := s.input.Close()
	if errors.Is(err, os.ErrClosed) {
		err = nil
	}
	select {
	case <-s.done:
		return err
	case <-time.After(lingerTimeout):
		return errors.Join(err, fmt.Errorf("%s: what thaws it is still at work; it thaws within %s", s.Freeze, s.Freeze.deadline()))
	}
}

// lineWriter cuts what is written into lines. A reader that has gone does not hold it up: more lines than anybody waits
// for are dropped.
type lineWriter struct {
	mu    sync.Mutex
	part  []byte
	lines chan<- string
}

const maxLineBytes = 16 << 10

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.part = append(w.part, p...)
	for {
		i := bytes.IndexByte(w.part, '\n')
		if i < 0 {
			break
		}
		select {
		case w.lines <- strings.TrimRight(string(w.part[:i]), "\r"):
		default:
		}
		w.part = w.part[i+1:]
	}
	if len(w.part) > maxLineBytes {
		w.part = w.part[:0]
	}
	return len(p), nil
}
