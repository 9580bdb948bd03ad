package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"voltar/internal/backup"
	"voltar/internal/say"
	"voltar/internal/setup"
)

// cancelTimeout is more than all that a run may take to let go of a volume.
const cancelTimeout = 15 * time.Minute

// cancelLine is the output of `voltar cancel --json`.
type cancelLine struct {
	Done string `json:"done"` // what was done, in words
}

func (a *app) cancelCommand() *cli.Command {
	return &cli.Command{
		Name: "cancel", Usage: "take a volume out of the current run", ArgsUsage: "VOLUME",
		UsageText: "voltar cancel web1 # all disks of a guest\n" +
			"voltar cancel nova-volumes/volume-00000001",
		Description: "Frees one volume at once, for example to extend it, which LVM refuses while the volume has a classic snapshot.\n" +
			"Removes its snapshot and discards what this run has archived of it. The run continues with the other volumes\n" +
			"and reports this one as cancelled. Returns when the volume is free.",
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usageError(errors.New("name one volume: VG/LV"))
			}
			cfg, err := setup.LoadConfig(readCommon(c).config)
			if err != nil {
				return usageError(err)
			}
			ctx, cancel := context.WithTimeoutCause(c.Context, cancelTimeout,
				say.WithHint(fmt.Errorf("the run has not let go of it in %s", cancelTimeout), "look at its log"))
			defer cancel()
			done, err := backup.Cancel(ctx, cfg.RunDir, cfg.Path(), c.Args().First())
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return a.printJSON(cancelLine{done})
			}
			say.Println(a.stdout, done)
			return nil
		},
	}
}
