package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"voltar/internal/check"
	"voltar/internal/say"
)

func (a *app) checkCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "check that everything a run needs is in place",
		UsageText: "voltar check\n" +
			"voltar check --send-test-mail # also try whether the report arrives\n",
		Description: "Checks the configuration, tools, kernel, privileges, volume groups, destinations and the mail server, and prints\n" +
			"what to do about each problem. Changes nothing.",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "send-test-mail", Usage: "send a test mail to the configured recipients"}},
		Action: func(c *cli.Context) error {
			return a.check(c.Context, setupOptions{commonOptions: readCommon(c), lookup: true}, c.Bool("send-test-mail"))
		},
	}
}

func (a *app) check(ctx context.Context, o setupOptions, sendTestMail bool) error {
	s, err := a.setup(o)
	if err != nil {
		return err
	}
	findings := check.All(ctx, s, a.delivery(s), sendTestMail)
	if o.json {
		err = a.printJSON(findings)
	} else {
		err = a.printFindings(findings)
	}
	if err != nil {
		return err
	}
	for _, f := range findings {
		if !f.OK {
			return exitWith(exitAttention)
		}
	}
	return nil
}

func (a *app) printFindings(findings []check.Finding) error {
	for _, f := range findings {
		mark, color := "ok  ", say.Green
		if !f.OK {
			mark, color = "FAIL", say.Red
		}
		if _, err := say.Painted(a.stdout, "", color, mark, fmt.Sprintf("  %-14s %s\n", f.Check, say.Clean(f.Detail))); err != nil {
			return err
		}
		if f.Hint != "" {
			for hint := range strings.Lines(f.Hint) {
				say.Printf(a.stdout, "      %-14s %s%s\n", "", say.HintLabel, strings.TrimSuffix(hint, "\n"))
			}
		}
	}
	return nil
}
