// Package revive brings a whole guest back: all its disks of one moment, and its definition.
//
//	revive.go      which backups belong together, and what each disk becomes
//	definition.go  the definition, rewritten for what was restored, and how it is given to who runs guests
//	domain.go      libvirt's
//	pve.go         that of Proxmox VE
package revive

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/guests"
	"voltar/internal/say"
)

// ErrUsage is wrapped by the error of a request that makes no sense.
var ErrUsage = errors.New("cannot bring that guest back")

// ErrNoDefinition is wrapped by the error of a guest whose disks are there, and of whose definition there is no good copy.
var ErrNoDefinition = errors.New("no definition of the guest")

// Moment are the backups of a guest's disks that one run made.
type Moment struct {
	Guest catalog.Guest // without a disk
	Time  time.Time     // of the first of them
	Disks []Disk        // by name
	Other string        // the time of the newest run before that has more of them, "" for none

	known    []string // names of all disks that the guest ever had a backup of, good or not
	before   []string // those of them that it had a backup of then or before
	word     string   // that named it
	narrowed bool     // the word named one disk of it
}

// Disk is the backup of one disk.
type Disk struct {
	catalog.Entry
	On catalog.Destination
}

// Choose finds the newest moment of a guest, or the newest whose time begins with when. found is what the destinations hold, in their
// order.
func Choose(on []catalog.Destination, found []catalog.Listed, word, when string, now time.Time) (Moment, error) {
	var every, all []catalog.Entry
	at := map[string]int{} // the first destination that has a good one of a backup
	for i, l := range found {
		if l.Err != nil {
			continue
		}
		for _, e := range l.Backups {
			every = append(every, e)
			if _, known := at[e.ID.String()]; !known && e.IsGood() && !e.IsAhead(now) {
				at[e.ID.String()] = i
				all = append(all, e)
			}
		}
	}
	of, err := catalog.OfGuest(all, word)
	if err != nil {
		return Moment{}, err
	}
	of = slices.DeleteFunc(of, func(e catalog.Entry) bool { return e.Guest.IsZero() || e.Guest.Disk == "" })
	if len(of) == 0 {
		return Moment{}, say.WithHint(fmt.Errorf("%w: no good backup is of a disk of a guest %q", catalog.ErrNotFound, word),
			"`voltar list` names the guests; `voltar restore VOLUME` brings one volume back")
	}
	slices.SortStableFunc(of, func(a, b catalog.Entry) int { return b.ID.Time.Compare(a.ID.Time) })
	chosen := slices.IndexFunc(of, func(e catalog.Entry) bool { return strings.HasPrefix(catalog.FormatTime(e.ID.Time), when) })
	if chosen < 0 {
		return Moment{}, say.WithHint(fmt.Errorf("%w: %s has no good backup of %s", catalog.ErrNotFound, word, when),
			fmt.Sprintf("`%s` shows its times", say.ShellWords([]string{"voltar", "list", word})))
	}
	m := Moment{Guest: of[chosen].Guest, Time: of[chosen].ID.Time, word: word, narrowed: true}
	m.Guest.Disk = ""
	inRun := map[string]int{}
	for _, e := range of {
		inRun[e.Run]++
		if e.Run != of[chosen].Run {
			continue
		}
		m.Disks = append(m.Disks, Disk{e, on[at[e.ID.String()]]})
		if e.ID.Time.Before(m.Time) {
			m.Time = e.ID.Time
		}
	}
	for _, e := range of {
		if e.ID.Time.Before(m.Time) && inRun[e.Run] > len(m.Disks) {
			m.Other = catalog.FormatTime(e.ID.Time)
			break
		}
	}
	slices.SortFunc(m.Disks, func(a, b Disk) int { return cmp.Compare(a.Guest.Disk, b.Guest.Disk) })
	for _, e := range every {
		if e.Guest.Kind != m.Guest.Kind || e.Guest.ID != m.Guest.ID || e.Guest.Disk == "" {
			continue
		}
		m.known = append(m.known, e.Guest.Disk)
		if e.Run == of[chosen].Run || e.ID.Time.Before(m.Time) {
			m.before = append(m.before, e.Guest.Disk)
		}
		whole := strings.TrimPrefix(word, catalog.GuestPrefix)
		m.narrowed = m.narrowed && whole != e.Guest.ID && whole != e.Guest.Name && whole != e.Guest.Alias
	}
	return m, nil
}

// checkDisks refuses a moment of which a disk is missing that the definition has, and tells of those that do not come back for another
// reason.
func (m Moment) checkDisks(unknown []string, another bool) (notes []string, err error) {
	rest := "the definition still names where it was"
	if another {
		rest = "it is not in the definition"
	}
	for _, name := range unknown {
		switch {
		case m.narrowed:
			notes = append(notes, fmt.Sprintf("the disk %s is not asked for: %s", name, rest))
		case slices.ContainsFunc(m.Disks, func(d Disk) bool { return d.Guest.Disk == name }):
			notes = append(notes, fmt.Sprintf("the disk %s of the definition is another volume than the one of that name that comes back: %s",
				name, rest))
		case slices.Contains(m.known, name):
			return nil, m.incomplete(name)
		default:
			notes = append(notes, fmt.Sprintf("the disk %s is in no backup: %s", name, rest))
		}
	}
	return notes, nil
}

// checkUndefined refuses a moment that lacks a disk which the guest had then or before, if no definition says whether it still had it.
func (m Moment) checkUndefined() error {
	for _, name := range m.before {
		if !m.narrowed && !slices.ContainsFunc(m.Disks, func(d Disk) bool { return d.Guest.Disk == name }) {
			return m.incomplete(name)
		}
	}
	return nil
}

// incomplete is the error of a moment that lacks a disk.
func (m Moment) incomplete(disk string) error {
	hint := fmt.Sprintf("restore its disks one by one, as `%s`: `%s` shows what there is",
		restoreCommand(m.word+":"+m.Disks[0].Guest.Disk), say.ShellWords([]string{"voltar", "list", m.word}))
	if m.Other != "" {
		hint = fmt.Sprintf("take the moment before, of which there is more: `%s`; or ", restoreCommand(m.word+"@"+m.Other)) + hint
	}
	return say.WithHint(fmt.Errorf("%w: its disk %s has no good backup of that moment", ErrUsage, disk), hint)
}

func restoreCommand(guest string) string {
	return say.ShellWords([]string{"voltar", "restore", "--guest", guest})
}

// namePattern is a name that libvirt, lvm2 and a path all take.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// Targets says which volume each disk becomes, by its position: the one that it was, or with as, a new one. vg replaces the volume group
// if it is not "".
func (m Moment) Targets(as, vg string) ([]catalog.Ref, error) {
	isPVE := m.isPVE()
	switch {
	case as == "":
	case isPVE && !catalog.IsVMID(as):
		return nil, fmt.Errorf("%w: %q is no VMID of Proxmox VE, which is a number from 100 on", ErrUsage, as)
	case !namePattern.MatchString(as):
		return nil, fmt.Errorf("%w: %q is no name for a guest: letters, digits, and . _ - behind the first", ErrUsage, as)
	}
	var list []catalog.Ref
	for _, d := range m.Disks {
		to := catalog.Ref{Kind: catalog.SourceVolume, VG: cmp.Or(vg, d.ID.Ref.VG), Name: d.ID.Ref.Name}
		switch {
		case as == "":
		case isPVE:
			before := to.Name
			if strings.Contains(d.Guest.Disk, "@") {
				return nil, say.WithHint(fmt.Errorf("%w: its volume %s has the name of a snapshot's image, which those that go on from it have in them",
					ErrUsage, to), "bring it back as itself, without --as")
			}
			if to.Name = pveVolume(before, m.Guest.ID, as); to.Name == before {
				to.Name = fmt.Sprintf("vm-%s-disk-%d", as, len(list))
			}
		case !namePattern.MatchString(d.Guest.Disk):
			return nil, fmt.Errorf("%w: the name of its disk %q is not fit for a volume", ErrUsage, d.Guest.Disk)
		default:
			to.Name = as + "-" + d.Guest.Disk
		}
		if slices.Contains(list, to) {
			return nil, fmt.Errorf("%w: two of its disks would become %s", ErrUsage, to)
		}
		list = append(list, to)
	}
	return list, nil
}

// pveVolume is the name of a volume for another VMID: vm-100-disk-0, base-100-disk-0.
func pveVolume(name, id, as string) string {
	for _, prefix := range []string{"vm-", "base-", "subvol-"} {
		if rest, found := strings.CutPrefix(name, prefix+id+"-"); found {
			return "vm-" + as + "-" + rest
		}
	}
	return name
}

// CheckHost refuses to overwrite a guest that runs here, and a name that a guest of this host has, or of its cluster.
func (m Moment) CheckHost(here guests.Found, as string) error {
	if err := m.checkCluster(here, as); err != nil {
		return err
	}
	for _, g := range here.Guests {
		if as == "" && string(g.Kind) == m.Guest.Kind && g.ID == m.Guest.ID && g.Running {
			return say.WithHint(fmt.Errorf("%w: %s runs on this host", ErrUsage, g.Title()), "shut it down, or bring it back beside it: --as NAME")
		}
		if as != "" && slices.Contains([]string{g.Name, g.Alias, g.ID}, as) {
			return say.WithHint(fmt.Errorf("%w: this host has a guest %s already", ErrUsage, g.Title()), "choose another name for --as")
		}
	}
	return nil
}

// checkCluster refuses a guest that is on another node of Proxmox VE's cluster, and a VMID that is taken there.
func (m Moment) checkCluster(here guests.Found, as string) error {
	if node, taken := here.Elsewhere[cmp.Or(as, m.Guest.ID)]; taken && m.isPVE() {
		hint := "choose another VMID for --as"
		if as == "" {
			hint = "bring it back there, or beside it: --as VMID"
		}
		return say.WithHint(fmt.Errorf("%w: the node %s has a guest %s", ErrUsage, node, cmp.Or(as, m.Guest.ID)), hint)
	}
	return nil
}

// IsDefined tells whether this host has a definition of the guest itself, which a restore leaves as it is.
func (m Moment) IsDefined(here guests.Found) bool {
	return slices.ContainsFunc(here.Guests, func(g guests.Guest) bool {
		return string(g.Kind) == m.Guest.Kind && g.ID == m.Guest.ID && !g.Transient
	})
}
