// Package guests finds out which machine each logical volume of this host belongs to. It asks nobody who could be stopped: libvirt's
// own files say what is defined and what runs (libvirt.org/formatdomain.html), the files of Proxmox VE's cluster filesystem what its
// machines and containers are made of (qm.conf(5), pct.conf(5)), and a command tells whatever else there is.
//
// What is found is of the host's administrators and of tenants, as the name of an instance in OpenStack is. So nothing of it is a
// path, a pattern or a word of a command line; names are cleaned once, here; and all that is read has a bound.
package guests

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"voltar/internal/hostcmd"
	"voltar/internal/say"
	"voltar/lvm"
)

// Kind says who knows a guest.
type Kind string

// Kinds of guests.
const (
	KindLibvirt   Kind = "libvirt"
	KindMachine   Kind = "proxmox-vm"
	KindContainer Kind = "proxmox-ct"
	KindTold      Kind = "command"
)

// Bounds of what is read. Beyond them there is a trouble, and what was found so far.
const (
	maxGuests     = 10_000   // of each source
	maxFileBytes  = 4 << 20  // of one definition
	maxBytes      = 64 << 20 // of all definitions together
	maxDisks      = 1_000    // of one guest
	maxNameBytes  = 255      // of a name or an ID
	maxTroubles   = 20       // that are told
	maxElsewhere  = 8        // disks of a guest that are named
	maxAttachment = 64       // files beside a definition
)

// Guest is a machine, or a container, with at least one volume of this host or known to it.
type Guest struct {
	ID        string   // libvirt: UUID; Proxmox VE: VMID; of a command its own word
	Name      string   // what people call it, cleaned; never empty
	Alias     string   // libvirt's name of what OpenStack calls otherwise; "" for none
	Kind      Kind     //
	Running   bool     //
	Transient bool     // it is gone for libvirt when it is shut off
	HasAgent  bool     // it has a way to QEMU's guest agent, and nothing says that nobody listens there
	Socket    string   // of the agent, for whoever may connect to it: libvirt keeps its own to itself
	Disks     []Disk   // that are volumes of this host; the ones that are attached first
	Elsewhere []string // its disks that are no volumes of this host, and so in no backup: "vdb (/srv/web1.qcow2)"

	Definition []File   // what defines it, as it was read
	Attached   []string // paths of files that belong to the definition: firmware variables, cloud-init

	hasMore bool // disks than are taken
}

// File is a file of a definition.
type File struct {
	Name    string // "domain.xml" or "100.conf"
	Content []byte
}

// Disk is a volume of this host that a guest has.
type Disk struct {
	Name   string // vda, scsi0, rootfs, cleaned; "" if nobody told
	VG, LV string
	UUID   string // of the LV
	// Detached says that it is kept with the guest and not a disk of it: unused, or of a snapshot that the guest's host made.
	Detached bool
	// Shared says that it is meant to be a disk of several guests.
	Shared bool
	Group  string // that a command names: volumes of one moment, whosever they are; "" for none
}

// Volume is VG/LV.
func (d Disk) Volume() string { return d.VG + "/" + d.LV }

// Title names the guest where its ID matters, too.
func (g Guest) Title() string {
	if g.Name == g.ID {
		return g.Name
	}
	return fmt.Sprintf("%s (%s)", g.Name, g.ID)
}

// Sources are where guests are looked for.
type Sources struct {
	Libvirt bool
	Proxmox bool
	Command []string // argv; none for no command

	Runner *hostcmd.Runner
	Root   string // where the host's files lie; "" for /
}

// Found are the guests of a host.
type Found struct {
	Guests []Guest // by name, then by ID
	// Storages are those of Proxmox VE on this host, by the volume group that they are in.
	Storages map[string][]string
	// Elsewhere are the guests of other nodes of Proxmox VE's cluster: their nodes, by VMID.
	Elsewhere map[string]string

	owners map[string]place
}

// place is where a volume is among guests.
type place struct{ guest, disk int }

// Find finds the guests of this host. What it cannot find out is a trouble, and never an error: a backup without the name of its machine
// is one all the same.
func Find(ctx context.Context, from Sources, inventory lvm.Inventory) (Found, []lvm.Trouble) {
	f := newFinder(ctx, from, inventory)
	if from.Libvirt {
		f.libvirt()
	}
	if from.Proxmox {
		f.proxmox()
	}
	if len(from.Command) > 0 {
		f.command()
	}
	return f.found(), f.told()
}

// finder is at work.
type finder struct {
	Sources
	ctx      context.Context
	volumes  resolver
	guests   []*Guest
	troubles []lvm.Trouble
	bytes    int64 // read so far
	storages map[string]storage
	nodes    map[string]string // of all guests of Proxmox VE's cluster, by VMID
	hasMore  bool              // guests than are taken
}

func newFinder(ctx context.Context, from Sources, inventory lvm.Inventory) *finder {
	return &finder{Sources: from, ctx: ctx, volumes: newResolver(ctx, inventory)}
}

func (f *finder) path(name string) string { return filepath.Join(cmp.Or(f.Root, "/"), name) }

func (f *finder) trouble(hint, format string, args ...any) {
	f.troubles = append(f.troubles, lvm.Trouble{What: fmt.Sprintf(format, args...), Hint: hint})
}

// told are the troubles, and of too many how many more there are.
func (f *finder) told() []lvm.Trouble {
	if more := len(f.troubles) - maxTroubles; more > 0 {
		return append(f.troubles[:maxTroubles:maxTroubles], lvm.Trouble{
			What: fmt.Sprintf("%d more troubles with the guests of this host", more), Hint: "the first ones are told; mend these first",
		})
	}
	return f.troubles
}

// guest returns the guest of a kind and ID, which it enters if it is new. It returns nil where there are too many.
func (f *finder) guest(kind Kind, id string) *Guest {
	if i := slices.IndexFunc(f.guests, func(g *Guest) bool { return g.Kind == kind && g.ID == id }); i >= 0 {
		return f.guests[i]
	}
	if len(f.guests) >= maxGuests {
		f.hasMore = true
		return nil
	}
	g := &Guest{ID: id, Kind: kind}
	f.guests = append(f.guests, g)
	return g
}

// add gives a guest a disk, unless it has it.
func (g *Guest) add(v lvm.Volume, d Disk) {
	d.Name, d.Group = cleanName(d.Name), cleanName(d.Group)
	d.VG, d.LV, d.UUID = v.VG, v.Name, v.UUID
	if i := slices.IndexFunc(g.Disks, func(have Disk) bool { return have.UUID == v.UUID }); i >= 0 {
		if have := &g.Disks[i]; have.Detached && !d.Detached {
			*have = d
		}
		return
	}
	if g.hasMore = g.hasMore || len(g.Disks) == maxDisks; !g.hasMore {
		g.Disks = append(g.Disks, d)
	}
}

// elsewhere notes a disk that is no volume of this host.
func (g *Guest) elsewhere(name, source string) {
	text := cleanName(fmt.Sprintf("%s (%s)", name, cmp.Or(source, "elsewhere")))
	if len(g.Elsewhere) < maxElsewhere && !slices.Contains(g.Elsewhere, text) {
		g.Elsewhere = append(g.Elsewhere, text)
	}
}

func (g *Guest) attach(name string) {
	if len(g.Attached) < maxAttachment && strings.HasPrefix(name, "/") && !slices.Contains(g.Attached, name) {
		g.Attached = append(g.Attached, name)
	}
}

// cleanName makes a name that somebody chose fit to be shown, and bounds it.
func cleanName(name string) string {
	name = say.Clean(strings.TrimSpace(name))
	if len(name) > maxNameBytes {
		name = strings.ToValidUTF8(name[:maxNameBytes], "")
	}
	return name
}

// found sorts the guests and tells whose each volume is.
func (f *finder) found() Found {
	found := Found{owners: map[string]place{}, Storages: map[string][]string{}, Elsewhere: maps.Clone(f.nodes)}
	for _, name := range slices.Sorted(maps.Keys(f.storages)) {
		if s := f.storages[name]; s.isLVM() && s.vg != "" {
			found.Storages[s.vg] = append(found.Storages[s.vg], name)
		}
	}
	const hint = "the volumes of the rest are backed up without a name, and not at one moment"
	if f.hasMore {
		f.trouble(hint, "this host has more than %d guests", maxGuests)
	}
	for _, g := range f.guests {
		if g.hasMore {
			f.trouble(hint, "the guest %s has more than %d disks", g.ID, maxDisks)
		}
		if g.Kind == KindMachine || g.Kind == KindContainer {
			delete(found.Elsewhere, g.ID)
		}
		g.Name = cmp.Or(cleanName(g.Name), g.ID)
		if g.Alias = cleanName(g.Alias); g.Alias == g.Name {
			g.Alias = ""
		}
		slices.SortStableFunc(g.Disks, func(a, b Disk) int { return cmp.Compare(truth(a.Detached), truth(b.Detached)) })
		found.Guests = append(found.Guests, *g)
	}
	slices.SortStableFunc(found.Guests, func(a, b Guest) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Kind, b.Kind))
	})
	for i, g := range found.Guests {
		for j, d := range g.Disks {
			before, taken := found.owners[d.UUID]
			if taken && !found.isBetter(place{i, j}, before) {
				f.twice(found, d, before, place{i, j})
				continue
			}
			if taken {
				f.twice(found, d, place{i, j}, before)
			}
			found.owners[d.UUID] = place{i, j}
		}
	}
	return found
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// isBetter tells whose volume one is rather that two guests have: of the guest that it is attached to, and then of the one that runs.
func (f Found) isBetter(a, b place) bool {
	rank := func(p place) int {
		return 2*truth(!f.Guests[p.guest].Disks[p.disk].Detached) + truth(f.Guests[p.guest].Running)
	}
	return rank(a) > rank(b)
}

// twice tells of a volume that is a disk of two guests, unless it is meant to be.
func (f *finder) twice(found Found, d Disk, owner, other place) {
	a, b := found.Guests[owner.guest], found.Guests[other.guest]
	first, second := a.Disks[owner.disk], b.Disks[other.disk]
	if first.Shared && second.Shared || first.Detached || second.Detached {
		return
	}
	f.trouble(fmt.Sprintf("take the disk out of one of them: if both run, they destroy its filesystem. It counts as a disk of %s", a.Title()),
		"%s is a disk of two guests, %s and %s", d.Volume(), a.Title(), b.Title())
}

// Of returns whose a volume is.
func (f Found) Of(v lvm.Volume) (Guest, Disk, bool) {
	at, known := f.owners[v.UUID]
	if !known {
		return Guest{}, Disk{}, false
	}
	return f.Guests[at.guest], f.Guests[at.guest].Disks[at.disk], true
}

// Matches tells whether a glob "GUEST" or "GUEST:DISK" fits what a volume is of: the guest's name, alias or ID. In names, "/" is a
// letter as any other.
func (f Found) Matches(pattern string, v lvm.Volume) bool {
	g, d, known := f.Of(v)
	if !known {
		return false
	}
	plain := func(text string) string { return strings.ReplaceAll(text, "/", "\x00") }
	return slices.ContainsFunc([]string{g.ID, g.Name, g.Alias}, func(name string) bool {
		for _, text := range []string{name, name + ":" + d.Name} {
			if fits, err := path.Match(plain(pattern), plain(text)); name != "" && err == nil && fits {
				return true
			}
		}
		return false
	})
}

// Named returns the guests that a name means: those of that ID, or else of that name, or else of that alias.
func (f Found) Named(name string) []Guest {
	for _, is := range []func(Guest) bool{
		func(g Guest) bool { return g.ID == name },
		func(g Guest) bool { return g.Name == name },
		func(g Guest) bool { return g.Alias == name && name != "" },
	} {
		var list []Guest
		for _, g := range f.Guests {
			if is(g) {
				list = append(list, g)
			}
		}
		if len(list) > 0 {
			return list
		}
	}
	return nil
}
