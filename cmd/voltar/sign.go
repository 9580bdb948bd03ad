package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"voltar/internal/catalog"
	"voltar/internal/history"
	"voltar/internal/say"
	"voltar/internal/setup"
	"voltar/internal/sign"
)

func (a *app) signCommand() *cli.Command {
	return &cli.Command{
		Name: "sign", Usage: "sign backups of this host that are not signed", ArgsUsage: "VOLUME[@TIME]...",
		UsageText: "voltar sign '*' --dry-run # what has no signature\n" +
			"voltar sign web\n",
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
				return usageError(errors.New("name backups: VOLUME[@TIME], as `voltar list` shows them"))
			}
			return a.sign(c.Context, signOptions{
				setupOptions:  setupOptions{commonOptions: readCommon(c)},
				sourceOptions: readSource(c), backups: c.Args().Slice(), dryRun: c.Bool("dry-run"), force: c.Bool("force"),
			})
		},
	}
}

type signOptions struct {
	setupOptions
	sourceOptions
	backups       []string // volumes, patterns and backups
	dryRun, force bool
}

func (a *app) sign(ctx context.Context, o signOptions) error {
	if err := checkTimes(o.backups); err != nil {
		return err
	}
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return err
	}
	if s.Config.Sign.Key == "" {
		return usageError(say.WithHint(errors.New("there is no sign.key in the configuration"),
			"`ssh-keygen -t ed25519 -N '' -f /etc/voltar/sign_key` makes one; name it as key in [sign], and its public key in trusted_keys"))
	}
	stores, err := s.StoresFrom(o.from)
	if err != nil {
		return err
	}
	made, ofGuests, err := madeBy(s)
	if err != nil {
		return err
	}
	var meant meant // what is not signed says nothing of guests that counts; this host's own history does
	meant.entries = ofGuests
	if err := meant.expand(o.backups, volumesNamed(ctx, s, s.Host, stores, o.backups)); err != nil {
		return err
	}
	pass := sign.Pass{Host: s.Host, Made: made, Force: o.force, DryRun: o.dryRun, RunDir: s.Config.RunDir, Now: s.Now,
		Match: func(id catalog.ID) bool { return isNamed(id, meant.words) }}
	known := volumesNamed(ctx, s, s.Host, stores, meant.words)
	var unknown []error
	for _, word := range meant.words {
		if !known(word) {
			unknown = append(unknown, noBackupFor(word))
		}
	}
	lines, failed := []sign.Line{}, len(unknown) > 0
	for _, d := range stores {
		signed, err := signOn(ctx, &pass, d)
		if err != nil {
			say.Log(s.Log.Error, err, "destination", d.Name)
			failed = true
		}
		lines = append(lines, signed...)
	}
	if len(unknown) == len(meant.words) {
		return errors.Join(unknown...)
	}
	for _, err := range unknown {
		say.Log(s.Log.Error, err)
	}
	failed = failed || slices.ContainsFunc(lines, func(l sign.Line) bool { return l.State == sign.StateFailed || l.State == sign.StateLeft })
	if err := a.printSigned(lines, o.json); err != nil {
		return err
	}
	if failed {
		return exitWith(exitAttention)
	}
	return nil
}

func signOn(ctx context.Context, pass *sign.Pass, d setup.Destination) ([]sign.Line, error) {
	if d.Unfit != nil {
		return nil, d.Unfit
	}
	return pass.On(ctx, d.Name, d.Store)
}

// madeBy returns the backups that runs of this host made, by its history: the run and the backup, and whose disks they are of.
func madeBy(s *setup.Setup) (made map[sign.Maker]bool, ofGuests []catalog.Entry, err error) {
	runs, err := s.Past().List(0)
	if err != nil && len(runs) == 0 {
		return nil, nil, err
	}
	if err != nil {
		s.Log.Warn("the history cannot be read completely", "err", err)
	}
	made = map[sign.Maker]bool{}
	for _, run := range runs {
		if strings.HasPrefix(run.Command, "verify") || history.IsProof(run) { // names what others may have made
			continue
		}
		for _, v := range run.Volumes {
			made[sign.Maker{Run: run.ID, Backup: v.Backup}] = true
			if id, err := parseID(v.Backup); err == nil {
				e := catalog.Entry{ID: id, Run: run.ID, Identity: catalog.Identity(id.Ref.String())}
				if g := v.Guest; g != nil {
					e.Guest = catalog.Guest{ID: g.ID, Name: g.Name, Kind: g.Kind, Disk: g.Disk}
				}
				ofGuests = append(ofGuests, e)
			}
		}
	}
	return made, ofGuests, nil
}

func (a *app) printSigned(lines []sign.Line, asJSON bool) error {
	if asJSON {
		return a.printJSON(lines)
	}
	if len(lines) == 0 {
		say.Println(a.stdout, "All of these are signed.")
	}
	words := map[string]string{sign.StateWould: "would be signed"}
	table := a.newTable()
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
