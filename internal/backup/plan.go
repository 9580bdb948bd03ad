package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"

	"voltar/internal/extent"
	"voltar/internal/guests"
	"voltar/internal/hostcmd"
	"voltar/internal/journal"
	"voltar/internal/owned"
	"voltar/internal/say"
	"voltar/lvm"
)

// Rules that leave a volume out; each stands in the report beside what it left out.
const (
	RuleSnapshot    = "snapshot"          // a classic snapshot, or a thin one that LVM does not activate
	RulePool        = "pool"              // space for other volumes
	RuleInactive    = "inactive"          // not active on this host, and select.activate_inactive is off
	RuleOwn         = "voltar"            // made by this program
	RuleDestination = "holds-destination" // backups lie on it
	RuleState       = "holds-state"       // voltar's journal and history lie on it
	RuleSwap        = "host-swap"         // this host swaps to it
	RuleSharedVG    = "shared-vg"         // other hosts may write to its volume group
	RuleGuestLVM    = "guest-lvm"         // its volume group is a guest's, which this host happens to see
	RuleGroups      = "select.volume_groups"
	RuleInclude     = "select.include"
	RuleExclude     = "select.exclude"
	RuleIncludeTags = "select.include_tags"
	RuleExcludeTags = "select.exclude_tags"
	RuleExcludeTag  = "tag voltar.exclude"
	RuleIncomplete  = "tag " + journal.TagIncomplete
	RuleSkip        = "as = skip"
)

// TagExclude on an LV leaves it out.
const TagExclude = "voltar.exclude"

// Choice is one volume of the host and whether it is backed up.
type Choice struct {
	Volume lvm.Volume
	Rule   string // that leaves it out; "" when it is backed up
	Reason string // the rule in words
}

// Name returns VG/LV.
func (c Choice) Name() string { return c.Volume.String() }

// Plan is what a run would do.
type Plan struct {
	Choices []Choice // every volume of the host but LVM's internal ones, by name
	lvm.Inventory
	Guests        guests.Found
	GuestTroubles []lvm.Trouble // why not all is known of them
}

// Selected returns the volumes to back up.
func (p *Plan) Selected() []lvm.Volume {
	var list []lvm.Volume
	for _, c := range p.Choices {
		if c.Rule == "" {
			list = append(list, c.Volume)
		}
	}
	return list
}

// Plan looks at the volumes of the host. Patterns, where there are any, choose instead of the configuration's own
// patterns and tags; the built-in rules hold all the same, and a pattern that chooses nothing is an error. A guest's name, alone or
// with a colon and a disk, stands for its volumes.
func (e *Engine) Plan(ctx context.Context, patterns []string) (*Plan, error) {
	return e.planWith(ctx, patterns, nil)
}

// planWith is Plan, where a mistyped pattern may also stand for one of the other names.
func (e *Engine) planWith(ctx context.Context, patterns, others []string) (*Plan, error) {
	inventory, err := e.LVM.Inventory(ctx)
	if err != nil {
		return nil, asRoot(fmt.Errorf("list volumes: %w", err))
	}
	e.space.Note(inventory)
	used, err := e.hostUses(ctx, inventory)
	if err != nil {
		return nil, err
	}
	inGuests, err := e.LVM.GuestGroups(inventory)
	if err != nil {
		return nil, fmt.Errorf("find volume groups of guests: %w", err)
	}
	plan := &Plan{Inventory: inventory}
	if e.opts.FindGuests != nil {
		plan.Guests, plan.GuestTroubles = e.opts.FindGuests(ctx, inventory)
	}
	wanted, err := e.want(plan, patterns)
	if err != nil {
		return nil, err
	}
	for _, v := range inventory.Volumes {
		if v.Internal {
			continue
		}
		c := Choice{Volume: v}
		c.Rule, c.Reason = e.opts.builtInRule(v, inventory.VGOf(v), used)
		if reason := inGuests[v.VGUUID]; c.Rule == "" && reason != "" && !e.opts.Select.namesOutright(v, wanted.patterns) {
			c.Rule, c.Reason = RuleGuestLVM, reason
		}
		if c.Rule == "" {
			c.Rule, c.Reason = wanted.rule(e.opts.Select, v)
		}
		plan.Choices = append(plan.Choices, c)
	}
	sort.Slice(plan.Choices, func(i, j int) bool { return plan.Choices[i].Name() < plan.Choices[j].Name() })
	plan.noteChains()
	others = append(slices.Clone(others), guestNames(plan)...)
	return plan, errors.Join(e.opts.Select.checkPatterns(plan, wanted.patterns, others), wanted.check(plan))
}

// asRoot adds to a failure of lvm2 that it answers root alone, where this user is another.
func asRoot(err error) error {
	if os.Geteuid() == 0 || errors.Is(err, hostcmd.ErrNotFound) {
		return err
	}
	return say.WithHint(err, "run it as root: lvm2 answers nobody else")
}

// builtInRule returns the rule of this program that leaves a volume out, if one does.
func (o *Options) builtInRule(v lvm.Volume, vg lvm.VG, used map[string]hostUse) (rule, reason string) {
	switch {
	case slices.ContainsFunc(v.Tags, isOwnTag) && !isPromoted(v):
		return RuleOwn, "a snapshot that voltar made"
	case v.IsPool():
		return RulePool, "a pool: space for other volumes"
	case v.IsClassicSnapshot():
		return RuleSnapshot, "a snapshot of " + v.Origin
	case v.HasTag(journal.TagIncomplete):
		return RuleIncomplete, "a restore that is going on or failed: restore it again, or take the tag away"
	case v.Merging:
		return RuleSnapshot, "a snapshot is being merged into it"
	case v.IsThinSnapshot() && v.ActivationSkip:
		return RuleSnapshot, "a thin snapshot of " + v.Origin + " that is not activated with its group"
	case othersMayWrite(vg) && !o.Select.SharedSingleWriter:
		return RuleSharedVG, `other hosts may write to the volume group; set select.shared_vg = "single-writer" if none does`
	case !v.Active && !o.Select.ActivateInactive:
		return RuleInactive, "not active on this host; select.activate_inactive takes it"
	}
	if use, found := used[v.UUID]; found {
		return use.rule, use.reason
	}
	if o.Settings(v).As == extent.AsSkip {
		return RuleSkip, "the configuration skips it"
	}
	return "", ""
}

// namesOutright tells whether a run's patterns, or else the configuration, name the volume group of a volume in full: for
// those of guests, a pattern for any group is not enough.
func (s Select) namesOutright(v lvm.Volume, patterns []string) bool {
	if len(patterns) == 0 {
		patterns = s.Include
		if slices.Contains(s.VolumeGroups, v.VG) {
			return true
		}
	}
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		vg, _, found := strings.Cut(pattern, "/")
		return found && vg == v.VG && s.Match(pattern, v)
	})
}

// MissingGroups returns the patterns of volume groups that no group of the host matches: a typo leaves out all that was meant.
func (s Select) MissingGroups(vgs []lvm.VG) []string {
	return slices.DeleteFunc(slices.Clone(s.VolumeGroups), func(pattern string) bool {
		return slices.ContainsFunc(vgs, func(vg lvm.VG) bool { return s.MatchGroup(pattern, vg.Name) })
	})
}

// othersMayWrite tells whether a volume group is one that other hosts may change at any time.
func othersMayWrite(vg lvm.VG) bool { return vg.Shared || vg.Clustered || vg.Foreign }

func isOwnTag(tag string) bool { return tag == owned.TagOwn || strings.HasPrefix(tag, TagKept) }

// reasonNotNamed is why a run of named volumes leaves out all others, of which its report says nothing.
const reasonNotNamed = "not named"

// configuredRule returns the selection that leaves a volume out, if one does.
func (s Select) configuredRule(v lvm.Volume, patterns []string) (rule, reason string) {
	matches := func(pattern string) bool { return s.Match(pattern, v) }
	if len(patterns) > 0 {
		if !slices.ContainsFunc(patterns, matches) {
			return RuleInclude, reasonNotNamed
		}
		return "", ""
	}
	hasTag := func(tag string) bool { return slices.Contains(v.Tags, tag) }
	switch {
	case hasTag(TagExclude):
		return s.excluded(v)
	case len(s.VolumeGroups) > 0 && !slices.ContainsFunc(s.VolumeGroups, func(p string) bool { return s.MatchGroup(p, v.VG) }):
		return RuleGroups, "its volume group is not selected"
	case len(s.Include) > 0 && !slices.ContainsFunc(s.Include, matches):
		return RuleInclude, "no pattern includes it"
	case len(s.IncludeTags) > 0 && !slices.ContainsFunc(s.IncludeTags, hasTag):
		return RuleIncludeTags, "it has none of the tags"
	}
	return s.excluded(v)
}

// excluded returns what of the configuration excludes a volume by its name or tags, if something does.
func (s Select) excluded(v lvm.Volume) (rule, reason string) {
	if v.HasTag(TagExclude) {
		return RuleExcludeTag, "its tag says so"
	}
	matches := func(pattern string) bool { return s.Match(pattern, v) }
	if i := slices.IndexFunc(s.Exclude, matches); i >= 0 {
		return RuleExclude, fmt.Sprintf("pattern %q", s.Exclude[i])
	}
	if i := slices.IndexFunc(s.ExcludeTags, v.HasTag); i >= 0 {
		return RuleExcludeTags, fmt.Sprintf("tag %q", s.ExcludeTags[i])
	}
	return "", ""
}

// checkPatterns refuses named volumes that are not there, that are ambiguous, or that a rule leaves out.
func (s Select) checkPatterns(plan *Plan, patterns, others []string) error {
	for _, pattern := range patterns {
		var found []Choice
		for _, c := range plan.Choices {
			if s.Match(pattern, c.Volume) {
				found = append(found, c)
			}
		}
		isGlob := strings.ContainsAny(pattern, `*?[\`)
		switch {
		case len(found) == 0:
			return say.WithHint(fmt.Errorf("%w: there is no volume %q%s", ErrUsage, pattern, meant(plan, pattern, others)),
				"`voltar volumes` lists what there is")
		case !isGlob && len(found) > 1:
			return say.WithHint(fmt.Errorf("%w: %q is in several volume groups: %s", ErrUsage, pattern, namesOf(found)),
				"name one as VG/LV")
		case !isGlob && found[0].Rule != "":
			return fmt.Errorf("%w: %s is left out by rule %s: %s", ErrUsage, found[0].Name(), found[0].Rule, found[0].Reason)
		}
	}
	return nil
}

// meant says which volume, or which of the other names, a mistyped one may stand for.
func meant(plan *Plan, pattern string, others []string) string {
	volumes := say.Names(plan.Choices, func(c Choice) string {
		if strings.Contains(pattern, "/") {
			return c.Name()
		}
		return c.Volume.Name
	})
	return say.DidYouMean(pattern, slices.Concat(others, volumes))
}

func namesOf(choices []Choice) string {
	var names []string
	for _, c := range choices {
		names = append(names, c.Name())
	}
	return strings.Join(names, ", ")
}
