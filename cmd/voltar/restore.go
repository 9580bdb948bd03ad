package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/urfave/cli/v2"

	"voltar/internal/catalog"
	"voltar/internal/config"
	"voltar/internal/drill"
	"voltar/internal/history"
	"voltar/internal/progress"
	"voltar/internal/restore"
	"voltar/internal/say"
	"voltar/internal/setup"
	"voltar/report"
)

func (a *app) restoreCommand() *cli.Command {
	return &cli.Command{
		Name: "restore", Usage: "restore a volume from a backup", ArgsUsage: "VOLUME[@TIME]",
		UsageText: "voltar restore web --dry-run # every step, and what is in the way\n" +
			"voltar restore web # the newest, to where it was\n" +
			"voltar restore web@2026-11-20 --to-lv vg0/restored\n" +
			"voltar restore web --to-image /var/tmp/web.img\n" +
			"voltar restore --guest web1 --as web2 --define # all its disks, as another guest\n" +
			"voltar restore web --from /mnt/disk/ --host vmhost3 # on any machine\n",
		Description: "Makes the volume as it was: boot code, partition table, filesystems and files. The default target is the volume of\n" +
			"the same name, which is created if it is missing. A target that holds anything is refused without --force; a\n" +
			"target that is in use is always refused.",
		Flags: []cli.Flag{untrustedFlag(),
			fromFlag(),
			hostFlag(),
			&cli.StringFlag{Name: "guest", Usage: "restore all disks of `GUEST[@TIME]`, of one moment, and its definition"},
			&cli.StringFlag{Name: "as", Usage: "with --guest: as another guest beside it, of the name (or VMID) `NAME`"},
			&cli.StringFlag{Name: "vg", Usage: "with --guest: to the volume group `NAME`"},
			&cli.BoolFlag{Name: "define", Usage: "with --guest: give its definition to libvirt or Proxmox VE"},
			&cli.StringFlag{Name: "to-lv", Usage: "restore to the volume `VG/LV`"},
			&cli.StringFlag{Name: "to-device", Usage: "restore to the block device `PATH`"},
			&cli.StringFlag{Name: "to-image", Usage: "restore to the new raw image `FILE`"},
			&cli.StringFlag{Name: "to-dir", Usage: "extract the files into the folder `DIR`"},
			privilegesFlag(),
			&cli.StringFlag{Name: "size", Usage: "make the volume or image `SIZE` large; it may be larger or smaller than before"},
			&cli.BoolFlag{Name: "grow", Usage: "let the last partition fill a larger target"},
			&cli.BoolFlag{Name: "classic", Usage: "create the volume outside any thin pool"},
			&cli.StringFlag{Name: "thin-pool", Usage: "create the volume in the thin pool `NAME`"},
			&cli.StringSliceFlag{Name: "partition", Usage: "restore only the partition `pN`; may be repeated"},
			&cli.StringSliceFlag{Name: "path", Usage: "restore only files that match `PATTERN`; may be repeated"},
			&cli.StringFlag{Name: "verify", Value: "first", Usage: "check sums `WHEN`: first (before writing), stream (while reading) or none"},
			identityFlag(),
			&cli.BoolFlag{Name: "keep-going", Usage: "restore what is left of a damaged backup, and list what is lost"},
			&cli.BoolFlag{Name: "force", Usage: "overwrite what the target holds"},
			dryRunFlag("print every step, and do nothing"),
		},
		Action: func(c *cli.Context) error {
			o, err := readRestore(c)
			if err != nil {
				return usageError(err)
			}
			if o.guest.name != "" {
				return a.restoreGuest(c.Context, o)
			}
			return a.restore(c.Context, o)
		},
	}
}

type restoreOptions struct {
	setupOptions
	sourceOptions
	backup  string
	guest   guestOptions
	dryRun  bool
	request restore.Request // but for what is looked up: the backup and what decrypts it
}

func (a *app) restore(ctx context.Context, o restoreOptions) error {
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return err
	}
	req := o.request
	if req.Decrypt, err = a.decrypt(s, o.identities, req.KeepGoing); err != nil {
		return err
	}
	d, found, err := s.FindBackup(ctx, o.from, o.host, o.backup)
	if err == nil {
		err = refuseWithin(ctx, s, req.Target)
	}
	if err != nil {
		return err
	}
	req.Backup, req.Store, req.Destination = found, d.Store, d.Name
	bars := progress.NewWork(a.screen, s.Log, "restoring", "")
	host := s.OwnedHost()
	engine := s.RestoreEngine(host, bars)
	if !o.dryRun {
		s.Recover(ctx, host)
	}
	if o.dryRun {
		req.Force = true // to show the steps; what is in the way is told behind them
	}
	plan, err := engine.Plan(ctx, req)
	if err != nil {
		return errors.Join(err, drill.NoteDamage(req, err, s.MarkDamaged))
	}
	if o.dryRun {
		err := errors.Join(a.printRestorePlan(plan, o.json), plan.Close())
		if err == nil && len(plan.Holds) > 0 && !o.request.Force {
			err = say.WithHint(fmt.Errorf("without --force this is refused: %s holds %s", plan.Target, strings.Join(plan.Holds, " and ")),
				"--force overwrites it")
		}
		return err
	}
	run := proofRun(s, o.host, history.RestoreCommand)
	result, err := engine.Run(ctx, plan)
	bars.Close()
	err = errors.Join(err, plan.Close())
	if result == nil {
		return err
	}
	err = errors.Join(err, drill.NoteDamage(req, err, s.MarkDamaged))
	if !errors.Is(err, restore.ErrUsage) { // which says nothing of the backup
		addProof(&run, drill.Record(req, d.Destination.Destination, result, err), d.Destination.Destination)
		a.keepRestore(ctx, s, run)
	}
	if printErr := a.printRestore(result, o.json); withoutUnread(printErr) != nil {
		err = errors.Join(err, fmt.Errorf("the result, %q, could not be written: %w", result.Status, printErr))
	}
	switch result.Status {
	case restore.StatusRestored, restore.StatusLosses:
		if err != nil {
			a.printError(err)
		}
		if err != nil || result.Status == restore.StatusLosses {
			return exitWith(exitAttention)
		}
	}
	return err
}

// keepRestore keeps in the history what was restored of this host's volumes: it tells when each was last brought back, and in what time.
func (a *app) keepRestore(ctx context.Context, s *setup.Setup, run report.Run) {
	if run.Host != s.Host || len(run.Volumes) == 0 || s.Config.Path() == "" { // without a configuration there is no state either
		return
	}
	run.Ended = s.Now().UTC()
	run.ExitCode = proofExitCode(ctx, run, nil)
	a.delivery(s).Keep(run)
}

// refuseWithin refuses a folder or image among backups.
func refuseWithin(ctx context.Context, s *setup.Setup, to restore.Target) error {
	switch to.Kind {
	case restore.ToFolder:
		return s.RefuseWithin(ctx, "--to-dir", to.Path)
	case restore.ToImage:
		return s.RefuseWithin(ctx, "--to-image", to.Path)
	}
	return nil
}

func readRestore(c *cli.Context) (restoreOptions, error) {
	o := restoreOptions{
		setupOptions:  setupOptions{commonOptions: readCommon(c), untrusted: c.Bool("untrusted"), readOnly: true},
		sourceOptions: readSource(c), backup: c.Args().First(), dryRun: c.Bool("dry-run"),
		request: restore.Request{
			Partitions: c.StringSlice("partition"), Paths: c.StringSlice("path"), Verify: restore.Verify(c.String("verify")),
			Force: c.Bool("force"), Grow: c.Bool("grow"), KeepGoing: c.Bool("keep-going"), Privileges: c.Bool("privileges"),
		},
	}
	o.guest = guestOptions{name: c.String("guest"), as: c.String("as"), vg: c.String("vg"), define: c.Bool("define")}
	if o.guest != (guestOptions{}) {
		return readGuestRestore(c, o)
	}
	if second := c.Args().Get(1); c.NArg() == 2 && strings.HasPrefix(second, "@") && strings.Count(second, "/") == 0 {
		return o, say.WithHint(errors.New("name one backup: VOLUME[@TIME]"), "without the space: "+o.backup+second)
	}
	if c.NArg() != 1 {
		return o, errors.New("name one backup: VOLUME[@TIME]")
	}
	if err := checkTimes([]string{o.backup}); err != nil {
		return o, err
	}
	var err error
	o.request.Target, err = readTarget(c)
	return o, err
}

// readGuestRestore checks the options of a restore of a whole guest.
func readGuestRestore(c *cli.Context, o restoreOptions) (restoreOptions, error) {
	if o.guest.name == "" {
		return o, errors.New("--as, --vg and --define go with --guest GUEST")
	}
	for _, flag := range []string{
		"to-lv", "to-device", "to-image", "to-dir", "size", "grow", "partition", "path", "privileges", "keep-going",
	} {
		if c.IsSet(flag) {
			return o, say.WithHint(fmt.Errorf("--%s does not go with --guest", flag),
				"restore its disks one by one, as in `voltar restore web1:vda`")
		}
	}
	if c.NArg() > 0 {
		return o, errors.New("--guest names what is restored: name no backup beside it")
	}
	if err := checkTimes([]string{o.guest.name}); err != nil {
		return o, err
	}
	var err error
	o.request.Target, err = readTarget(c)
	return o, err
}

// readTarget reads the flags that say where to restore to.
func readTarget(c *cli.Context) (restore.Target, error) {
	target := restore.Target{Kind: restore.ToVolume, Classic: c.Bool("classic"), ThinPool: c.String("thin-pool")}
	if target.Classic && target.ThinPool != "" {
		return target, errors.New("--classic and --thin-pool contradict each other")
	}
	if text := c.String("size"); text != "" {
		var size config.Size
		if err := size.UnmarshalText([]byte(text)); err != nil {
			return target, fmt.Errorf("--size: %w", err)
		}
		target.SizeBytes = size.Bytes()
	}
	targets := 0
	for flag, kind := range map[string]restore.TargetKind{
		"to-lv": restore.ToVolume, "to-device": restore.ToDevice, "to-image": restore.ToImage, "to-dir": restore.ToFolder,
	} {
		if value := c.String(flag); value != "" {
			targets++
			target.Kind, target.Path = kind, value
		}
	}
	if targets > 1 {
		return target, errors.New("give one of --to-lv, --to-device, --to-image and --to-dir")
	}
	if name := c.String("to-lv"); name != "" {
		ref, err := catalog.ParseRef(name)
		if err != nil || ref.Kind != catalog.SourceVolume {
			return target, say.WithHint(fmt.Errorf("--to-lv: %q is not VG/LV", name),
				"name the volume group, too, as in --to-lv vg0/"+cmp.Or(path.Base(name), "web")+"; `vgs` lists the groups")
		}
		target.VG, target.LV = ref.VG, ref.Name
	}
	return target, nil
}

// plannedRestore is the output of --dry-run --json.
type plannedRestore struct {
	Backup      string   `json:"backup"`
	Destination string   `json:"destination"`
	Target      string   `json:"target"`
	Overwrites  []string `json:"overwrites,omitempty"`
	Steps       []string `json:"steps"`
	Notes       []string `json:"notes,omitempty"`
	Losses      []string `json:"losses,omitempty"`
}

func planned(plan *restore.Plan) plannedRestore {
	out := plannedRestore{Backup: plan.Backup, Destination: plan.Destination, Target: plan.Target,
		Overwrites: plan.Holds, Notes: plan.Notes, Losses: plan.Losses}
	for _, step := range plan.Steps {
		out.Steps = append(out.Steps, step.Describe()...)
	}
	return out
}

func (a *app) printRestorePlan(plan *restore.Plan, asJSON bool) error {
	out := planned(plan)
	if asJSON {
		return a.printJSON(out)
	}
	say.Printf(a.stdout, "Restore %s from destination %s to %s:\n", out.Backup, out.Destination, out.Target)
	for _, what := range out.Overwrites {
		say.Printf(a.stdout, "  overwrites %s\n", what)
	}
	for i, step := range out.Steps {
		say.Printf(a.stdout, "%3d. %s\n", i+1, step)
	}
	a.printNotes(out.Notes)
	a.printLosses(out.Losses)
	_, err := say.Println(a.stdout, "Nothing was done.")
	return err
}

func (a *app) printNotes(notes []string) {
	for _, note := range notes {
		say.Indented(a.stdout, "note: ", note)
	}
}

func (a *app) printLosses(losses []string) {
	for _, loss := range losses {
		say.Indented(a.stdout, "lost: ", loss)
	}
}

func (a *app) printRestore(result *restore.Result, asJSON bool) error {
	if asJSON {
		return a.printJSON(result)
	}
	for _, part := range result.Parts {
		name := part.Name
		if name == "" {
			name = "all"
		}
		switch part.As {
		case "files":
			say.Printf(a.stdout, "%s: %s, %s\n", name, say.Counted(part.Entries, "entry"), say.Size(part.Bytes))
		case "image":
			say.Printf(a.stdout, "%s: image, %s\n", name, say.Size(part.Bytes))
		default:
			say.Printf(a.stdout, "%s: %s\n", name, part.As)
		}
	}
	a.printNotes(result.Notes)
	a.printLosses(result.Losses)
	_, err := say.Printf(a.stdout, "%s: %s to %s in %s.\n", result.Status, result.Backup, result.Target,
		report.FormatDuration(result.Ended.Sub(result.Started)))
	return err
}
