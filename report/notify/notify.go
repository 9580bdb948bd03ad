// Package notify tells people and machines how a run went: by mail (SMTP or a sendmail command), webhook and dead-man
// ping. What cannot be delivered is kept in a spool and sent with a later run, oldest first; a message is given up
// only after that, when it is too old, and then the next report says so.
package notify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"voltar/report"
)

// TrendCID is the content id under which a mail carries the picture of the trend.
const TrendCID = "trend@voltar"

// Message is one report, rendered: what is sent and, where that fails, what is spooled.
type Message struct {
	ID      string     `json:"id"`      // the run's
	Serial  string     `json:"serial"`  // of this message: one that is tried again keeps it, and no other ever has it
	Created time.Time  `json:"created"` // when the run ended
	Subject string     `json:"subject"`
	Text    string     `json:"text"`
	HTML    string     `json:"html,omitempty"`
	Trend   []byte     `json:"trend,omitempty"` // PNG, which the HTML names by TrendCID
	Run     report.Run `json:"run"`
}

// NewMessage renders a run.
func NewMessage(run report.Run, opts report.Options) (Message, error) {
	trend, err := report.TrendPNG(append(slices.Clone(opts.History), report.PointOf(run)))
	if err != nil {
		return Message{}, err
	}
	opts.TrendCID = ""
	if trend != nil {
		opts.TrendCID = TrendCID
	}
	html, err := report.HTML(run, opts)
	if err != nil {
		return Message{}, err
	}
	return Message{
		ID: run.ID, Serial: rand.Text(), Created: run.Ended, Subject: report.Subject(run), Text: report.Text(run, opts), HTML: html,
		Trend: trend, Run: run,
	}, nil
}

// Channel is one way to deliver messages.
type Channel interface {
	// Name tells this channel from the others of one spool, and stays the same from run to run.
	Name() string
	// Send delivers a message once, without trying again. After nil it is delivered. An error that another attempt
	// cannot mend is wrapped by Permanent; one that reports a delivery to some only by Partial. Errors hold no secrets.
	Send(ctx context.Context, msg Message) error
}

// When says after which runs a channel is used.
type When string

// Values of When.
const (
	Always    When = "always"
	OnFailure When = "failure" // the run failed or was interrupted
	OnChange  When = "change"  // the verdict, or which volumes are not good, differs from the last run's
)

// Route is a channel and when it is used. The zero When is Always.
type Route struct {
	Channel Channel
	When    When
}

// wants says whether run is to be sent. previous is nil when there was no earlier run.
func (w When) wants(run report.Run, previous *report.Run) bool {
	switch w {
	case OnFailure:
		verdict := run.Verdict()
		return verdict == report.VerdictFailed || verdict == report.VerdictInterrupted
	case OnChange:
		return previous == nil || run.Verdict() != previous.Verdict() || !slices.Equal(notGood(run), notGood(*previous))
	default:
		return true
	}
}

func notGood(run report.Run) []string {
	names := run.NotGood()
	slices.Sort(names)
	return names
}

// Options of New. Only Spool has no default.
type Options struct {
	Spool    Spool
	Retry    Retry
	MaxAge   time.Duration // of a spooled message; 0 means 14 days
	MaxCount int           // of spooled messages; 0 means 200
	Now      func() time.Time
	Log      *slog.Logger
}

// Notifier delivers messages over routes. It is not safe for concurrent use.
type Notifier struct {
	routes []Route
	opts   Options
}

// New returns a Notifier.
func New(routes []Route, opts Options) *Notifier {
	if opts.MaxAge == 0 {
		opts.MaxAge = 14 * 24 * time.Hour
	}
	if opts.MaxCount == 0 {
		opts.MaxCount = 200
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Notifier{routes: routes, opts: opts}
}

// Deliver sends a message over every route that wants it, over all at once: one that hangs takes none of the others' time.
// What fails is spooled, and the error says what: the backups' worth is not touched by it. previous is the run before, nil
// when there was none. A Partial delivery counts as delivered and its error is returned as well.
func (n *Notifier) Deliver(ctx context.Context, msg Message, previous *report.Run) error {
	errs := make([]error, len(n.routes))
	var sending sync.WaitGroup
	for i, route := range n.routes {
		if route.When.wants(msg.Run, previous) {
			sending.Go(func() { errs[i] = n.deliver(ctx, route.Channel, msg) })
		}
	}
	sending.Wait()
	return errors.Join(errs...)
}

// deliver sends a message over one channel, or spools it.
func (n *Notifier) deliver(ctx context.Context, channel Channel, msg Message) error {
	name := channel.Name()
	attempts, err := n.opts.Retry.do(ctx, func() error { return channel.Send(ctx, msg) })
	if err == nil {
		n.opts.Log.Info("report delivered", "channel", name, "run", msg.ID)
		return nil
	}
	err = fmt.Errorf("report over %s: %w", name, err)
	if isPartial(err) {
		return err
	}
	entry := Entry{Channel: name, Message: msg, Attempts: attempts, LastError: err.Error()}
	if spoolErr := n.opts.Spool.Put(entry); spoolErr != nil {
		return errors.Join(err, fmt.Errorf("report over %s is lost: %w", name, spoolErr))
	}
	return fmt.Errorf("%w; it is kept and goes out with the next run", err)
}

// Flush sends what earlier runs could not, over all channels at once, the oldest first over each. It is called before
// tonight's report is rendered, because what it returns belongs in there: messages given up, files of the spool that cannot
// be read, a spool that fails. A message that still cannot be sent stays, which is no problem yet. When another process is
// flushing the same spool, nothing is done.
func (n *Notifier) Flush(ctx context.Context) []report.Problem {
	release, ok, err := n.opts.Spool.Lock()
	if err != nil {
		return []report.Problem{{Message: fmt.Sprintf("unsent reports: %v", err)}}
	}
	if !ok {
		return nil
	}
	problems := n.flush(ctx)
	if err := release(); err != nil {
		problems = append(problems, report.Problem{Message: fmt.Sprintf("unsent reports: %v", err)})
	}
	return problems
}

func (n *Notifier) flush(ctx context.Context) []report.Problem {
	entries, err := n.opts.Spool.Entries()
	var problems []report.Problem
	if err != nil {
		problems = append(problems, report.Problem{Message: fmt.Sprintf("unsent reports: %v", err)})
	}
	channels := make(map[string]*queue)
	over := len(entries) - n.opts.MaxCount
	for i, entry := range entries {
		q := channels[entry.Channel]
		if q == nil {
			q = &queue{n: n}
			if at := slices.IndexFunc(n.routes, func(r Route) bool { return r.Channel.Name() == entry.Channel }); at >= 0 {
				q.channel = n.routes[at].Channel
			}
			channels[entry.Channel] = q
		}
		q.entries = append(q.entries, waiting{entry, i < over})
	}
	var sending sync.WaitGroup
	for _, q := range channels {
		sending.Go(func() { q.flush(ctx) })
	}
	sending.Wait()
	for _, name := range slices.Sorted(maps.Keys(channels)) {
		problems = append(problems, channels[name].problems...)
	}
	return problems
}

// queue is what waits for one channel.
type queue struct {
	n        *Notifier
	channel  Channel // nil when it is no longer configured
	entries  []waiting
	down     bool // it failed just now: what follows waits its turn
	problems []report.Problem
}

type waiting struct {
	Entry
	isOver bool // there are more than are kept
}

func (q *queue) flush(ctx context.Context) {
	for _, entry := range q.entries {
		q.problems = append(q.problems, q.send(ctx, entry)...)
	}
}

func (q *queue) send(ctx context.Context, entry waiting) (problems []report.Problem) {
	n := q.n
	sendErr := errors.New(entry.LastError)
	switch {
	case q.channel == nil:
		sendErr = fmt.Errorf("channel %q is no longer configured", entry.Channel)
	case !q.down && ctx.Err() == nil:
		// One attempt only: tonight's message will find out with patience whether the channel works.
		sendErr = q.channel.Send(ctx, entry.Message)
		entry.Attempts++
		q.down = sendErr != nil && !isPermanent(sendErr) && !isPartial(sendErr)
	}
	if sendErr == nil || isPartial(sendErr) {
		n.opts.Log.Info("kept report delivered", "channel", entry.Channel, "run", entry.Message.ID)
		if sendErr != nil {
			problems = append(problems, report.Problem{Message: fmt.Sprintf("kept report over %s: %v", entry.Channel, sendErr)})
		}
		return append(problems, n.drop(entry.Entry)...)
	}
	age := n.opts.Now().Sub(entry.Message.Created)
	if age > n.opts.MaxAge || entry.isOver {
		return append(n.drop(entry.Entry), report.Problem{
			Message: fmt.Sprintf("report %q of %s was given up after %d attempts: %v", entry.Message.Subject,
				entry.Message.Created.UTC().Format("2006-01-02 15:04 MST"), entry.Attempts, sendErr),
			Hint: "voltar report shows it; voltar check tries the mail server",
		})
	}
	entry.LastError = sendErr.Error()
	if err := n.opts.Spool.Put(entry.Entry); err != nil {
		problems = append(problems, report.Problem{Message: fmt.Sprintf("unsent reports: %v", err)})
	}
	return problems
}

func (n *Notifier) drop(entry Entry) []report.Problem {
	if err := n.opts.Spool.Remove(entry); err != nil {
		return []report.Problem{{Message: fmt.Sprintf("unsent reports: %v", err), Hint: "it may arrive twice"}}
	}
	return nil
}
