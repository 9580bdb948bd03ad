package control

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/say"
)

// folder makes one that nobody else may write to, whatever the umask is, and whose path is short enough for a socket,
// whatever the folder for temporary files is.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "voltar-control-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func listen(t *testing.T, dir, name string, handle Handler) *Server {
	t.Helper()
	s, err := Listen(dir, name, handle)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func echo(_ context.Context, r Request) (string, error) {
	if r.Cancel == "" {
		return "", say.WithHint(say.WithHint(errors.New("nothing to cancel"), "or none"), "name a volume")
	}
	return "cancelled " + r.Cancel, nil
}

func TestAskAndAnswer(t *testing.T) {
	dir := folder(t)
	s := listen(t, dir, "/etc/voltar/voltar.toml", echo)
	_, err := Ask(t.Context(), dir, "/etc/voltar/voltar.toml", Request{})
	if err == nil || say.Text(err) != "nothing to cancel\nhint: name a volume\nhint: or none" {
		t.Errorf("what is refused: %q", say.Text(err))
	}
	got, err := Ask(t.Context(), dir, "/etc/voltar/voltar.toml", Request{Cancel: "vg/a\nb"})
	if err != nil || got != "cancelled vg/a\nb" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := Ask(t.Context(), dir, "/etc/voltar/voltar.toml", Request{}); err == nil || err.Error() != "nothing to cancel" {
		t.Errorf("error %v, want the handler's", err)
	}
	if _, err := Ask(t.Context(), dir, "/etc/other.toml", Request{Cancel: "x"}); !errors.Is(err, ErrNobody) {
		t.Errorf("another name: %v, want ErrNobody", err)
	}
	info, err := os.Stat(must(socketPath(dir, "/etc/voltar/voltar.toml")))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v %v, want mode 0600", info, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Ask(t.Context(), dir, "/etc/voltar/voltar.toml", Request{Cancel: "x"}); !errors.Is(err, ErrNobody) {
		t.Errorf("after Close: %v, want ErrNobody", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func must(path string, err error) string {
	if err != nil {
		panic(err)
	}
	return path
}

// What a process left that was killed is nobody, and is no hindrance to the next one.
func TestSocketOfADeadProcess(t *testing.T) {
	dir := folder(t)
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: must(socketPath(dir, "c")), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Ask(t.Context(), dir, "c", Request{Cancel: "x"}); !errors.Is(err, ErrNobody) {
		t.Errorf("error %v, want ErrNobody", err)
	}
	s := listen(t, dir, "c", echo)
	defer s.Close()
	if _, err := Ask(t.Context(), dir, "c", Request{Cancel: "x"}); err != nil {
		t.Error(err)
	}
}

func TestCloseEndsWhatIsAsked(t *testing.T) {
	dir := folder(t)
	asked := make(chan struct{})
	s := listen(t, dir, "c", func(ctx context.Context, _ Request) (string, error) {
		close(asked)
		<-ctx.Done()
		return "", errors.New("the run has ended")
	})
	answered := make(chan error)
	go func() {
		_, err := Ask(context.Background(), dir, "c", Request{Cancel: "x"})
		answered <- err
	}()
	<-asked
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-answered; err == nil || err.Error() != "the run has ended" {
		t.Errorf("error %v, want the handler's", err)
	}
}

func TestAskEndsWithItsContext(t *testing.T) {
	dir := folder(t)
	asked := make(chan struct{})
	s := listen(t, dir, "c", func(ctx context.Context, _ Request) (string, error) {
		close(asked)
		<-ctx.Done()
		return "", nil
	})
	defer s.Close()
	why := errors.New("a person lost patience")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-asked; cancel(why) }()
	if _, err := Ask(ctx, dir, "c", Request{Cancel: "x"}); !errors.Is(err, why) {
		t.Errorf("error %v, want %v", err, why)
	}
}

func TestListenRefusesWhatOthersCanWriteTo(t *testing.T) {
	dir := folder(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(dir, "c", echo); err == nil || !strings.Contains(err.Error(), "others may write") {
		t.Errorf("error %v", err)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if _, err := Listen(long, "c", echo); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("error %v", err)
	}
}

// Who says nothing sensible gets an answer, and costs the others nothing.
func TestNonsenseIsRefused(t *testing.T) {
	dir := folder(t)
	s := listen(t, dir, "c", echo)
	defer s.Close()
	for _, text := range []string{"{\"cancel\": 5}\n", "nonsense\n", strings.Repeat("x", maxMessageBytes+1)} {
		conn, err := net.Dial("unix", must(socketPath(dir, "c")))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(text)) // may be refused halfway
		var a answer
		if err := readLine(conn, &a); err == nil && !strings.Contains(a.Error, "cannot read the request") {
			t.Errorf("answer %+v", a)
		}
		conn.Close()
	}
	if _, err := Ask(t.Context(), dir, "c", Request{Cancel: "x"}); err != nil {
		t.Error(err)
	}
}
