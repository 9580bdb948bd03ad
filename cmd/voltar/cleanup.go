package main

import (
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"voltar/internal/say"
	"voltar/internal/store/s3"
)

func (a *app) cleanupCommand() *cli.Command {
	return &cli.Command{
		Name: "cleanup", Usage: "remove what an interrupted run left",
		Description: "Removes the snapshots, maps and unfinished backups that a run which was killed has left. Only what the\n" +
			"journal of that run names, and what LVM's tags confirm, is touched. Each run does this by itself.",
		Flags: []cli.Flag{&cli.StringSliceFlag{Name: "forget-destination", Usage: "give up what was left in `PLACE`, to which no " +
			"destination of the configuration leads any more (\"/backups\", \"s3://host/bucket\")"}},
		Action: a.cleanup,
	}
}

func (a *app) cleanup(c *cli.Context) error {
	s, err := a.setup(c)
	if err != nil {
		return err
	}
	lost := c.StringSlice("forget-destination")
	for _, d := range s.stores {
		if slices.Contains(lost, d.store.String()) {
			return usageError{fmt.Errorf("the destination %s leads to %s: what was left there is removed", d.name, d.store)}
		}
	}
	engine, closeEngine, err := s.engine(nil)
	if err != nil {
		return err
	}
	defer closeEngine()
	removed, problem, err := engine.Cleanup(c.Context, lost)
	if err != nil {
		return err
	}
	for _, place := range lost {
		uploads, err := s3.ForgetUploads(s.bucketStateDir(), place)
		for _, key := range uploads {
			removed = append(removed, fmt.Sprintf("the note of an unfinished upload of %s to %s", key, place))
		}
		if err != nil {
			return err
		}
	}
	if c.Bool("json") {
		if removed == nil {
			removed = []string{}
		}
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
		s.log.Error(problem.Message, say.HintAttr(problem.Hint))
		return exitWith(exitAttention)
	}
	return nil
}
