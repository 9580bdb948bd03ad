package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"voltar/internal/say"
)

func (a *app) volumesCommand() *cli.Command {
	return &cli.Command{
		Name: "volumes", Usage: "list the volumes that are backed up, and why the others are not", ArgsUsage: "[VOLUME...]",
		UsageText: "voltar volumes # all of them, with the rule that leaves one out\n" +
			"voltar volumes 'nova-volumes/*'\n",
		Description: "Lists each logical volume of the host with the rule that selects or excludes it, and what is wrong with the\n" +
			"volume groups: missing disks, duplicate names, degraded RAID.",
		Action: func(c *cli.Context) error {
			return a.volumes(c.Context, setupOptions{commonOptions: readCommon(c)}, c.Args().Slice())
		},
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

func (a *app) volumes(ctx context.Context, o setupOptions, names []string) error {
	_, engine, err := a.setupEngine(o)
	if err != nil {
		return err
	}
	plan, err := engine.Plan(ctx, names)
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
	if o.json {
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
