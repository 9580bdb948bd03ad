package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"voltar/internal/backup"
	"voltar/internal/say"
)

func (a *app) volumesCommand() *cli.Command {
	return &cli.Command{
		Name: "volumes", Usage: "list what is backed up, and why the other volumes are not", ArgsUsage: "[VOLUME...]",
		UsageText: "voltar volumes # all of them, with the rule that leaves one out\n" +
			"voltar volumes 'nova-volumes/*'\n",
		Description: "Lists each logical volume of the host with the rule that excludes it, the directories and dumps of the configuration,\n" +
			"and what is wrong with the volume groups: missing disks, duplicate names, degraded RAID.",
		Action: func(c *cli.Context) error {
			return a.volumes(c.Context, setupOptions{commonOptions: readCommon(c)}, c.Args().Slice())
		},
	}
}

// volumeLine is one volume in the output of `voltar volumes`.
type volumeLine struct {
	Name      string `json:"name"`           // VG/LV, or @KIND/NAME
	UUID      string `json:"uuid,omitempty"` // of a volume
	Kind      string `json:"kind"`           // of a volume, or directory, dump
	SizeBytes int64  `json:"size"`           // -1 for what is no volume
	Selected  bool   `json:"selected"`
	Rule      string `json:"rule,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

func (a *app) volumes(ctx context.Context, o setupOptions, names []string) error {
	_, engine, err := a.setupEngine(o)
	if err != nil {
		return err
	}
	plan, sources, err := engine.Look(ctx, names)
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
	for _, s := range sources {
		lines = append(lines, volumeLine{Name: s.Name, Kind: kindOf(s), SizeBytes: -1, Selected: true, Reason: s.Problem})
	}
	if o.json {
		return a.printJSON(lines)
	}
	if len(plan.Choices) == 0 {
		say.Println(a.stdout, "There is no logical volume on this host.")
	}
	if len(lines) == 0 {
		return nil
	}
	table := a.newTable()
	say.Printf(table, "VOLUME\tSIZE\tKIND\tBACKED UP\n")
	for _, line := range lines {
		verdict, size := "yes", "-"
		switch {
		case !line.Selected:
			verdict = fmt.Sprintf("no: %s (%s)", line.Reason, line.Rule)
		case line.Reason != "":
			verdict = "yes, but now: " + line.Reason
		}
		if line.SizeBytes >= 0 {
			size = say.Size(line.SizeBytes)
		}
		say.Printf(table, "%s\t%s\t%s\t%s\n", line.Name, size, line.Kind, verdict)
	}
	return table.Flush()
}

// kindOf is what a source is that is no volume: "directory" or "dump".
func kindOf(s backup.PreviewSource) string {
	kind, _, _ := strings.Cut(strings.TrimPrefix(s.Name, "@"), "/")
	return kind
}
