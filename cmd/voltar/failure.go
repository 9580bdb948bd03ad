package main

import (
	"context"
	"errors"

	"voltar/internal/setup"

	"github.com/urfave/cli/v2"
)

func (a *app) reportFailureCommand() *cli.Command {
	return &cli.Command{
		Name: "report-failure", Usage: "report a unit of systemd that failed", ArgsUsage: "UNIT", Hidden: true,
		Description: "Reports a unit that failed, unless its run has reported that itself: the run was killed or died, or the\n" +
			"configuration cannot be read. If the configured ways do not work, or there are none, mails root with sendmail.\n" +
			"voltar-failure@.service runs it.",
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usageError(errors.New("name one unit of systemd"))
			}
			return a.reportFailure(c.Context, setupOptions{commonOptions: readCommon(c)}, c.Args().First())
		},
	}
}

func (a *app) reportFailure(ctx context.Context, o setupOptions, unit string) error {
	s, configErr := a.setup(o)
	if configErr != nil {
		var err error
		if s, err = setup.Emergency(o.logLevel, a.setupOptions(o)); err != nil {
			return err
		}
	}
	return a.delivery(s).Failure(ctx, unit, configErr)
}
