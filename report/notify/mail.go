package notify

import (
	"bytes"
	"errors"
	"fmt"
	netmail "net/mail"
	"strings"

	"github.com/wneessen/go-mail"

	"voltar/internal/say"
	"voltar/report"
)

// Addresses of a mail, as RFC 5322 writes them: "root@example.org" or "Backups <root@example.org>".
type Addresses struct {
	From string
	To   []string
}

func (a Addresses) validate() error {
	var errs []error
	if _, err := netmail.ParseAddress(a.From); err != nil {
		errs = append(errs, fmt.Errorf("cannot use %q as the sender of mails: %w", a.From, err))
	}
	if len(a.To) == 0 {
		errs = append(errs, errors.New("mail has no recipient: set mail.to"))
	}
	for _, to := range a.To {
		if _, err := netmail.ParseAddress(to); err != nil {
			errs = append(errs, fmt.Errorf("cannot use %q as a recipient of mails: %w", to, err))
		}
	}
	return errors.Join(errs...)
}

// newMail makes a mail of a message: text, HTML and the picture that the HTML names. Its headers keep machines from
// answering (Auto-Submitted, RFC 3834) and let people filter by host (List-Id, RFC 2919).
func newMail(msg Message, addresses Addresses) (*mail.Msg, error) {
	m := mail.NewMsg()
	if err := m.From(addresses.From); err != nil {
		return nil, Permanent(fmt.Errorf("cannot use %q as the sender of mails: %w", addresses.From, err))
	}
	if err := m.To(addresses.To...); err != nil {
		return nil, Permanent(fmt.Errorf("cannot use the recipients of mails: %w", err))
	}
	host := hostToken(msg.Run.Host)
	m.Subject(say.Clean(msg.Subject))
	m.SetDateWithValue(msg.Created)
	m.SetMessageIDWithValue(messageID(msg, addresses.From))
	m.SetGenHeader("Auto-Submitted", "auto-generated")
	m.SetGenHeader("X-Auto-Response-Suppress", "All")
	m.SetGenHeader("List-Id", "<"+host+".voltar>")
	m.SetGenHeader("X-Voltar-Verdict", string(msg.Run.Verdict()))
	if verdict := msg.Run.Verdict(); verdict == report.VerdictFailed || verdict == report.VerdictInterrupted {
		m.SetImportance(mail.ImportanceHigh)
	}
	m.SetBodyString(mail.TypeTextPlain, msg.Text)
	if msg.HTML != "" {
		m.AddAlternativeString(mail.TypeTextHTML, msg.HTML)
	}
	if msg.HTML != "" && len(msg.Trend) > 0 {
		err := m.EmbedReader("trend.png", bytes.NewReader(msg.Trend),
			mail.WithFileContentID("<"+TrendCID+">"), mail.WithFileContentType("image/png"))
		if err != nil {
			return nil, Permanent(fmt.Errorf("cannot attach the trend: %w", err))
		}
	}
	return m, nil
}

// messageID gives the identity of a mail. It lasts through all attempts, so that a server drops what it has had already, and
// never repeats: what is sent a second time on purpose is another mail. Its domain is the sender's, as servers expect.
func messageID(msg Message, from string) string {
	_, domain, _ := strings.Cut(bareAddress(from), "@")
	id := hostToken(msg.ID)
	if msg.Serial != "" { // an earlier version spooled mails without
		id += "." + hostToken(msg.Serial)
	}
	return id + "@" + hostToken(domain)
}

// hostToken keeps of a name what may stand in an identifier of a header.
func hostToken(name string) string {
	token := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		default:
			return '-'
		}
	}, name)
	if token = strings.Trim(token, "-."); token == "" {
		return "unknown"
	}
	return token[:min(len(token), 64)]
}
