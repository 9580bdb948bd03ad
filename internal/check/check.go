// Package check looks whether everything is in place that a run needs, and says what to do where something is not.
package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/backup"
	"voltar/internal/catalog"
	"voltar/internal/config"
	"voltar/internal/deliver"
	"voltar/internal/say"
	"voltar/internal/setup"
	"voltar/internal/store"
	"voltar/lvm"
	"voltar/report"
)

// Finding is the outcome of one check.
type Finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// failed is the outcome of a check that met an error, with its own hints and one that is of the check.
func failed(check string, err error, hint string) Finding {
	problem := report.ProblemOf(say.WithHint(err, hint))
	return Finding{Check: check, Detail: problem.Message, Hint: problem.Hint}
}

type tool struct{ name, pkg, use string }

// tools are the commands of the host that voltar runs, with the package that has each, by all of its names where distributions differ.
var tools = []tool{
	{"lvs", "lvm2", "volumes"}, {"vgs", "lvm2", "volumes"}, {"lvcreate", "lvm2", "snapshots"}, {"lvremove", "lvm2", "snapshots"},
	{"lvextend", "lvm2", "snapshots"}, {"lvchange", "lvm2", "snapshots"}, {"dmsetup", "dmsetup or device-mapper", "partitions"},
	{"blkid", "util-linux", "probing"}, {"sfdisk", "fdisk or util-linux", "restoring partition tables"},
	{"mke2fs", "e2fsprogs", "restoring ext4"},
	{"tune2fs", "e2fsprogs", "restoring ext4"}, {"mkfs.xfs", "xfsprogs", "restoring xfs"}, {"mkfs.fat", "dosfstools", "restoring vfat"},
	{"mkswap", "util-linux", "restoring swap"},
}

// spared are commands that a host can do without, and some distributions lack; use is what there is instead.
var spared = []tool{
	{"mkfs.btrfs", "btrfs-progs or btrfsprogs", "a btrfs cannot be restored on this host"},
	{"thin_dump", "thin-provisioning-tools or device-mapper-persistent-data", "images of thin volumes read all of the volume"},
}

// forVolumes tells whether a host without LVM does without a tool.
func (t tool) forVolumes() bool { return t.pkg == "lvm2" || t.name == "dmsetup" }

// All checks everything. A test mail is sent if that is asked for.
func All(ctx context.Context, s *setup.Setup, mail *deliver.Delivery, sendTestMail bool) []Finding {
	c := &checker{s, mail}
	return slices.Concat(c.host(), c.volumes(ctx), c.destinations(ctx), c.mailServer(ctx, sendTestMail))
}

// checker checks what one host's configuration says.
type checker struct {
	*setup.Setup
	delivery *deliver.Delivery
}

// host looks at configuration, privileges, kernel and tools.
func (c *checker) host() []Finding {
	list := []Finding{{Check: "configuration", OK: true, Detail: c.Config.Path()}}
	if c.Config.Path() == "" {
		list[0] = Finding{"configuration", false, "there is none", "`voltar init` writes one"}
	}
	privileges := Finding{"privileges", os.Geteuid() == 0, "running as root", ""}
	if !privileges.OK {
		privileges.Detail, privileges.Hint = "not running as root: snapshots and mounts need it", asRoot
	}
	list = append(list, privileges, lookAtKernel())
	missing := map[string][]string{}
	directoriesAlone := len(c.Config.Directories) > 0 && !c.hasTool("lvs")
	if directoriesAlone {
		list = append(list, Finding{"tools", true, "no lvm2: only directories and dumps are backed up", ""})
	}
	for _, tool := range spared {
		if !c.hasTool(tool.name) {
			list = append(list, Finding{"tools", true, fmt.Sprintf("no %s (%s): %s", tool.name, tool.pkg, tool.use), ""})
		}
	}
	for _, tool := range tools {
		if !c.hasTool(tool.name) && (!directoriesAlone || !tool.forVolumes()) {
			missing[tool.pkg] = append(missing[tool.pkg], tool.name+" ("+tool.use+")")
		}
	}
	if len(missing) == 0 {
		return append(list, Finding{"tools", true, fmt.Sprintf("all %d are there", len(tools)), ""})
	}
	for _, pkg := range slices.Sorted(maps.Keys(missing)) {
		names := missing[pkg]
		list = append(list, Finding{"tools", false, "missing: " + strings.Join(names, ", "), "install the package " + pkg})
	}
	return list
}

// lookAtKernel looks at the kernel of this host.
func lookAtKernel() Finding {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return failed("kernel", err, "")
	}
	// The node alone says nothing: it may be there without what it is for. Opening it loads the module.
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err == nil {
		_ = control.Close() // nothing was written to it
	}
	return checkKernel(unix.ByteSliceToString(name.Release[:]), err)
}

// checkKernel wants Linux 5.2, the first with fsopen(2), and the device-mapper, whose control node was opened.
func checkKernel(release string, controlErr error) Finding {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || major < 5 || major == 5 && minor < 2 {
		return Finding{"kernel", false, "Linux " + release, "Linux 5.2 or newer is needed: mounts without a mountpoint came with it"}
	}
	switch {
	case errors.Is(controlErr, fs.ErrPermission):
		return Finding{"kernel", false, "Linux " + release + "; whether it has the device-mapper could not be looked at", asRoot}
	case controlErr != nil:
		return Finding{"kernel", false, "Linux " + release + " without a device-mapper", "modprobe dm-mod"}
	}
	return Finding{"kernel", true, "Linux " + release + " with the device-mapper", ""}
}

// asRoot is what to do about what this user may not look at.
const asRoot = "run `voltar check` as root"

// volumes looks whether LVM answers, something is selected and lvm2 has nothing to complain of.
func (c *checker) volumes(ctx context.Context) []Finding {
	engine, err := c.Engine(nil)
	if err != nil {
		return []Finding{failed("volumes", err, "")}
	}
	plan, sources, err := engine.Look(ctx, nil)
	if err != nil {
		return []Finding{failed("volumes", err, "")}
	}
	selected := len(plan.Selected())
	list := []Finding{checkSelection(selected, len(plan.Choices), len(sources))}
	for _, source := range sources {
		list = append(list, checkSource(source))
	}
	for _, pattern := range c.Unmatched(plan.Volumes) {
		list = append(list, Finding{"volumes", false, "the configuration's " + pattern + " matches no volume of this host",
			"correct the pattern: `voltar volumes` lists the volumes"})
	}
	for _, trouble := range slices.Concat(plan.Troubles(), plan.GuestTroubles) {
		list = append(list, Finding{"volumes", false, trouble.What, trouble.Hint})
	}
	return append(list, checkGuests(engine.GuestNotes(plan), plan.Orphans())...)
}

// shownGuests bounds how many guests and volumes are told of.
const shownGuests = 20

// checkGuests says what is done for each guest, and which volumes are of none.
func checkGuests(notes []backup.GuestNote, orphans []lvm.Volume) (list []Finding) {
	for _, n := range notes[:min(len(notes), shownGuests)] {
		detail := n.Guest + ": " + n.Does
		if len(n.NotHere) > 0 {
			detail += "; in no backup, as they are no volumes of this host: " + strings.Join(n.NotHere, ", ")
		}
		list = append(list, Finding{"guests", true, detail, ""})
	}
	if more := len(notes) - shownGuests; more > 0 {
		list = append(list, Finding{"guests", true, fmt.Sprintf("and %d more guests likewise", more), ""})
	}
	if len(orphans) > 0 {
		list = append(list, Finding{"guests", true, "of no guest: " + say.Listed(say.Names(orphans, lvm.Volume.String), shownGuests), ""})
	}
	return list
}

// checkSelection looks whether anything is backed up. Where the host has volumes, one of them should be.
func checkSelection(selected, volumes, sources int) Finding {
	switch {
	case volumes == 0 && sources == 0:
		return Finding{"volumes", false, noVolumes, "`lvs` lists those that LVM sees; a [[directory]] or [[dump]] is backed up without one"}
	case volumes == 0:
		return Finding{"volumes", true, noVolumes, ""}
	case selected == 0:
		return Finding{"volumes", false, fmt.Sprintf("0 of %d are selected", volumes), "`voltar volumes` says which rule leaves each out"}
	}
	return Finding{"volumes", true, fmt.Sprintf("%d of %d are selected", selected, volumes), ""}
}

const noVolumes = "there is no logical volume on this host"

// checkSource looks whether a directory can be read.
func checkSource(s backup.PreviewSource) Finding {
	if s.Problem != "" {
		return Finding{"source", false, s.Name + ": " + s.Problem, cmp.Or(s.Hint, "correct it in the configuration, or make or mount it")}
	}
	if s.Path != "" {
		return Finding{"source", true, strings.TrimSuffix(s.Name+" reads "+s.Path+", "+s.Note, ", "), ""}
	}
	return Finding{"source", true, s.Name + " is made by a command, which is not tried", ""}
}

// destinations looks whether each can be written to and how much room it has.
func (c *checker) destinations(ctx context.Context) []Finding {
	if len(c.Stores) == 0 {
		return []Finding{{"destination", false, "there is none", "add a [[destination]] to the configuration"}}
	}
	return slices.Concat(catalog.AskAll(c.Stores, func(d setup.Destination) []Finding { return c.checkDestination(ctx, d) })...)
}

func (c *checker) checkDestination(ctx context.Context, d setup.Destination) (list []Finding) {
	check := "destination"
	usage, notes, err := tryStore(ctx, d)
	if d.Recipients != nil {
		notes = append(notes, "encrypted to "+strings.Join(d.Recipients.Keys(), ", "))
	}
	if err == nil {
		err = backup.NoRoom(usage)
	}
	if vanished := c.Written().Vanished(ctx, d.Destination.Destination); err == nil && vanished != nil {
		err, notes = vanished, nil
	}
	switch {
	case err != nil:
		f := failed(check, err, "")
		f.Detail = fmt.Sprintf("%s (%s): %s", d.Name, d.Store, store.Whole(err))
		list = append(list, f)
	case usage.TotalBytes < 0:
		list = append(list, Finding{check, true, fmt.Sprintf("%s (%s) can be written to", d.Name, d.Store), ""})
	default:
		list = append(list, Finding{check, true, fmt.Sprintf("%s (%s) has %s free of %s", d.Name, d.Store,
			say.Size(usage.FreeBytes), say.Size(usage.TotalBytes)), ""})
	}
	if f, found := checkInodes(d, usage); found {
		list = append(list, f)
	}
	for _, note := range notes {
		list = append(list, Finding{check, true, d.Name + ": " + note, ""})
	}
	return list
}

// leastInodesPercent is how many of its inodes a destination should have free: each file of a backup takes one.
const leastInodesPercent = 1

// checkInodes finds a filesystem that has room and can take no file. Those without a fixed number of inodes have none to tell.
func checkInodes(d setup.Destination, usage store.Usage) (f Finding, found bool) {
	if usage.Inodes <= 0 || float64(usage.FreeInodes)*100 >= float64(usage.Inodes)*leastInodesPercent {
		return Finding{}, false
	}
	return Finding{"destination", false, fmt.Sprintf("%s (%s) has %s of %s inodes free: it cannot take many more files, however large it is",
		d.Name, d.Store, say.Count(usage.FreeInodes), say.Count(usage.Inodes)),
		"remove files there, or make its filesystem with more inodes (`mkfs.ext4 -i`)"}, true
}

// mailTimeout bounds logging in to the mail server.
const mailTimeout = 30 * time.Second

// mailHint is what to do about a mail server that does not take mail.
func mailHint(m config.Mail, err error) string {
	var lookup *net.DNSError
	switch {
	case errors.As(err, &lookup):
		return "this host cannot look that name up: is mail.server spelled as it is to be, and does DNS work here?"
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens there: does the server run, and is %d its port (mail.port: 25, 465 or 587)?", deliver.SMTPPort(m))
	}
	return "look at [mail] in the configuration"
}

// mailServer logs in to the mail server without sending anything, or looks whether sendmail is there.
func (c *checker) mailServer(ctx context.Context, sendTestMail bool) []Finding {
	m := c.Config.Mail
	if len(m.To) == 0 {
		return []Finding{{"mail", false, "nobody gets the report", "set mail.to in the configuration"}}
	}
	if sendTestMail {
		if err := c.delivery.TestMail(ctx); err != nil {
			return []Finding{failed("mail", err, mailHint(m, err))}
		}
		return []Finding{{"mail", true, "a test mail went to " + strings.Join(m.To, ", "), ""}}
	}
	if m.Server == "" {
		if _, err := os.Stat(m.Sendmail); err != nil {
			return []Finding{failed("mail", err, "set mail.server, or install a package that has sendmail")}
		}
		return []Finding{{"mail", true, "through " + m.Sendmail, ""}}
	}
	ctx, cancel := context.WithTimeout(ctx, mailTimeout)
	defer cancel()
	if err := c.delivery.CheckMail(ctx); err != nil {
		return []Finding{failed("mail", err, mailHint(m, err))}
	}
	how := "answers"
	if m.Username != "" {
		how = "takes the login of " + m.Username
	}
	return []Finding{{"mail", true, fmt.Sprintf("%s:%d %s; --send-test-mail sends one", m.Server, deliver.SMTPPort(m), how), ""}}
}

// tryStore tries what a backup does to a store, as far as nothing is left, and asks for the room there is.
func tryStore(ctx context.Context, d setup.Destination) (usage store.Usage, notes []string, err error) {
	if d.Unfit != nil {
		return store.Usage{}, nil, d.Unfit
	}
	notes, err = d.Store.Probe(ctx)
	usage, usageErr := d.Store.Usage(ctx) // of a store that takes nothing as well: it may say why
	if err == nil {
		err = usageErr
	}
	return usage, notes, err
}

func (c *checker) hasTool(name string) bool {
	_, err := c.Runner.LookPath(name)
	return err == nil
}
