package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/say"
	"voltar/internal/sign"
)

func (a *app) signCommand() *cli.Command {
	return &cli.Command{
		Name: "sign", Usage: "sign backups of this host that are not signed", ArgsUsage: "VOLUME[@TIME]...",
		Description: "For the backups from before there was a key. Whoever signs a backup vouches for what lies there: do it when\n" +
			"[sign] is new. A backup of a later time that is not signed was made, or changed, by somebody else. So only those\n" +
			"are signed that the history of this host names as made by one of its runs, unless --force takes all that are named.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "only those on destination `NAME`"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "print what would be signed, and sign nothing"},
			&cli.BoolFlag{Name: "force", Usage: "sign also what the history does not name, and what has a signature that does not count"},
		},
		Action: a.sign,
	}
}

// signLine is one backup that no trusted key had signed, and what became of it.
type signLine struct {
	Backup      string `json:"backup"`
	Destination string `json:"destination"`
	State       string `json:"state"` // signed, unsigned (of a dry run: it would be signed), left, failed
	Reason      string `json:"reason,omitempty"`
}

// States of a signLine.
const (
	signDone   = "signed"
	signWould  = "unsigned"
	signLeft   = "left"
	signFailed = "failed"
)

func (a *app) sign(c *cli.Context) error {
	if c.NArg() == 0 {
		return usageError{errors.New("name backups: VOLUME[@TIME], as `voltar list` shows them")}
	}
	s, err := a.setup(c)
	if err != nil {
		return err
	}
	if s.config.Sign.Key == "" {
		return usageError{errors.New("there is no sign.key in the configuration")}
	}
	stores, err := s.storesFrom(c.String("from"))
	if err != nil {
		return err
	}
	made, err := s.madeHere()
	if err != nil {
		return err
	}
	lines, failed := []signLine{}, false
	for _, d := range stores {
		strangers, err := s.strangersOn(c, d)
		if err != nil {
			say.Log(s.log.Error, err, "destination", d.name)
			failed = true
		}
		for _, id := range strangers {
			line := signLine{Backup: id.String(), Destination: d.name}
			if line.State, line.Reason, err = s.signOne(c, d, id, made); err != nil {
				line.State, line.Reason = signFailed, err.Error()
			}
			failed = failed || line.State == signFailed || line.State == signLeft
			lines = append(lines, line)
		}
	}
	if err := a.printSigned(c, lines); err != nil {
		return err
	}
	if failed {
		return exitWith(exitAttention)
	}
	return nil
}

// strangersOn lists the backups of this host on a destination that arguments name and no trusted key has signed.
func (s *setup) strangersOn(c *cli.Context, d namedStore) (strangers []catalog.ID, err error) {
	if d.unfit != nil {
		return nil, d.unfit
	}
	listing, err := catalog.List(c.Context, d.store, s.host, catalog.Filter{Now: s.now()})
	if err != nil {
		return nil, err
	}
	for _, u := range listing.Unreadable {
		if errors.Is(u.Err, catalog.ErrUntrusted) && isNamed(u.ID, c.Args().Slice()) {
			strangers = append(strangers, u.ID)
		}
	}
	return strangers, nil
}

// isNamed tells whether one of the arguments means a backup: VOLUME, a pattern of them, or VOLUME@TIME, cut short or not.
func isNamed(id catalog.ID, args []string) bool {
	for _, name := range args {
		when := ""
		if i := strings.LastIndexByte(name, '@'); i > 0 {
			name, when = name[:i], name[i+1:]
		}
		if (name == id.Ref.Name || refMatcher([]string{name})(id.Ref)) && strings.HasPrefix(catalog.FormatTime(id.Time), when) {
			return true
		}
	}
	return false
}

// madeHere returns the backups that runs of this host made, by its history: the run and the backup.
func (s *setup) madeHere() (map[[2]string]bool, error) {
	runs, err := s.past().List(0)
	if err != nil && len(runs) == 0 {
		return nil, err
	}
	if err != nil {
		s.log.Warn("the history cannot be read whole", "err", err)
	}
	made := map[[2]string]bool{}
	for _, run := range runs {
		if strings.HasPrefix(run.Command, "verify") { // names what others may have made
			continue
		}
		for _, v := range run.Volumes {
			made[[2]string{run.ID, v.Backup}] = true
		}
	}
	return made, nil
}

// signOne signs one backup, under the locks that keep runs from removing it meanwhile.
func (s *setup) signOne(c *cli.Context, d namedStore, id catalog.ID, made map[[2]string]bool) (state, reason string, err error) {
	unlock, err := s.lockBackup(c.Context, d, id.Ref, "voltar sign")
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	b, err := sign.ReadUnsigned(c.Context, d.store, id.Path(s.host))
	if err != nil {
		return "", "", err
	}
	switch {
	case c.Bool("force"):
	case b.Signature:
		return signLeft, "it has a signature that does not count: who changed it, or the trusted keys? --force signs it", nil
	case !made[[2]string{b.Manifest.Run, id.String()}]:
		return signLeft, fmt.Sprintf("the history of this host knows no run %s that made it; --force signs it", b.Manifest.Run), nil
	}
	if c.Bool("dry-run") {
		return signWould, "", nil
	}
	return signDone, "", b.Sign(c.Context)
}

// lockBackup takes the locks that keep runs from removing a backup.
func (s *setup) lockBackup(ctx context.Context, d namedStore, ref catalog.Ref, command string) (unlock func() error, err error) {
	locks, err := journal.NewLocks(s.config.RunDir, journal.Holder{Command: command, Started: time.Now()})
	if err != nil {
		return nil, err
	}
	volume, err := locks.TryLock(journal.ScopeVolume, ref.String())
	if err != nil {
		return nil, err
	}
	destination, err := locks.Lock(ctx, journal.ScopeDestination, d.store.String())
	if err != nil {
		return nil, errors.Join(err, volume.Unlock())
	}
	return func() error { return errors.Join(destination.Unlock(), volume.Unlock()) }, nil
}

func (a *app) printSigned(c *cli.Context, lines []signLine) error {
	if c.Bool("json") {
		return a.printJSON(lines)
	}
	if len(lines) == 0 {
		say.Println(a.stdout, "All of these are signed.")
	}
	words := map[string]string{signWould: "would be signed"}
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, line := range lines {
		word := words[line.State]
		if word == "" {
			word = line.State
		}
		if line.Reason != "" {
			word += ": " + line.Reason
		}
		say.Printf(table, "%s\t%s\t%s\n", line.Backup, line.Destination, word)
	}
	return table.Flush()
}
