package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"voltar/internal/backup"
	"voltar/internal/catalog"
	"voltar/internal/say"
)

func (a *app) volumesCommand() *cli.Command {
	return &cli.Command{
		Name: "volumes", Usage: "list what is backed up, and why the other volumes are not", ArgsUsage: "[VOLUME...]",
		UsageText: "voltar volumes # all of them, with the rule that leaves one out\n" +
			"voltar volumes 'nova-volumes/*'\n" +
			"voltar volumes web1 # the disks of a guest\n",
		Description: "Lists each logical volume of the host with the guest whose disk it is, where the host has guests, and the rule that\n" +
			"excludes it, the directories and dumps of the configuration, and what is wrong with the volume groups and guests: missing\n" +
			"disks, duplicate names, degraded RAID, a disk that two guests have.",
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

	Guest  *catalog.Guest `json:"guest,omitempty"`  // whose disk it is
	Orphan bool           `json:"orphan,omitempty"` // it could be a guest's disk, the host has guests, and it is of none
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
	for _, trouble := range slices.Concat(plan.Troubles(), plan.GuestTroubles) {
		say.Printf(a.stderr, "voltar: %s\n%s%s\n", trouble.What, say.HintLabel, trouble.Hint)
	}
	orphans := map[string]bool{}
	for _, v := range plan.Orphans() {
		orphans[v.UUID] = true
	}
	lines := []volumeLine{}
	for _, choice := range plan.Choices {
		v := choice.Volume
		lines = append(lines, volumeLine{
			Name: choice.Name(), UUID: v.UUID, Kind: string(v.Kind), SizeBytes: v.SizeBytes, Selected: choice.Rule == "", Rule: choice.Rule,
			Reason: choice.Reason, Guest: plan.GuestOf(v), Orphan: orphans[v.UUID],
		})
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
	withGuests := slices.ContainsFunc(lines, func(l volumeLine) bool { return l.Guest != nil })
	table := a.newTable()
	say.Printf(table, "VOLUME\t")
	if withGuests {
		say.Printf(table, "GUEST\t")
	}
	say.Printf(table, "SIZE\tKIND\tBACKED UP\n")
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
		say.Printf(table, "%s\t", line.Name)
		if withGuests {
			say.Printf(table, "%s\t", line.guest())
		}
		say.Printf(table, "%s\t%s\t%s\n", size, line.Kind, verdict)
	}
	return table.Flush()
}

// guest says whose disk a volume is.
func (l volumeLine) guest() string {
	switch {
	case l.Guest != nil:
		return l.Guest.String()
	case l.Orphan:
		return "of no guest"
	}
	return "-"
}

// kindOf is what a source is that is no volume: "directory" or "dump".
func kindOf(s backup.PreviewSource) string {
	kind, _, _ := strings.Cut(strings.TrimPrefix(s.Name, "@"), "/")
	return kind
}
