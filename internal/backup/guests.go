package backup

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"voltar/internal/catalog"
	"voltar/internal/guests"
	"voltar/internal/say"
	"voltar/lvm"
)

// GuestOf returns whose disk a volume is, or nil.
func (p *Plan) GuestOf(v lvm.Volume) *catalog.Guest {
	g, d, known := p.Guests.Of(v)
	if !known {
		return nil
	}
	return &catalog.Guest{ID: g.ID, Name: g.Name, Kind: string(g.Kind), Disk: d.Name, Alias: g.Alias}
}

// noteChains tells of images that a guest's disk goes on from and that the configuration leaves out: what is backed up is nothing without.
func (p *Plan) noteChains() {
	for _, c := range p.Choices {
		g, d, known := p.Guests.Of(c.Volume)
		if base, _, isImage := strings.Cut(d.Name, "@"); known && isImage && !d.Detached && c.Rule != "" && c.Reason != reasonNotNamed {
			p.GuestTroubles = append(p.GuestTroubles, lvm.Trouble{
				What: fmt.Sprintf("%s, which the disk %s of %s goes on from, is left out by rule %s: %s", c.Name(), base, g.Title(), c.Rule, c.Reason),
				Hint: "its backups are of no use without it: take it in, as by exclude = [] in [select]",
			})
		}
	}
}

// Orphans are the volumes that could be backed up and are of no guest, on a host that has guests with volumes.
func (p *Plan) Orphans() []lvm.Volume {
	var orphans []lvm.Volume
	owned := false
	for _, c := range p.Choices {
		if p.GuestOf(c.Volume) != nil {
			owned = true
		} else if IsOrphanage(c.Rule) {
			orphans = append(orphans, c.Volume)
		}
	}
	if !owned {
		return nil
	}
	return orphans
}

// IsOrphanage tells whether a volume that a rule leaves out, or none, could be a guest's disk: not what LVM and this host have for
// themselves.
func IsOrphanage(rule string) bool {
	return !slices.Contains([]string{RuleSnapshot, RulePool, RuleOwn, RuleDestination, RuleState, RuleSwap, RuleGuestLVM}, rule)
}

// wanted is what a run's words mean on a host: patterns of volumes, and the disks of guests that were named.
type wanted struct {
	patterns []string
	guests   map[string]string // the word that named it, by the UUID of the volume
}

// want sorts words into patterns and guests. A word that a volume has for its name means the volume.
func (e *Engine) want(plan *Plan, words []string) (wanted, error) {
	w := wanted{guests: map[string]string{}}
	for _, word := range words {
		disks, err := e.disksNamed(plan, word)
		if err != nil {
			return w, err
		}
		if len(disks) == 0 {
			w.patterns = append(w.patterns, word)
		}
		for _, d := range disks {
			w.guests[d.UUID] = word
		}
	}
	return w, nil
}

// disksNamed returns the disks of the guest that a word names; none if it names no guest.
func (e *Engine) disksNamed(plan *Plan, word string) ([]guests.Disk, error) {
	isVolume := func(v lvm.Volume) bool { return !v.Internal && e.opts.Select.Match(word, v) }
	outright := strings.HasPrefix(word, catalog.GuestPrefix)
	if !outright && slices.ContainsFunc(plan.Volumes, isVolume) {
		return nil, nil
	}
	for _, name := range catalog.GuestNames(word) {
		found := plan.Guests.Named(name.Name)
		if len(found) > 1 {
			return nil, say.WithHint(fmt.Errorf("%w: %q is the name of several guests", ErrUsage, name.Name),
				"name one by its ID: "+say.Listed(say.Names(found, func(g guests.Guest) string { return g.ID }), shownGuests))
		}
		if len(found) == 0 {
			continue
		}
		disks := slices.DeleteFunc(slices.Clone(found[0].Disks), func(d guests.Disk) bool {
			return name.Disk != d.Name && (name.Disk != "" || d.Detached)
		})
		if len(disks) == 0 {
			return nil, say.WithHint(fmt.Errorf("%w: the guest %s has no such disk among this host's volumes", ErrUsage, found[0].Title()),
				cmp.Or(diskHint(found[0]), "its disks are no logical volumes"))
		}
		return disks, nil
	}
	if outright {
		return nil, say.WithHint(fmt.Errorf("%w: there is no guest %q%s", ErrUsage, word, meantGuest(plan, word)),
			"`voltar volumes` lists the guests")
	}
	return nil, nil
}

// shownGuests bounds lists of guests and disks in messages.
const shownGuests = 10

// diskHint says which disks a guest has.
func diskHint(g guests.Guest) string {
	if len(g.Disks) == 0 {
		return ""
	}
	return "it has " + say.Listed(say.Names(g.Disks, func(d guests.Disk) string { return d.Name + " (" + d.Volume() + ")" }), shownGuests)
}

func meantGuest(plan *Plan, word string) string {
	return say.DidYouMean(strings.TrimPrefix(word, catalog.GuestPrefix), guestNames(plan))
}

func guestNames(plan *Plan) []string {
	return say.Names(plan.Guests.Guests, func(g guests.Guest) string { return g.Name })
}

// rule returns the selection that leaves a volume out, if one does. The disks of a guest that was named are those that are backed up of
// it every night: what the configuration excludes stays out.
func (w wanted) rule(s Select, v lvm.Volume) (rule, reason string) {
	if len(w.patterns)+len(w.guests) == 0 {
		return s.configuredRule(v, nil)
	}
	if len(w.patterns) > 0 {
		if rule, _ := s.configuredRule(v, w.patterns); rule == "" {
			return "", ""
		}
	}
	if _, named := w.guests[v.UUID]; !named {
		return RuleInclude, reasonNotNamed
	}
	return s.excluded(v)
}

// check refuses guests none of whose disks may be backed up.
func (w wanted) check(plan *Plan) error {
	left := map[string]Choice{}
	for _, c := range plan.Choices {
		word, named := w.guests[c.Volume.UUID]
		if before, known := left[word]; named && (!known || before.Rule != "") {
			left[word] = c
		}
	}
	for word, c := range left {
		if c.Rule != "" {
			return fmt.Errorf("%w: all disks of %s are left out; %s by rule %s: %s", ErrUsage, word, c.Name(), c.Rule, c.Reason)
		}
	}
	return nil
}
