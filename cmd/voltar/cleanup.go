package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"voltar/internal/say"
	"voltar/internal/store/s3"
)

func (a *app) cleanupCommand() *cli.Command {
	return &cli.Command{
		Name: "cleanup", Usage: "remove what an interrupted run left",
		UsageText: "voltar cleanup\n" +
			"voltar cleanup --forget-destination /mnt/old\n",
		Description: "Removes the snapshots, maps and unfinished backups that a killed run has left. Touches only what that run's journal\n" +
			"names and LVM's tags confirm. Each run does this by itself.",
		Flags: []cli.Flag{&cli.StringSliceFlag{Name: "forget-destination", Usage: "forget what was left in `PLACE`, which is no longer a " +
			"destination of the configuration (\"/backups\", \"s3://host/bucket\")"}},
		Action: func(c *cli.Context) error {
			return a.cleanup(c.Context, cleanupOptions{setupOptions{commonOptions: readCommon(c)}, c.StringSlice("forget-destination")})
		},
	}
}

type cleanupOptions struct {
	setupOptions
	forget []string // places that are no longer a destination
}

func (a *app) cleanup(ctx context.Context, o cleanupOptions) error {
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return err
	}
	for _, d := range s.Stores {
		if slices.Contains(o.forget, d.Store.String()) {
			return usageError(fmt.Errorf("the destination %s leads to %s: what was left there is removed", d.Name, d.Store))
		}
	}
	engine, err := s.Engine(nil)
	if err != nil {
		return err
	}
	removed, problem, err := engine.Cleanup(ctx, o.forget)
	if err != nil {
		return err
	}
	for _, place := range o.forget {
		uploads, err := s3.ForgetUploads(s.BucketStateDir(), place)
		for _, key := range uploads {
			removed = append(removed, fmt.Sprintf("the note of an unfinished upload of %s to %s", key, place))
		}
		if err != nil {
			return err
		}
	}
	if o.json {
		if err := a.printJSON(removed); err != nil {
			return err
		}
	} else {
		for _, what := range removed {
			say.Println(a.stdout, "removed:", what)
		}
		if len(removed) == 0 && problem == nil {
			say.Println(a.stdout, "There was nothing to clean up.")
		}
	}
	if problem != nil {
		s.Log.Error(problem.Message, say.HintAttr(problem.Hint))
		return exitWith(exitAttention)
	}
	return nil
}
