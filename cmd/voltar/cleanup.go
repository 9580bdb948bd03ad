package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func (a *app) cleanupCommand() *cli.Command {
	return &cli.Command{
		Name: "cleanup", Usage: "remove what an interrupted run left",
		Description: "Removes the snapshots, maps and unfinished backups that a run which was killed has left. Only what the\n" +
			"journal of that run names, and what LVM's tags confirm, is touched. Each run does this by itself.",
		Action: a.cleanup,
	}
}

func (a *app) cleanup(c *cli.Context) error {
	s, err := a.setup(c)
	if err != nil {
		return err
	}
	engine, closeEngine, err := s.engine(nil)
	if err != nil {
		return err
	}
	defer closeEngine()
	removed, problem, err := engine.Cleanup(c.Context)
	if err != nil {
		return err
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
			fmt.Fprintln(a.stdout, "removed:", what)
		}
		if len(removed) == 0 && problem == nil {
			fmt.Fprintln(a.stdout, "There was nothing to clean up.")
		}
	}
	if problem != nil {
		s.log.Error(problem.Message, "hint", problem.Hint)
		return exitWith(exitAttention)
	}
	return nil
}
