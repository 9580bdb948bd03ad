package main

import (
	"fmt"
	"log/slog"

	"github.com/urfave/cli/v2"

	"voltar/internal/backup"
	"voltar/internal/catalog"
	"voltar/internal/config"
	"voltar/internal/deliver"
	"voltar/internal/logging"
	"voltar/internal/setup"
)

// Each command reads its flags and arguments into one struct, in its Action, and knows the command line no further. What
// several commands take is here.

// commonOptions are taken by every command.
type commonOptions struct {
	config   string // the file; "" for the usual one
	logLevel string
	json     bool
}

// configVariable, in the environment, names the configuration where --config does not.
const configVariable = "VOLTAR_CONFIG"

// commonFlags stand before or after the name of the command.
func commonFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "read the configuration from `FILE`", EnvVars: []string{configVariable}},
		&cli.StringFlag{Name: "log-level", Usage: "log at `LEVEL`: debug, info, warn or error"},
		&cli.BoolFlag{Name: "json", Usage: "print results as JSON"},
	}
}

func readCommon(c *cli.Context) commonOptions {
	return commonOptions{config: c.String("config"), logLevel: c.String("log-level"), json: c.Bool("json")}
}

// setupOptions are those of a command that change what it works with.
type setupOptions struct {
	commonOptions
	folder       string               // the one destination, instead of the configured ones
	untrusted    bool                 // accept backups that no trusted key has signed
	lookup       bool                 // somebody waits for the answer, which must not take long
	readOnly     bool                 // backups are read, and nothing else: what else is wrong in the configuration does not matter
	whenDown     string               // what to do about a destination that does not answer; "" for the usual
	snapshotSize *config.SnapshotSize // instead of what the configuration says
	mustBeQuiet  bool                 // what cannot be frozen fails
}

// sourceOptions say where backups are looked for, and whose.
type sourceOptions struct {
	from       string   // a destination's name, or a folder
	host       string   // "" for this one
	identities []string // files of secret keys
}

// fromFlag chooses the destination that a backup is read from.
func fromFlag() cli.Flag {
	return &cli.StringFlag{Name: "from", Usage: "read from destination `NAME`, or a folder (with a slash); default: the first that has it"}
}

// hostFlag chooses the host whose backups are meant.
func hostFlag() cli.Flag {
	return &cli.StringFlag{Name: "host", Usage: "use the backups of host `NAME` (default: this host)",
		Action: func(_ *cli.Context, name string) error {
			if err := catalog.CheckHost(name); err != nil {
				return usageError(fmt.Errorf("--host: %w", err))
			}
			return nil
		}}
}

func untrustedFlag() cli.Flag {
	return &cli.BoolFlag{Name: "untrusted", Usage: "also accept backups that no key in sign.trusted_keys has signed"}
}

// identityFlag names the secret keys that open encrypted backups. They come by this flag alone, never by the
// configuration: the host that makes the backups must not be able to read them.
func identityFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "identity", Aliases: []string{"i"},
		Usage: "decrypt with the age identity in `FILE` (- for standard input); may be repeated"}
}

// privilegesFlag is shared by the commands that put files of a guest into a folder of the host.
func privilegesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "privileges", Usage: "into a folder: also restore set-id bits, capabilities and system attributes"}
}

func dryRunFlag(usage string) cli.Flag {
	return &cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: usage}
}

func readSource(c *cli.Context) sourceOptions {
	return sourceOptions{from: c.String("from"), host: c.String("host"), identities: c.StringSlice("identity")}
}

// setup reads the configuration and opens the destinations.
func (a *app) setup(o setupOptions) (*setup.Setup, error) {
	return setup.New(o.logLevel, a.setupOptions(o))
}

func (a *app) setupOptions(o setupOptions) setup.Options {
	return setup.Options{
		Config: o.config, Version: programVersion(), Folder: o.folder, Untrusted: o.untrusted, Lookup: o.lookup,
		ReadOnly: o.readOnly, WhenDown: o.whenDown,
		SnapshotSize: o.snapshotSize, MustBeQuiet: o.mustBeQuiet, Now: a.now, AtEnd: a.atEnd,
		Log: func(level string) (*slog.Logger, error) { return logging.New(level, a.stderr, a.rawErr) },
	}
}

// setupEngine is setup, for commands that work with an engine and show no progress.
func (a *app) setupEngine(o setupOptions) (*setup.Setup, *backup.Engine, error) {
	s, err := a.setup(o)
	if err != nil {
		return nil, nil, err
	}
	engine, err := s.Engine(nil)
	return s, engine, err
}

// delivery is what knows the ways of reports.
func (a *app) delivery(s *setup.Setup) *deliver.Delivery {
	return &deliver.Delivery{Config: s.Config, Host: s.Host, Version: programVersion(), Runner: s.Runner, Log: s.Log, Now: a.now}
}
