package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/say"
	"voltar/internal/sign"
)

func (a *app) signCommand() *cli.Command {
	return &cli.Command{
		Name: "sign", Usage: "sign backups of this host that are not signed", ArgsUsage: "VOLUME[@TIME]...",
		Description: "Signs backups from before there was a key. Whoever signs a backup vouches for what is stored there: do it when\n" +
			"[sign] is new. A later backup without a signature was made, or changed, by somebody else. So this signs only the\n" +
			"backups that this host's history names as made by one of its runs, unless --force takes all that are named.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "sign only on destination `NAME`"},
			dryRunFlag("print what would be signed, and sign nothing"),
			&cli.BoolFlag{Name: "force", Usage: "also sign what the history does not name, and what has a signature that does not count"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usageError{errors.New("name backups: VOLUME[@TIME], as `voltar list` shows them")}
			}
			return a.sign(c.Context, signOptions{
				setupOptions:  setupOptions{commonOptions: readCommon(c)},
				sourceOptions: readSource(c), backups: c.Args().Slice(), dryRun: c.Bool("dry-run"), force: c.Bool("force"),
			})
		},
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

type signOptions struct {
	setupOptions
	sourceOptions
	backups       []string // volumes, patterns and backups
	dryRun, force bool
}

func (a *app) sign(ctx context.Context, o signOptions) error {
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return err
	}
	if s.config.Sign.Key == "" {
		return usageError{errors.New("there is no sign.key in the configuration")}
	}
	stores, err := s.storesFrom(o.from)
	if err != nil {
		return err
	}
	made, err := s.madeHere()
	if err != nil {
		return err
	}
	lines, failed := []signLine{}, false
	for _, d := range stores {
		strangers, err := s.strangersOn(ctx, d, o.backups)
		if err != nil {
			say.Log(s.log.Error, err, "destination", d.Name)
			failed = true
		}
		for _, id := range strangers {
			line := signLine{Backup: id.String(), Destination: d.Name}
			if line.State, line.Reason, err = s.signOne(ctx, d, id, made, o); err != nil {
				line.State, line.Reason = signFailed, err.Error()
			}
			failed = failed || line.State == signFailed || line.State == signLeft
			lines = append(lines, line)
		}
	}
	if err := a.printSigned(lines, o.json); err != nil {
		return err
	}
	if failed {
		return exitWith(exitAttention)
	}
	return nil
}

// strangersOn lists the backups of this host on a destination that are named and that no trusted key has signed.
func (s *setup) strangersOn(ctx context.Context, d openDestination, names []string) (strangers []catalog.ID, err error) {
	if d.Unfit != nil {
		return nil, d.Unfit
	}
	listing, err := catalog.List(ctx, d.Store, s.host, catalog.Filter{Now: s.now()})
	if err != nil {
		return nil, err
	}
	for _, u := range listing.Unreadable {
		if errors.Is(u.Err, catalog.ErrUntrusted) && isNamed(u.ID, names) {
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
		s.log.Warn("the history cannot be read completely", "err", err)
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
func (s *setup) signOne(
	ctx context.Context, d openDestination, id catalog.ID, made map[[2]string]bool, o signOptions,
) (state, reason string, err error) {
	unlock, err := journal.LockBackup(ctx, s.config.RunDir, "voltar sign", id.Ref.String(), d.Store.String())
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	b, err := sign.ReadUnsigned(ctx, d.Store, id.Path(s.host))
	if err != nil {
		return "", "", err
	}
	switch {
	case o.force:
	case b.Signature:
		return signLeft, "it has a signature that does not count: who changed it, or the trusted keys? --force signs it", nil
	case !made[[2]string{b.Manifest.Run, id.String()}]:
		return signLeft, fmt.Sprintf("the history of this host knows no run %s that made it; --force signs it", b.Manifest.Run), nil
	}
	if o.dryRun {
		return signWould, "", nil
	}
	return signDone, "", b.Sign(ctx)
}

func (a *app) printSigned(lines []signLine, asJSON bool) error {
	if asJSON {
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
