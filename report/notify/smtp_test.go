package notify

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"mime"
	"mime/multipart"
	"net"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"voltar/internal/safedir"
	"voltar/report"
)

// mailServer is an SMTP server of the test's own, which can be told to fail at any stage.
type mailServer struct {
	host   string
	port   int
	caFile string

	mu       sync.Mutex
	mails    []received
	sessions int
	refuse   map[string]error // by stage: connect, auth, mail, "rcpt ADDRESS", data
	hang     chan struct{}    // while not nil, DATA closes reached and waits for it
	reached  chan struct{}
}

type received struct {
	from string
	to   []string
	tls  bool
	user string
	data []byte
}

type serverOptions struct {
	implicitTLS bool
	noTLS       bool
	certHost    string
}

func startMailServer(t *testing.T, opts serverOptions) *mailServer {
	t.Helper()
	s := &mailServer{refuse: make(map[string]error)}
	certHost := opts.certHost
	if certHost == "" {
		certHost = "127.0.0.1"
	}
	cert, caFile := makeCertificate(t, certHost)
	s.caFile = caFile
	server := smtp.NewServer(smtp.BackendFunc(s.newSession))
	server.Domain = "mail.test"
	server.ErrorLog = silent{}
	server.AllowInsecureAuth = opts.noTLS
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().(*net.TCPAddr)
	s.host, s.port = "127.0.0.1", address.Port
	switch {
	case opts.implicitTLS:
		listener = tls.NewListener(listener, config)
	case !opts.noTLS:
		server.TLSConfig = config
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		_ = listener.Close() // should the server not have got to it yet
		if err := <-done; err != nil && !errors.Is(err, smtp.ErrServerClosed) {
			t.Error(err)
		}
	})
	return s
}

type silent struct{}

func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}

// makeCertificate makes a certificate that is its own authority.
func makeCertificate(t *testing.T, host string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}

func (s *mailServer) fail(stage string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse[stage] = err
}

func (s *mailServer) failure(stage string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refuse[stage]
}

func (s *mailServer) got() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.mails...)
}

func (s *mailServer) newSession(c *smtp.Conn) (smtp.Session, error) {
	s.mu.Lock()
	s.sessions++
	s.mu.Unlock()
	_, secure := c.TLSConnectionState()
	return &mailSession{server: s, tls: secure}, s.failure("connect")
}

type mailSession struct {
	server *mailServer
	tls    bool
	user   string
	mail   received
}

func (m *mailSession) Reset()        { m.mail = received{} }
func (m *mailSession) Logout() error { return nil }

func (m *mailSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (m *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "backup" || password != "s3cret" {
			return smtp.ErrAuthFailed
		}
		m.user = user
		return nil
	}), nil
}

func (m *mailSession) Mail(from string, _ *smtp.MailOptions) error {
	m.mail = received{from: from, tls: m.tls, user: m.user}
	return m.server.failure("mail")
}

func (m *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	m.mail.to = append(m.mail.to, to)
	return m.server.failure("rcpt " + to)
}

func (m *mailSession) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := m.server.failure("data"); err != nil {
		return err
	}
	if m.server.hang != nil {
		close(m.server.reached)
		<-m.server.hang
	}
	m.server.mu.Lock()
	defer m.server.mu.Unlock()
	m.mail.data = data
	m.server.mails = append(m.server.mails, m.mail)
	return nil
}

func (s *mailServer) options() SMTPOptions {
	return SMTPOptions{
		Addresses: Addresses{From: "voltar <voltar@volume-host.example>", To: []string{"Root <root@example.org>"}},
		Host:      s.host, Port: s.port, CAFile: s.caFile, Timeout: 2 * time.Minute,
	}
}

func newSMTP(t *testing.T, opts SMTPOptions) *SMTP {
	t.Helper()
	channel, err := NewSMTP(opts)
	if err != nil {
		t.Fatal(err)
	}
	return channel
}

var night = time.Date(2026, 11, 20, 1, 0, 1, 0, time.UTC)

func testRun() report.Run {
	return report.Run{
		Schema: report.Schema, ID: "20261120T010001Z-1f2e", Host: "volume-host", Command: "run", Retention: "7 days",
		Started: night, Ended: night.Add(75*time.Minute + 35*time.Second), PlannedVolumes: 2,
		Volumes: []report.Volume{
			{Name: "vg/volume-00000001", Status: report.VolumeOK, StoredBytes: 1 << 30, Backup: "vg/volume-00000001@x"},
			{Name: "vg/volume-00000002", Status: report.VolumeOK, StoredBytes: 1 << 30, Backup: "vg/volume-00000002@x"},
		},
	}
}

func failedRun() report.Run {
	run := testRun()
	run.ExitCode = 3
	run.Volumes[1].Status = report.VolumeFailed
	run.Volumes[1].Error = &report.Problem{Message: "cannot mount: wrong magic — ünïcode"}
	return run
}

func testMessage(t *testing.T, run report.Run) Message {
	t.Helper()
	history := []report.Point{report.PointOf(testRun())}
	msg, err := NewMessage(run, report.Options{History: history})
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func TestSMTPDelivers(t *testing.T) {
	tests := []struct {
		name   string
		server serverOptions
		change func(*SMTPOptions)
		tls    bool
		user   string
	}{
		{"STARTTLS by default", serverOptions{}, func(*SMTPOptions) {}, true, ""},
		{"STARTTLS and AUTH", serverOptions{}, func(o *SMTPOptions) { o.Username, o.Password = "backup", "s3cret" }, true, "backup"},
		{"implicit TLS", serverOptions{implicitTLS: true}, func(o *SMTPOptions) { o.Encryption = TLS }, true, ""},
		{"implicit TLS and AUTH", serverOptions{implicitTLS: true}, func(o *SMTPOptions) {
			o.Encryption, o.Username, o.Password = TLS, "backup", "s3cret"
		}, true, "backup"},
		{"none, when told so", serverOptions{noTLS: true}, func(o *SMTPOptions) { o.Encryption = Plain }, false, ""},
		{"AUTH in the clear over loopback", serverOptions{noTLS: true}, func(o *SMTPOptions) {
			o.Encryption, o.Username, o.Password = Plain, "backup", "s3cret"
		}, false, "backup"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := startMailServer(t, tt.server)
			opts := server.options()
			tt.change(&opts)
			channel := newSMTP(t, opts)
			if err := channel.Check(t.Context()); err != nil {
				t.Errorf("check: %v", err)
			}
			if err := channel.Send(t.Context(), testMessage(t, failedRun())); err != nil {
				t.Fatal(err)
			}
			mails := server.got()
			if len(mails) != 1 {
				t.Fatalf("%d mails", len(mails))
			}
			want := received{from: "voltar@volume-host.example", to: []string{"root@example.org"}, tls: tt.tls, user: tt.user}
			got := mails[0]
			got.data = nil
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(received{})); diff != "" {
				t.Errorf("envelope (-want +got):\n%s", diff)
			}
		})
	}
}

// The mail is what mail programs expect: text first, HTML as the better form, the picture beside the HTML.
func TestMailForm(t *testing.T) {
	server := startMailServer(t, serverOptions{})
	msg := testMessage(t, failedRun())
	msg.Serial = "SERIAL"
	if err := newSMTP(t, server.options()).Send(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	parsed, err := netmail.ReadMessage(bytes.NewReader(server.got()[0].data))
	if err != nil {
		t.Fatal(err)
	}
	header := func(name string) string {
		text, err := new(mime.WordDecoder).DecodeHeader(parsed.Header.Get(name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	want := map[string]string{
		"Subject":          "[voltar] volume-host: FAILED 1 of 2: volume-00000002: cannot mount: wrong magic — ünïcode",
		"From":             `"voltar" <voltar@volume-host.example>`,
		"To":               `"Root" <root@example.org>`,
		"Message-ID":       "<20261120T010001Z-1f2e.SERIAL@volume-host.example>",
		"Date":             "Fri, 20 Nov 2026 02:15:36 +0000",
		"Auto-Submitted":   "auto-generated",
		"List-Id":          "<volume-host.voltar>",
		"X-Voltar-Verdict": "failed",
		"Importance":       "high",
	}
	for name, value := range want {
		if got := header(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	parts := readParts(t, parsed.Header.Get("Content-Type"), parsed.Body)
	var kinds []string
	for _, p := range parts {
		kinds = append(kinds, p.kind)
	}
	if diff := cmp.Diff([]string{"text/plain", "text/html", "image/png"}, kinds); diff != "" {
		t.Fatalf("parts (-want +got):\n%s", diff)
	}
	if got := strings.ReplaceAll(string(parts[0].data), "\r\n", "\n"); got != msg.Text {
		t.Errorf("the text changed on its way:\n%s", cmp.Diff(msg.Text, got))
	}
	if parts[2].id != "<"+TrendCID+">" {
		t.Errorf("the picture's id is %q, which the HTML does not name", parts[2].id)
	}
}

type part struct {
	kind, id string
	data     []byte
}

// readParts gives the leaves of a multipart body. Quoted-printable is decoded, base64 is left as it is.
func readParts(t *testing.T, contentType string, body io.Reader) []part {
	t.Helper()
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatal(err)
	}
	var parts []part
	for reader := multipart.NewReader(body, params["boundary"]); ; {
		p, err := reader.NextPart()
		if errors.Is(err, io.EOF) {
			return parts
		}
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		inner := p.Header.Get("Content-Type")
		if strings.HasPrefix(inner, "multipart/") {
			parts = append(parts, readParts(t, inner, p)...)
			continue
		}
		data, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		media, _, _ := strings.Cut(inner, ";")
		parts = append(parts, part{media, p.Header.Get("Content-Id"), data})
	}
}

func TestSMTPFailures(t *testing.T) {
	temporary := &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "try later"}
	lasting := &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "relay denied"}
	tests := []struct {
		name      string
		server    serverOptions
		setup     func(*mailServer, *SMTPOptions)
		permanent bool
		want      string
	}{
		{"nobody listens", serverOptions{}, func(_ *mailServer, o *SMTPOptions) { o.Port = unusedPort(t) }, false, "refused"},
		{"greeting", serverOptions{}, func(s *mailServer, _ *SMTPOptions) { s.fail("connect", temporary) }, false, "try later"},
		{"no STARTTLS", serverOptions{noTLS: true}, func(*mailServer, *SMTPOptions) {}, false, "STARTTLS"},
		{"unknown authority", serverOptions{}, func(_ *mailServer, o *SMTPOptions) { o.CAFile = "" }, true, "certificate"},
		{"certificate of another host", serverOptions{certHost: "other.example"}, func(*mailServer, *SMTPOptions) {}, true, "certificate"},
		{"wrong password", serverOptions{}, func(_ *mailServer, o *SMTPOptions) { o.Username, o.Password = "backup", "wr0ng" }, true, "Authentication failed"},
		{"sender refused", serverOptions{}, func(s *mailServer, _ *SMTPOptions) { s.fail("mail", lasting) }, true, "relay denied"},
		{"sender deferred", serverOptions{}, func(s *mailServer, _ *SMTPOptions) { s.fail("mail", temporary) }, false, "try later"},
		{"recipient refused", serverOptions{}, func(s *mailServer, _ *SMTPOptions) { s.fail("rcpt root@example.org", lasting) }, true, "relay denied"},
		{"recipient deferred", serverOptions{}, func(s *mailServer, _ *SMTPOptions) { s.fail("rcpt root@example.org", temporary) }, false, "try later"},
		{"message refused", serverOptions{}, func(s *mailServer, _ *SMTPOptions) { s.fail("data", lasting) }, true, "relay denied"},
		{"message deferred", serverOptions{}, func(s *mailServer, _ *SMTPOptions) { s.fail("data", temporary) }, false, "try later"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := startMailServer(t, tt.server)
			opts := server.options()
			tt.setup(server, &opts)
			err := newSMTP(t, opts).Send(t.Context(), testMessage(t, testRun()))
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
			if isPermanent(err) != tt.permanent {
				t.Errorf("permanent is %v: %v", isPermanent(err), err)
			}
			if strings.Contains(err.Error(), "wr0ng") {
				t.Errorf("the error tells the password: %v", err)
			}
			if n := len(server.got()); n != 0 {
				t.Errorf("%d mails went out", n)
			}
		})
	}
}

// unusedPort returns one that nobody listens on, and nobody else gets as long as the test runs.
func unusedPort(t *testing.T) int {
	t.Helper()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(socket) })
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	address, err := syscall.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	return address.(*syscall.SockaddrInet4).Port
}

// One dead address does not silence the others, nor does it make them get the mail again and again.
func TestOneRecipientRefused(t *testing.T) {
	server := startMailServer(t, serverOptions{})
	server.fail("rcpt gone@example.org", &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"})
	opts := server.options()
	opts.Addresses.To = []string{"a@example.org", "gone@example.org", "b@example.org"}
	err := newSMTP(t, opts).Send(t.Context(), testMessage(t, testRun()))
	if !isPartial(err) || !strings.Contains(err.Error(), "gone@example.org") {
		t.Errorf("error %v, want a partial delivery that names the address", err)
	}
	var to []string
	for _, m := range server.got() {
		to = append(to, m.to...)
	}
	if diff := cmp.Diff([]string{"a@example.org", "b@example.org"}, to); diff != "" {
		t.Errorf("recipients (-want +got):\n%s", diff)
	}
}

// The end of the context ends a delivery to a server that does not answer any more.
func TestSMTPHeedsContext(t *testing.T) {
	server := startMailServer(t, serverOptions{})
	server.hang, server.reached = make(chan struct{}), make(chan struct{})
	answer := sync.OnceFunc(func() { close(server.hang) })
	defer answer()
	opts := server.options()
	opts.Timeout = time.Hour
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	go func() {
		<-server.reached
		cancel(cause)
		time.AfterFunc(time.Minute, answer) // so that a delivery that heeds no context ends, and well
	}()
	if err := newSMTP(t, opts).Send(ctx, testMessage(t, testRun())); !errors.Is(err, cause) {
		t.Errorf("error %v", err)
	}
}

// No name from outside adds a header or a recipient.
func TestHeaderInjection(t *testing.T) {
	server := startMailServer(t, serverOptions{})
	run := failedRun()
	evil := "x\r\nBcc: victim@example.org\r\n\r\nbody\u202e"
	run.Host, run.ID, run.Volumes[1].Name, run.Volumes[1].Error.Message = evil, evil, "vg/"+evil, evil
	msg := testMessage(t, run)
	msg.Subject = evil // not even if it came from a spool that someone edited
	if err := newSMTP(t, server.options()).Send(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	mail := server.got()[0]
	parsed, err := netmail.ReadMessage(bytes.NewReader(mail.data))
	if err != nil {
		t.Fatal(err)
	}
	if bcc := parsed.Header.Get("Bcc"); bcc != "" || len(mail.to) != 1 {
		t.Errorf("Bcc %q, recipients %q", bcc, mail.to)
	}
	if got := parsed.Header.Get("Subject"); got != `x\r\nBcc: victim@example.org\r\n\r\nbody\u202e` {
		t.Errorf("subject %q", got)
	}
	for _, name := range []string{"Message-ID", "List-Id"} {
		if value := parsed.Header.Get(name); strings.ContainsAny(value, " :\r\n") || !strings.HasPrefix(value, "<x--Bcc--victim") {
			t.Errorf("%s: %q", name, value)
		}
	}
}

// Every message has an identity of its own, which all attempts to send it share.
func TestMessageIDsNeverRepeat(t *testing.T) {
	one, again := testMessage(t, failedRun()), testMessage(t, failedRun())
	const from = "Backups <root@host.example>"
	first, tried, second := messageID(one, from), messageID(one, from), messageID(again, from)
	if first == second || first != tried {
		t.Errorf("%s, tried again as %s, and %s", first, tried, second)
	}
	if got, want := messageID(Message{ID: "run"}, from), "run@host.example"; got != want {
		t.Errorf("of a message of an earlier version: %s", got)
	}
}

func TestSMTPOptionErrors(t *testing.T) {
	good := SMTPOptions{Addresses: Addresses{From: "a@example.org", To: []string{"b@example.org"}}, Host: "mail.example.org"}
	notPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(notPEM, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "open.pem")
	if err := errors.Join(os.WriteFile(open, nil, 0o600), os.Chmod(open, 0o666)); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*SMTPOptions)
		want   string
	}{
		{"no server", func(o *SMTPOptions) { o.Host = "" }, "set mail.server"},
		{"no recipient", func(o *SMTPOptions) { o.Addresses.To = nil }, "no recipient"},
		{"sender with a header", func(o *SMTPOptions) { o.Addresses.From = "a@example.org\r\nBcc: x@example.org" }, "sender"},
		{"bad recipient", func(o *SMTPOptions) { o.Addresses.To = []string{"nobody"} }, "recipient"},
		{"encryption", func(o *SMTPOptions) { o.Encryption = "ssl" }, "starttls, tls or none"},
		{"no CA file", func(o *SMTPOptions) { o.CAFile = "/nowhere/ca.pem" }, "CA file"},
		{"CA file that others can change", func(o *SMTPOptions) { o.CAFile = open }, safedir.ErrUntrusted.Error()},
		{"CA file without a certificate", func(o *SMTPOptions) { o.CAFile = notPEM }, "PEM"},
		{"port", func(o *SMTPOptions) { o.Port = 70000 }, "port"},
	}
	if _, err := NewSMTP(good); err != nil {
		t.Errorf("good options: %v", err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opts := good
			tt.change(&opts)
			if _, err := NewSMTP(opts); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v does not say %q", err, tt.want)
			}
		})
	}
}

func TestSendmail(t *testing.T) {
	var args []string
	var message []byte
	addresses := Addresses{From: "voltar <-f@host.example>", To: []string{"-oQ@example.org", "Root <root@example.org>"}}
	channel, err := NewSendmail(addresses, func(_ context.Context, a []string, m []byte) error {
		args, message = a, m
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := channel.Send(t.Context(), testMessage(t, testRun())); err != nil {
		t.Fatal(err)
	}
	want := []string{"-i", "-f", "-f@host.example", "--", "-oQ@example.org", "root@example.org"}
	if diff := cmp.Diff(want, args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	if bytes.Contains(message, []byte("\r")) || !bytes.Contains(message, []byte("\nSubject: [voltar] volume-host: OK 2 volumes")) {
		t.Errorf("message:\n%.500s", message)
	}
	failing, err := NewSendmail(addresses, func(context.Context, []string, []byte) error { return errors.New("queue is full") })
	if err != nil {
		t.Fatal(err)
	}
	if err := failing.Send(t.Context(), testMessage(t, testRun())); err == nil || !strings.Contains(err.Error(), "queue is full") {
		t.Errorf("error %v", err)
	}
	if _, err := NewSendmail(Addresses{From: "x"}, nil); err == nil {
		t.Error("addresses are not checked")
	}
}
