package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"voltar/internal/say"
)

func (a *app) volumesCommand() *cli.Command {
	return &cli.Command{
		Name: "volumes", Usage: "show what would be backed up, and why not the rest", ArgsUsage: "[VOLUME...]",
		Description: "Lists each logical volume of the host with the rule that takes it in or leaves it out, and says what is wrong with\n" +
			"volume groups: missing disks, names that are there twice, RAID that has lost a part.",
		Action: a.volumes,
	}
}

// volumeLine is one volume in the output of `voltar volumes`.
type volumeLine struct {
	Name      string `json:"name"`
	UUID      string `json:"uuid"`
	Kind      string `json:"kind"`
	SizeBytes int64  `json:"size"`
	Selected  bool   `json:"selected"`
	Rule      string `json:"rule,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

func (a *app) volumes(c *cli.Context) error {
	s, err := a.setup(c)
	if err != nil {
		return err
	}
	engine, closeEngine, err := s.engine(nil)
	if err != nil {
		return err
	}
	defer closeEngine()
	plan, err := engine.Plan(c.Context, c.Args().Slice())
	if err != nil {
		return err
	}
	for _, trouble := range plan.Troubles() {
		say.Printf(a.stderr, "voltar: %s\n%s%s\n", trouble.What, say.HintLabel, trouble.Hint)
	}
	lines := []volumeLine{}
	for _, choice := range plan.Choices {
		v := choice.Volume
		lines = append(lines, volumeLine{choice.Name(), v.UUID, string(v.Kind), v.SizeBytes, choice.Rule == "", choice.Rule, choice.Reason})
	}
	if c.Bool("json") {
		return a.printJSON(lines)
	}
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	say.Printf(table, "VOLUME\tSIZE\tKIND\tBACKED UP\n")
	for _, line := range lines {
		verdict := "yes"
		if !line.Selected {
			verdict = fmt.Sprintf("no: %s (%s)", line.Reason, line.Rule)
		}
		say.Printf(table, "%s\t%s\t%s\t%s\n", line.Name, say.Size(line.SizeBytes), line.Kind, verdict)
	}
	return table.Flush()
}
