package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"sync"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"voltar/internal/safedir"
)

// Encryption says how a connection to a mail server is protected.
type Encryption string

// Values of Encryption.
const (
	STARTTLS Encryption = "starttls" // mandatory: a server without it is refused
	TLS      Encryption = "tls"      // from the first byte, usually on port 465
	Plain    Encryption = "none"     // nothing is protected; a password is sent over loopback only
)

// SMTPOptions say how to reach a mail server. Host and Addresses have no default.
type SMTPOptions struct {
	Addresses  Addresses
	Host       string
	Port       int        // 0 means 587, 465 with TLS, 25 with Plain
	Encryption Encryption // "" means STARTTLS
	Username   string     // "" sends without AUTH
	Password   string
	CAFile     string        // PEM; certificates that are trusted instead of the system's
	Helo       string        // "" means the host's name
	Timeout    time.Duration // of connecting, and of each step after; 0 means 30 s
}

// SMTP delivers by a mail server.
type SMTP struct {
	opts  SMTPOptions
	roots *x509.CertPool
}

// NewSMTP checks the options and reads the CA file.
func NewSMTP(opts SMTPOptions) (*SMTP, error) {
	if err := opts.Addresses.validate(); err != nil {
		return nil, err
	}
	if opts.Host == "" {
		return nil, errors.New("mail has no server: set mail.server")
	}
	defaultPort := map[Encryption]int{STARTTLS: 587, TLS: 465, Plain: 25}
	if opts.Encryption == "" {
		opts.Encryption = STARTTLS
	}
	port, known := defaultPort[opts.Encryption]
	if !known {
		return nil, fmt.Errorf("cannot use %q as the mail server's encryption: it is starttls, tls or none", opts.Encryption)
	}
	if opts.Port == 0 {
		opts.Port = port
	}
	if opts.Timeout == 0 {
		opts.Timeout = 30 * time.Second
	}
	roots, err := readCAs(opts.CAFile)
	if err != nil {
		return nil, err
	}
	s := &SMTP{opts: opts, roots: roots}
	if _, err := s.client(nil); err != nil {
		return nil, fmt.Errorf("cannot use the mail server's settings: %w", err)
	}
	return s, nil
}

// readCAs returns nil, which stands for the system's certificates, when there is no file.
func readCAs(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := safedir.ReadFile(path) // whoever writes to it reads what is sent
	if err != nil {
		return nil, fmt.Errorf("cannot read the CA file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("cannot find a PEM certificate in the CA file %s", path)
	}
	return roots, nil
}

// Name is "mail", as there is one mail server.
func (s *SMTP) Name() string { return "mail" }

// preferredAuth are the mechanisms by strength. go-mail sends a password in the clear over loopback only.
func preferredAuth() []mail.SMTPAuthType {
	return []mail.SMTPAuthType{mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthSCRAMSHA1, mail.SMTPAuthPlain, mail.SMTPAuthLogin,
		mail.SMTPAuthCramMD5}
}

func (s *SMTP) client(dial mail.DialContextFunc) (*mail.Client, error) {
	policy := mail.TLSMandatory
	if s.opts.Encryption == Plain {
		policy = mail.NoTLS
	}
	opts := []mail.Option{
		mail.WithPort(s.opts.Port), mail.WithTimeout(s.opts.Timeout), mail.WithTLSPolicy(policy),
		mail.WithTLSConfig(s.tlsConfig()), mail.WithoutNoop(),
	}
	if dial != nil {
		opts = append(opts, mail.WithDialContextFunc(dial))
	}
	if s.opts.Encryption == TLS {
		opts = append(opts, mail.WithSSL())
	}
	if s.opts.Helo != "" {
		opts = append(opts, mail.WithHELO(s.opts.Helo))
	}
	if s.opts.Username != "" {
		opts = append(opts, mail.WithOpportunisticSMTPAuth(preferredAuth()...), mail.WithUsername(s.opts.Username),
			mail.WithPassword(s.opts.Password))
	}
	return mail.NewClient(s.opts.Host, opts...)
}

func (s *SMTP) tlsConfig() *tls.Config {
	return &tls.Config{ServerName: s.opts.Host, RootCAs: s.roots, MinVersion: tls.VersionTLS12}
}

// session is one connection to the server, which the end of a context cuts: go-mail itself heeds contexts only while it
// dials.
type session struct {
	client *mail.Client
	conn   *smtp.Client
	stop   func() bool
}

func (s *SMTP) open(ctx context.Context) (*session, error) {
	var mu sync.Mutex
	var raw net.Conn
	cut := func() {
		mu.Lock()
		defer mu.Unlock()
		if raw != nil {
			_ = raw.Close() // its user sees the error
		}
	}
	client, err := s.client(func(dialCtx context.Context, network, address string) (net.Conn, error) {
		conn, err := s.dial(dialCtx, network, address)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		raw = conn
		if ctx.Err() != nil { // cut may have come too early for this connection
			return nil, errors.Join(ctx.Err(), conn.Close())
		}
		return conn, nil
	})
	if err != nil {
		return nil, Permanent(fmt.Errorf("cannot use the mail server's settings: %w", err))
	}
	stop := context.AfterFunc(ctx, cut)
	conn, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		stop()
		cut()
		return nil, classify(ctx, fmt.Errorf("cannot open a session with mail server %s: %w", client.ServerAddr(), err))
	}
	return &session{client: client, conn: conn, stop: stop}, nil
}

func (s *SMTP) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{}
	if s.opts.Encryption == TLS {
		return (&tls.Dialer{NetDialer: dialer, Config: s.tlsConfig()}).DialContext(ctx, network, address)
	}
	return dialer.DialContext(ctx, network, address)
}

// close ends the session. Whatever was to be delivered is, by then: how the server takes its leave is of no interest.
func (s *session) close() {
	_ = s.client.CloseWithSMTPClient(s.conn)
	s.stop()
}

// Check opens a session, with encryption and AUTH, and closes it again.
func (s *SMTP) Check(ctx context.Context) error {
	session, err := s.open(ctx)
	if err != nil {
		return err
	}
	session.close()
	return nil
}

// Send delivers one mail to all recipients. When the server refuses some of them, the others still get it.
func (s *SMTP) Send(ctx context.Context, msg Message) error {
	session, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer session.close()
	err = session.send(msg, s.opts.Addresses)
	var refused *mail.SendError
	if len(s.opts.Addresses.To) == 1 || !errors.As(err, &refused) || refused.Reason != mail.ErrSMTPRcptTo {
		return classify(ctx, err)
	}

	// go-mail gives up on all when one is refused, and the server has taken nothing yet: one by one, then.
	var errs []error
	for _, to := range s.opts.Addresses.To {
		if err := session.send(msg, Addresses{From: s.opts.Addresses.From, To: []string{to}}); err != nil {
			errs = append(errs, err)
		}
	}
	err = errors.Join(errs...)
	if len(errs) > 0 && len(errs) < len(s.opts.Addresses.To) {
		return Partial(err)
	}
	return classify(ctx, err)
}

func (s *session) send(msg Message, addresses Addresses) error {
	m, err := newMail(msg, addresses)
	if err != nil {
		return err
	}
	err = s.client.SendWithSMTPClient(s.conn, m)
	if err == nil || m.IsDelivered() {
		return nil // an error after delivery is about the reset of the session
	}
	return fmt.Errorf("cannot send the mail: %w", err)
}

// classify tells errors that pass from those that do not. go-mail's own type covers sending alone: connecting, TLS and
// AUTH give the plain errors of the standard library.
func classify(ctx context.Context, err error) error {
	if err == nil || isPermanent(err) {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	var sendErr *mail.SendError
	var reply *textproto.Error
	var certificate *tls.CertificateVerificationError
	var auth = []error{smtp.ErrUnencrypted, mail.ErrPlainAuthNotSupported, mail.ErrLoginAuthNotSupported}
	lasting := errors.As(err, &sendErr) && sendErr.ErrorCode() >= 500 ||
		errors.As(err, &reply) && reply.Code >= 500 ||
		errors.As(err, &certificate)
	for _, target := range auth {
		lasting = lasting || errors.Is(err, target)
	}
	if lasting {
		return Permanent(err)
	}
	return err
}
