package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/report"
)

func (a *app) checkCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "check that everything a run needs is in place",
		Description: "Checks the configuration, tools, kernel, privileges, volume groups, destinations and the mail server, and prints\n" +
			"what to do about each problem. Changes nothing.",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "send-test-mail", Usage: "send a test mail to the configured recipients"}},
		Action: func(c *cli.Context) error {
			return a.check(c.Context, setupOptions{commonOptions: readCommon(c), lookup: true}, c.Bool("send-test-mail"))
		},
	}
}

// finding is the outcome of one check.
type finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// failed is the outcome of a check that met an error, with its own hints and one that is of the check.
func failed(check string, err error, hint string) finding {
	problem := report.ProblemOf(say.WithHint(err, hint))
	return finding{Check: check, Detail: problem.Message, Hint: problem.Hint}
}

// tools are the commands of the host that voltar runs, with the Debian package that has each.
var tools = []struct{ name, pkg, use string }{
	{"lvs", "lvm2", "volumes"}, {"vgs", "lvm2", "volumes"}, {"lvcreate", "lvm2", "snapshots"}, {"lvremove", "lvm2", "snapshots"},
	{"lvextend", "lvm2", "snapshots"}, {"lvchange", "lvm2", "snapshots"}, {"dmsetup", "dmsetup", "partitions"},
	{"blkid", "util-linux", "probing"}, {"sfdisk", "fdisk", "restoring partition tables"}, {"mke2fs", "e2fsprogs", "restoring ext4"},
	{"tune2fs", "e2fsprogs", "restoring ext4"}, {"mkfs.xfs", "xfsprogs", "restoring xfs"}, {"mkfs.fat", "dosfstools", "restoring vfat"},
	{"mkswap", "util-linux", "restoring swap"},
}

func (a *app) check(ctx context.Context, o setupOptions, sendTestMail bool) error {
	s, err := a.setup(o)
	if err != nil {
		return err
	}
	findings := s.checkHost()
	findings = append(findings, s.checkVolumes(ctx)...)
	findings = append(findings, s.checkDestinations(ctx)...)
	findings = append(findings, s.checkMail(ctx, sendTestMail)...)
	if o.json {
		err = a.printJSON(findings)
	} else {
		err = a.printFindings(findings)
	}
	if err != nil {
		return err
	}
	for _, f := range findings {
		if !f.OK {
			return exitWith(exitAttention)
		}
	}
	return nil
}

func (a *app) printFindings(findings []finding) error {
	for _, f := range findings {
		mark := "ok  "
		if !f.OK {
			mark = "FAIL"
		}
		say.Printf(a.stdout, "%s  %-14s %s\n", mark, f.Check, f.Detail)
		if f.Hint != "" {
			for hint := range strings.Lines(f.Hint) {
				say.Printf(a.stdout, "      %-14s %s%s\n", "", say.HintLabel, strings.TrimSuffix(hint, "\n"))
			}
		}
	}
	return nil
}

// checkHost looks at configuration, privileges, kernel and tools.
func (s *setup) checkHost() []finding {
	list := []finding{{Check: "configuration", OK: true, Detail: s.config.Path()}}
	if s.config.Path() == "" {
		list[0] = finding{"configuration", false, "there is none", "`voltar init` writes one"}
	}
	privileges := finding{"privileges", os.Geteuid() == 0, "running as root", ""}
	if !privileges.OK {
		privileges.Detail, privileges.Hint = "not running as root: snapshots and mounts need it", "run it with sudo"
	}
	list = append(list, privileges, checkKernel())
	missing := map[string][]string{}
	for _, tool := range tools {
		if !s.hasTool(tool.name) {
			missing[tool.pkg] = append(missing[tool.pkg], tool.name+" ("+tool.use+")")
		}
	}
	if len(missing) == 0 {
		return append(list, finding{"tools", true, fmt.Sprintf("all %d are there", len(tools)), ""})
	}
	for _, pkg := range slices.Sorted(maps.Keys(missing)) {
		names := missing[pkg]
		list = append(list, finding{"tools", false, "missing: " + strings.Join(names, ", "), "apt-get install " + pkg})
	}
	return list
}

// checkKernel wants Linux 5.2, the first with fsopen(2), and the device-mapper.
func checkKernel() finding {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return failed("kernel", err, "")
	}
	release := unix.ByteSliceToString(name.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || major < 5 || major == 5 && minor < 2 {
		return finding{"kernel", false, "Linux " + release, "Linux 5.2 or newer is needed: mounts without a mountpoint came with it"}
	}
	// The node alone says nothing: it may be there without what it is for. Opening it loads the module.
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return finding{"kernel", false, "Linux " + release + " without a device-mapper", "modprobe dm-mod"}
	}
	if err == nil {
		_ = control.Close() // nothing was written to it
	}
	return finding{"kernel", true, "Linux " + release + " with the device-mapper", ""}
}

// checkVolumes looks whether LVM answers, something is selected and lvm2 has nothing to complain of.
func (s *setup) checkVolumes(ctx context.Context) []finding {
	engine, err := s.engine(nil)
	if err != nil {
		return []finding{failed("volumes", err, "")}
	}
	plan, err := engine.Plan(ctx, nil)
	if err != nil {
		return []finding{failed("volumes", err, "")}
	}
	selected := len(plan.Selected())
	f := finding{"volumes", selected > 0, fmt.Sprintf("%d of %d are selected", selected, len(plan.Choices)), ""}
	switch {
	case len(plan.Choices) == 0:
		f.Detail, f.Hint = "there is no logical volume on this host", "`lvs` lists those that LVM sees"
	case selected == 0:
		f.Hint = "`voltar volumes` says which rule leaves each out"
	}
	list := []finding{f}
	for _, trouble := range plan.Troubles() {
		list = append(list, finding{"volumes", false, trouble.What, trouble.Hint})
	}
	return list
}

// checkDestinations looks whether each can be written to and how much room it has.
func (s *setup) checkDestinations(ctx context.Context) []finding {
	if len(s.stores) == 0 {
		return []finding{{"destination", false, "there is none", "add a [[destination]] to the configuration"}}
	}
	return slices.Concat(catalog.AskAll(s.stores, func(d openDestination) []finding { return checkDestination(ctx, d) })...)
}

func checkDestination(ctx context.Context, d openDestination) (list []finding) {
	check := "destination"
	usage, notes, err := tryStore(ctx, d)
	if d.Recipients != nil {
		notes = append(notes, "encrypted to "+strings.Join(d.Recipients.Keys(), ", "))
	}
	switch {
	case err != nil:
		list = append(list, failed(check, fmt.Errorf("%s (%s): %w", d.Name, d.Store, err), ""))
	case usage.TotalBytes < 0:
		list = append(list, finding{check, true, fmt.Sprintf("%s (%s) can be written to", d.Name, d.Store), ""})
	default:
		list = append(list, finding{check, true, fmt.Sprintf("%s (%s) has %s free of %s", d.Name, d.Store,
			say.Size(usage.FreeBytes), say.Size(usage.TotalBytes)), ""})
	}
	for _, note := range notes {
		list = append(list, finding{check, true, d.Name + ": " + note, ""})
	}
	return list
}

// checkMail looks whether the mail server answers, or whether sendmail is there.
func (s *setup) checkMail(ctx context.Context, sendTestMail bool) []finding {
	m := s.config.Mail
	if len(m.To) == 0 {
		return []finding{{"mail", false, "nobody gets the report", "set mail.to in the configuration"}}
	}
	if sendTestMail {
		if err := s.sendTestMail(ctx); err != nil {
			return []finding{failed("mail", err, "look at [mail] in the configuration")}
		}
		return []finding{{"mail", true, "a test mail went to " + strings.Join(m.To, ", "), ""}}
	}
	if m.Server == "" {
		if _, err := os.Stat(m.Sendmail); err != nil {
			return []finding{failed("mail", err, "set mail.server, or install a package that has sendmail")}
		}
		return []finding{{"mail", true, "through " + m.Sendmail, ""}}
	}
	address := net.JoinHostPort(m.Server, strconv.Itoa(smtpPort(m)))
	connection, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return []finding{failed("mail", err, "look at mail.server and mail.port")}
	}
	if err := connection.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return []finding{failed("mail", err, "")}
	}
	return []finding{{"mail", true, address + " answers; --send-test-mail sends one", ""}}
}

// tryStore tries what a backup does to a store, as far as nothing is left, and asks for the room there is.
func tryStore(ctx context.Context, d openDestination) (usage store.Usage, notes []string, err error) {
	if d.Unfit != nil {
		return store.Usage{}, nil, d.Unfit
	}
	if notes, err = d.Store.Probe(ctx); err != nil {
		return store.Usage{}, nil, err
	}
	usage, err = d.Store.Usage(ctx)
	return usage, notes, err
}

func (s *setup) hasTool(name string) bool {
	_, err := s.runner.LookPath(name)
	return err == nil
}
