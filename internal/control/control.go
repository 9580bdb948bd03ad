// Package control lets a command speak to a process of this program that is at work, through a Unix socket in the folder
// of its locks. A request is one line of JSON, and so is the answer, which comes when what was asked for is done. Only
// the same user, or root, is listened to.
package control

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/say"
)

// ErrNobody says that nobody listens: what was to be spoken to has ended, or has not begun.
var ErrNobody = errors.New("nobody is at work there")

const (
	requestTimeout  = 10 * time.Second // for a client to say what it wants
	maxMessageBytes = 64 << 10
	maxPathBytes    = 107 // unix(7): sun_path, less its end
)

// Request is what is asked for.
type Request struct {
	Cancel string `json:"cancel"` // the volume to take out of the run
}

// answer is what comes back. Exactly one field is set.
type answer struct {
	Done  string   `json:"done,omitempty"`  // what was done, in words
	Error string   `json:"error,omitempty"` // why it was not
	Hints []string `json:"hints,omitempty"` // what can be done about that
}

// Handler does what is asked for and says in words what it did. Its context ends with the server.
type Handler func(context.Context, Request) (string, error)

// Server listens until it is closed.
type Server struct {
	listener *net.UnixListener
	cancel   context.CancelFunc
	wait     sync.WaitGroup
}

// Listen answers requests to name in dir, which has to be there and nobody else's to write to. A socket that a process
// left which died is replaced: whoever calls this holds the lock that goes with the name.
func Listen(dir, name string, handle Handler) (*Server, error) {
	fail := func(err error) (*Server, error) { return nil, fmt.Errorf("listen for requests: %w", err) }
	path, err := socketPath(dir, name)
	if err != nil {
		return fail(err)
	}
	if err := checkFolder(dir); err != nil {
		return fail(err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fail(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return fail(errors.Join(err, listener.Close()))
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{listener: listener, cancel: cancel}
	s.wait.Go(func() { s.accept(ctx, handle) })
	return s, nil
}

// Close ends listening, removes the socket, and returns when every request was answered.
func (s *Server) Close() error {
	s.cancel()
	err := s.listener.Close()
	s.wait.Wait()
	return err
}

func (s *Server) accept(ctx context.Context, handle Handler) {
	for {
		conn, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files, most likely: it passes
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
				continue
			}
		}
		s.wait.Go(func() {
			defer func() { _ = conn.Close() }() // what there was to say is said
			serve(ctx, conn, handle)
		})
	}
}

// serve answers one client. One that went away gets no answer, but what it asked for is done.
func serve(ctx context.Context, conn *net.UnixConn, handle Handler) {
	var a answer
	request, err := receive(conn)
	if err == nil {
		a.Done, err = handle(ctx, request)
	}
	if err != nil {
		a = answer{Error: err.Error(), Hints: say.Hints(err)}
	}
	line, err := json.Marshal(a)
	if err != nil {
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(requestTimeout))
	_, _ = conn.Write(append(line, '\n'))
}

func receive(conn *net.UnixConn) (Request, error) {
	if err := checkPeer(conn); err != nil {
		return Request{}, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(requestTimeout)); err != nil {
		return Request{}, err
	}
	var r Request
	if err := readLine(conn, &r); err != nil {
		return r, fmt.Errorf("cannot read the request: %w", err)
	}
	return r, nil
}

// readLine reads one message, which a line end ends.
func readLine(from io.Reader, into any) error {
	line, err := bufio.NewReader(io.LimitReader(from, maxMessageBytes)).ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, into)
}

// checkPeer refuses other users, whom the folder's permissions keep away in the first place.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if peerErr != nil {
		return fmt.Errorf("cannot tell who asks: %w", peerErr)
	}
	if peer.Uid != 0 && peer.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("user %d may not do that", peer.Uid)
	}
	return nil
}

// checkFolder refuses a folder in which another user could put a socket of his own.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return say.WithHint(fmt.Errorf("cannot use %s: others may write to it (%s)", dir, info.Mode()),
			fmt.Sprintf("chmod 700 %s", dir))
	}
	return nil
}

// Ask sends a request to whoever listens to name in dir, and waits for the answer. An error that wraps ErrNobody says
// that there is nobody.
func Ask(ctx context.Context, dir, name string, r Request) (string, error) {
	path, err := socketPath(dir, name)
	if err != nil {
		return "", err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return "", ErrNobody
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	unhook := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer unhook()
	line, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	var a answer
	if _, err = conn.Write(append(line, '\n')); err == nil {
		err = readLine(conn, &a)
	}
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case errors.Is(err, io.EOF), errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		return "", errors.New("it ended without an answer")
	case err != nil:
		return "", err
	case a.Error != "":
		err := errors.New(a.Error)
		for _, hint := range slices.Backward(a.Hints) { // the first is the outermost
			err = say.WithHint(err, hint)
		}
		return "", err
	}
	return a.Done, nil
}

// socketPath is where the socket of a name is. Names may be longer than the address of a socket.
func socketPath(dir, name string) (string, error) {
	sum := sha256.Sum256([]byte(name))
	path := filepath.Join(dir, "control-"+hex.EncodeToString(sum[:6])+".sock")
	if len(path) > maxPathBytes {
		return "", say.WithHint(fmt.Errorf("cannot use the socket %s: its path is longer than %d bytes", path, maxPathBytes),
			"give run_dir a shorter one")
	}
	return path, nil
}
