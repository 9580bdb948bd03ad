package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/multipart"
	"net"
	netmail "net/mail"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"voltar/internal/check"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// mailServer is an SMTP server of the test's own, with STARTTLS, that can be stopped and started again.
type mailServer struct {
	t       *testing.T
	caFile  string
	tls     *tls.Config
	address string

	mu       sync.Mutex
	server   *smtp.Server
	password string // of the user "voltar", for who must log in; "" asks for none
	mails    [][]byte
}

func startMail(t *testing.T) *mailServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	m := &mailServer{t: t, caFile: filepath.Join(t.TempDir(), "ca.pem"), address: "127.0.0.1:0"}
	m.tls = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	writeFile(t, m.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	m.start()
	t.Cleanup(m.stop)
	return m
}

// start listens on the address that the server had before, or on one of the kernel's choice.
func (m *mailServer) start() {
	m.t.Helper()
	listener, err := net.Listen("tcp", m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.address = listener.Addr().String()
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return session{m}, nil }))
	server.Domain, server.TLSConfig = "mail.test", m.tls
	m.server = server
	go func() { _ = server.Serve(listener) }() // ends with stop
}

func (m *mailServer) stop() { _ = m.server.Close() } // a second time says so, and harms nothing

// config is the server's part of a configuration.
func (m *mailServer) config() string {
	_, port, err := net.SplitHostPort(m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	return fmt.Sprintf("[mail]\nto = [\"root@example.org\"]\nserver = \"127.0.0.1\"\nport = %s\nca_file = %q\ntimeout = \"2m\"\n", port, m.caFile)
}

// subjects returns those of the mails that came.
func (m *mailServer) subjects() []string {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []string
	for _, data := range m.mails {
		mail, err := netmail.ReadMessage(bytes.NewReader(data))
		if err != nil {
			m.t.Fatal(err)
		}
		subject, err := new(mime.WordDecoder).DecodeHeader(mail.Header.Get("Subject"))
		if err != nil {
			m.t.Fatal(err)
		}
		list = append(list, subject)
	}
	return list
}

// last returns the words of the mail that came last, a blank between any two: where its lines are broken, which the length
// of a path decides, does not matter.
func (m *mailServer) last() string {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.mails) == 0 {
		return ""
	}
	mail, err := netmail.ReadMessage(bytes.NewReader(m.mails[len(m.mails)-1]))
	if err != nil {
		m.t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(mail.Header.Get("Content-Type"))
	if err != nil {
		m.t.Fatal(err)
	}
	part, err := multipart.NewReader(mail.Body, params["boundary"]).NextPart() // the plain text, decoded
	if err != nil {
		m.t.Fatal(err)
	}
	text, err := io.ReadAll(part)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// expect sets the password of those who log in.
func (m *mailServer) expect(password string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.password = password
}

func (m *mailServer) expects() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.password
}

func (s session) AuthMechanisms() []string {
	if s.expects() == "" {
		return nil
	}
	return []string{sasl.Plain}
}

func (s session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		if username != "voltar" || password != s.expects() {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

// check logs in, as a run does when it sends its report, and sends nothing.
func TestCheckLogsInToTheMailServer(t *testing.T) {
	m := startMail(t)
	m.expect("right")
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, []byte("right\n"))
	s := newSite(t, m.config()+"username = \"voltar\"\npassword = { file = \""+secret+"\" }\n")
	want := func(ok bool, text string) {
		t.Helper()
		_, out, errs := voltar(t, "check", "--json", "--config", s.config)
		var findings []check.Finding
		if err := json.Unmarshal([]byte(out), &findings); err != nil {
			t.Fatalf("%v in %s %s", err, out, errs)
		}
		i := slices.IndexFunc(findings, func(f check.Finding) bool { return f.Check == "mail" })
		if i < 0 || findings[i].OK != ok || !strings.Contains(findings[i].Detail, text) || strings.Contains(findings[i].Detail, "\n") {
			t.Errorf("%+v, want mail to be %v, with %q on one line", findings, ok, text)
		}
	}
	want(true, "takes the login of voltar")
	m.expect("other")
	want(false, "Authentication failed")
	m.stop()
	want(false, "connection refused")
	if len(m.mails) > 0 {
		t.Errorf("it sent %d mails", len(m.mails))
	}
}

// session takes every mail.
type session struct{ *mailServer }

func (s session) Mail(string, *smtp.MailOptions) error { return nil }
func (s session) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s session) Reset()                               {}
func (s session) Logout() error                        { return nil }

func (s session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = append(s.mails, data)
	return err
}
