package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/config"
	"voltar/internal/mountfs"
	"voltar/internal/say"
	"voltar/internal/setup"
	"voltar/internal/sign"
)

func (a *app) mountCommand() *cli.Command {
	return &cli.Command{
		Name: "mount", Usage: "show backups as a read-only filesystem", ArgsUsage: "VOLUME[@TIME] FOLDER",
		UsageText: "voltar mount web@2026-11-20 /mnt # one backup\n" +
			"voltar mount web /mnt # all backups of a volume, or of a guest's disks\n" +
			"voltar mount --all /mnt # all backups of this host\n" +
			"losetup -r -f --show /mnt/p3.img # an image, as a device\n",
		Description: "Shows backups in FOLDER, which must be empty, until Ctrl-C or `umount FOLDER`. One backup is shown by what it holds:\n" +
			"a folder for each partition that is stored as files (p1; files, if the volume has none), a file for each image\n" +
			"(p3.img; volume.img) and each dump (NAME.dump.gz). Several backups are at VG/LV/TIME, and VG/LV/latest leads to the\n" +
			"newest good one. Backups that are made meanwhile do not appear.\n" +
			"Names come from the indexes, and data from the parts of the archives that hold it, when they are read. What is\n" +
			"damaged cannot be read (EIO), and the log here says why. Only root, or who has mounted it, can enter: the files\n" +
			"belong to guests. Their devices, set-id bits and programs do not work, but their symbolic links may lead out\n" +
			"of FOLDER. Needs FUSE in the kernel (`modprobe fuse`), and fusermount3 for users other than root.",
		Flags: []cli.Flag{untrustedFlag(),
			&cli.BoolFlag{Name: "all", Usage: "mount all backups of the host"},
			fromFlag(),
			hostFlag(),
			identityFlag(),
			&cli.StringFlag{Name: "cache", Value: "64MiB", Usage: "keep up to `SIZE` of decompressed data in memory"},
		},
		Action: func(c *cli.Context) error {
			o, err := readMount(c)
			if err != nil {
				return usageError(err)
			}
			return a.mount(c.Context, o)
		},
	}
}

type showOptions struct {
	setupOptions
	sourceOptions
	source     string // VOLUME[@TIME]; "" for all
	folder     string
	cacheBytes int64
}

func readMount(c *cli.Context) (showOptions, error) {
	o := showOptions{
		setupOptions: setupOptions{commonOptions: readCommon(c), untrusted: c.Bool("untrusted"), lookup: true, readOnly: true,
			whenDown: "mount again as soon as it answers"},
		sourceOptions: readSource(c),
	}
	size, err := config.ParseSize(c.String("cache"))
	if err != nil {
		return o, fmt.Errorf("--cache: %w", err)
	}
	o.cacheBytes = size.Bytes()
	args := c.Args().Slice()
	switch {
	case c.Bool("all") && len(args) == 1:
		o.folder = args[0]
	case c.Bool("all"):
		return o, errors.New("--all mounts every backup: name nothing but the folder")
	case len(args) != 2:
		return o, errors.New("say what to mount and where: `voltar mount VOLUME[@TIME] FOLDER`, or --all FOLDER")
	default:
		o.source, o.folder = args[0], args[1]
	}
	return o, checkTimes([]string{o.source})
}

// mountedLine is what `voltar mount` prints as JSON when it is mounted.
type mountedLine struct {
	Folder  string `json:"folder"`
	Backups int    `json:"backups"`
}

func (a *app) mount(ctx context.Context, o showOptions) error {
	folder, err := mountfs.CheckFolder(o.folder)
	if err != nil {
		return err
	}
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return err
	}
	decrypt, err := a.decrypt(s, o.identities, false)
	if err != nil {
		return err
	}
	m := &mounting{setup: s, options: o, decrypt: decrypt}
	shown, backups, err := m.open(ctx)
	if err != nil {
		return err
	}
	what := cmp.Or(o.source, "all backups") + " of " + s.HostOr(o.host)
	err = shown.Serve(ctx, folder, "voltar:"+cmp.Or(o.source, s.HostOr(o.host)), func() {
		if o.json {
			_ = a.printJSON(mountedLine{folder, backups}) // whoever does not read it can still use the folder
			return
		}
		say.Printf(a.stdout, "%s: %s, mounted read-only at %s\nTo end: Ctrl-C, or `umount %s`\n",
			what, say.Counted(backups, "backup"), folder, folder)
	})
	return errors.Join(err, shown.Close())
}

// mounting finds what is to be mounted.
type mounting struct {
	setup   *setup.Setup
	options showOptions
	decrypt browse.DecryptFunc
}

func (m *mounting) open(ctx context.Context) (*mountfs.FS, int, error) {
	opts := mountfs.Options{CacheBytes: m.options.cacheBytes, Log: m.setup.Log}
	if _, _, timed := cutTime(m.options.source); timed {
		d, b, err := m.setup.FindBackup(ctx, m.options.from, m.options.host, m.options.source)
		if err != nil {
			return nil, 0, err
		}
		one, err := mountfs.NewOne(ctx, mountfs.Backup{ID: b.ID, Open: func(context.Context) (*browse.Backup, error) {
			return m.backup(d, b), nil
		}}, opts)
		if err != nil {
			return nil, 0, hinted(err, b)
		}
		return one, 1, nil
	}
	backups, err := m.list(ctx)
	if err != nil {
		return nil, 0, err
	}
	return mountfs.NewAll(ctx, backups, opts), len(backups), nil
}

// backup opens the files of a backup as `ls` and `cat` do.
func (m *mounting) backup(d setup.Destination, b catalog.Backup) *browse.Backup {
	open := browse.Opener(m.decrypt)
	if sign.Signs(d.Store) && !m.options.untrusted {
		open = browse.Checked(m.decrypt) // a signature vouches for sums
	}
	return browse.New(d.Store, b, open)
}

// list finds all backups that are meant, on any destination.
func (m *mounting) list(ctx context.Context) ([]mountfs.Backup, error) {
	s := m.setup
	stores, err := s.StoresFrom(m.options.from)
	if err != nil {
		return nil, err
	}
	if len(stores) == 0 {
		return nil, s.NoDestination("--from DIR/")
	}
	stores, failed := s.WithoutVanished(ctx, stores)
	listMany()
	filter := catalog.Filter{Damage: s.Damage(), Now: s.Now(), Known: s.Known(), Compare: catalog.CompareShown}
	listed := catalog.ListMeant(ctx, setup.Named(stores), s.HostOr(m.options.host), m.options.source, filter)
	var found []mountedEntry
	unreadable := 0
	for i, l := range listed {
		if l.Err != nil {
			failed = append(failed, catalog.At(l.Destination, l.Err))
			continue
		}
		unreadable += len(l.Unreadable)
		for _, e := range l.Backups {
			found = append(found, mountedEntry{Entry: e, on: stores[i], isLatest: e.IsGood() && !l.IsAhead(e.ID)})
		}
	}
	if len(found) == 0 && len(failed) > 0 {
		return nil, errors.Join(failed...)
	}
	for _, err := range failed {
		say.Log(s.Log.Warn, err)
	}
	if unreadable > 0 {
		s.Log.Warn(say.Counted(unreadable, "backup") + " left out that cannot be read: `voltar list` says why")
	}
	if len(found) == 0 {
		hosts, _ := hostsOn(ctx, stores) // who does not answer has failed before
		return nil, noBackups(ctx, stores, s.HostOr(m.options.host), m.named(), hosts)
	}
	return m.choose(found), nil
}

// named is what was named, if anything was.
func (m *mounting) named() []string {
	if m.options.source == "" {
		return nil
	}
	return []string{m.options.source}
}

// mountedEntry is a backup on one destination.
type mountedEntry struct {
	catalog.Entry
	on       setup.Destination
	isLatest bool
}

// choose takes each backup once: where several destinations have it, from the first that has it whole.
func (m *mounting) choose(found []mountedEntry) (backups []mountfs.Backup) {
	slices.SortStableFunc(found, func(a, b mountedEntry) int { return a.ID.Compare(b.ID) })
	for begin := 0; begin < len(found); {
		best, end := found[begin], begin+1
		for ; end < len(found) && found[end].ID.Compare(best.ID) == 0; end++ {
			if !best.IsGood() && found[end].IsGood() {
				best = found[end]
			}
		}
		begin = end
		backups = append(backups, mountfs.Backup{ID: best.ID, Good: best.isLatest, Open: func(ctx context.Context) (*browse.Backup, error) {
			b, err := best.Load(ctx, best.on.Store)
			if err != nil {
				return nil, err
			}
			return m.backup(best.on, b), nil
		}})
	}
	return backups
}
