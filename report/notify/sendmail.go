package notify

import (
	"bytes"
	"context"
	"fmt"
	netmail "net/mail"
)

// RunSendmail runs a sendmail command with arguments and the message on its standard input. A nil error means that the
// command has taken the message.
type RunSendmail func(ctx context.Context, args []string, message []byte) error

// Sendmail delivers by the host's own mail system.
type Sendmail struct {
	addresses Addresses
	run       RunSendmail
}

// NewSendmail checks the addresses.
func NewSendmail(addresses Addresses, run RunSendmail) (*Sendmail, error) {
	if err := addresses.validate(); err != nil {
		return nil, err
	}
	return &Sendmail{addresses: addresses, run: run}, nil
}

// Name is "mail", as there is one mail system: what SMTP could not send, sendmail may.
func (s *Sendmail) Name() string { return "mail" }

// Send hands the mail over. The recipients are arguments after "--", never read from the message's headers.
func (s *Sendmail) Send(ctx context.Context, msg Message) error {
	m, err := newMail(msg, s.addresses)
	if err != nil {
		return err
	}
	var message bytes.Buffer
	if _, err := m.WriteTo(&message); err != nil {
		return Permanent(fmt.Errorf("cannot write the mail: %w", err))
	}
	// -i: a line with a single dot does not end the message.
	args := []string{"-i", "-f", bareAddress(s.addresses.From), "--"}
	for _, to := range s.addresses.To {
		args = append(args, bareAddress(to))
	}
	// Commands read lines that end as the system's own do.
	text := bytes.ReplaceAll(message.Bytes(), []byte("\r\n"), []byte("\n"))
	if err := s.run(ctx, args, text); err != nil {
		return fmt.Errorf("cannot hand the mail to sendmail: %w", err)
	}
	return nil
}

// bareAddress leaves out the name. The address was checked when the channel was made.
func bareAddress(address string) string {
	parsed, err := netmail.ParseAddress(address)
	if err != nil {
		return address
	}
	return parsed.Address
}
