// Package retention decides which backups of one history stay and which may go. It is pure: it takes the time, the
// backups and a policy, and returns a decision with its reason for each backup. The caller deletes.
//
// A history is the backups of one volume (one LV UUID) on one destination. Its rules, each of which keeps backups and
// none of which condemns what another keeps:
//
//   - days N keeps every backup of the last N calendar days, today being the first of them. Days are those of the
//     clock on the wall in the given location: a day with 23 or 25 hours is one day.
//   - keep_last N keeps the N newest backups.
//   - daily, weekly, monthly, yearly N keep the newest backup of each of the N latest such periods that hold a
//     backup at all, as restic does. Periods without a backup are not counted; weeks are ISO 8601 weeks. The rules
//     do not consume each other's backups: one backup may be the daily, the weekly and the monthly of its time.
//
// On top of the rules, whatever the policy says:
//
//   - The newest complete backup always stays (the floor). Damaged ones never count as the floor; where there is no
//     complete one at all, the newest damaged one stays.
//   - A damaged backup never displaces a complete one: each rule is applied to the complete ones alone, and then to
//     all for the damaged ones, so those are kept for as long as the policy would keep them were they whole.
//   - A foreign backup, made by another machine under this host's name, never displaces one of this machine. It goes
//     when the policy would remove it were it this machine's, so the backups of a host that was replaced go as those
//     of its successor come. Where there is no other, the newest complete one is the floor.
//   - A backup dated ahead (package clock) stays, takes no slot and is no floor: which of the clocks was wrong is not
//     known.
//   - The latest gap of more than a week, between days with a complete backup or between the latest of them and today,
//     counts as one day: it may be a clock that jumped, and no single night ends all that the policy keeps. So a night
//     after such a gap removes what a night without it would have removed.
package retention

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"voltar/internal/clock"
)

// ErrEmptyPolicy is returned for a policy that names nothing to keep: it would remove everything but the floor.
var ErrEmptyPolicy = errors.New("the retention policy keeps nothing: set days, keep_last or another count")

// Backup is what a decision needs to know of one backup.
type Backup struct {
	ID       string
	Time     time.Time // when its snapshot was taken
	Complete bool      // false: damaged, some of its data is missing
	Foreign  bool      // made by another machine under this host's name
}

// Policy says what to keep. A rule whose number is 0 is off.
type Policy struct {
	Days     int // calendar days, today counted
	KeepLast int // newest backups
	Daily    int // newest of each of so many days that have one, and so on
	Weekly   int
	Monthly  int
	Yearly   int
}

// Decision is what becomes of one backup, and why.
type Decision struct {
	Backup Backup
	Keep   bool
	Reason string // "within 7 days, monthly 2026-10", "older than 7 days"
}

// Validate returns ErrEmptyPolicy for a policy without a rule, and an error for one with a negative number.
func (p Policy) Validate() error {
	empty := true
	for _, c := range p.counts() {
		if c.n < 0 {
			return fmt.Errorf("the retention policy's %s is negative (%d)", c.key, c.n)
		}
		empty = empty && c.n == 0
	}
	if empty {
		return ErrEmptyPolicy
	}
	return nil
}

// String gives the policy in words: "7 days", "last 3, 7 daily, 4 weekly, 12 monthly"; "nothing" for an empty one.
func (p Policy) String() string {
	if words := p.words(); len(words) > 0 {
		return strings.Join(words, ", ")
	}
	return "nothing"
}

type count struct {
	key   string
	words string
	n     int
}

func (p Policy) counts() []count {
	return []count{
		{"days", "%d days", p.Days},
		{"keep_last", "last %d", p.KeepLast},
		{"daily", "%d daily", p.Daily},
		{"weekly", "%d weekly", p.Weekly},
		{"monthly", "%d monthly", p.Monthly},
		{"yearly", "%d yearly", p.Yearly},
	}
}

func (p Policy) words() []string {
	var words []string
	for _, c := range p.counts() {
		if c.n > 0 {
			words = append(words, fmt.Sprintf(c.words, c.n))
		}
	}
	if p.Days == 1 {
		words[0] = "1 day"
	}
	return words
}

// Apply decides on every backup of one history and returns the decisions, newest backup first. Calendar periods are
// those of loc, which must not be nil. The order of backups does not matter; the slice is not changed.
func Apply(now time.Time, loc *time.Location, backups []Backup, policy Policy) ([]Decision, error) {
	if err := policy.Validate(); err != nil {
		return nil, err
	}
	sorted := slices.Clone(backups)
	slices.SortFunc(sorted, newestFirst)

	// Decisions are worked on through the positions of their backups, since nothing makes an ID unique.
	reasons := make([][]string, len(sorted))
	var countable []int // positions of backups that take slots
	for i, b := range sorted {
		if clock.IsAhead(b.Time, now) {
			reasons[i] = append(reasons[i], "dated ahead of this host's clock")
		} else {
			countable = append(countable, i)
		}
	}
	window := newWindow(now, loc, sorted, policy.Days)
	for _, i := range countable {
		if within, reason := window.keeps(sorted[i].Time); within {
			reasons[i] = append(reasons[i], reason)
		}
	}
	for _, rule := range policy.rules(loc) {
		for _, k := range rule.keepersByClass(sorted, countable) {
			reasons[k.at] = append(reasons[k.at], k.reason)
		}
	}
	for _, i := range floors(now, sorted) {
		if len(reasons[i]) == 0 && sorted[i].Complete {
			reasons[i] = []string{"last good backup"}
		} else if len(reasons[i]) == 0 {
			reasons[i] = []string{"best there is, as no backup is complete"}
		}
	}

	decisions := make([]Decision, len(sorted))
	for i, b := range sorted {
		d := Decision{Backup: b, Keep: len(reasons[i]) > 0, Reason: strings.Join(reasons[i], ", ")}
		if !d.Keep {
			d.Reason = policy.whyRemoved()
		}
		if b.Foreign {
			d.Reason += " (made by another machine)"
		}
		decisions[i] = d
	}
	return decisions, nil
}

// floors returns the positions of the backups that stay whatever the rules say: the best of this machine's, and where
// that is not complete, the best of all as well.
func floors(now time.Time, sorted []Backup) []int {
	own, all := -1, -1
	better := func(i, than int) bool { return than < 0 || sorted[i].Complete && !sorted[than].Complete }
	for i, b := range sorted {
		if clock.IsAhead(b.Time, now) {
			continue
		}
		if !b.Foreign && better(i, own) {
			own = i
		}
		if better(i, all) {
			all = i
		}
	}
	switch {
	case all < 0:
		return nil
	case own < 0 || own == all:
		return []int{all}
	case sorted[own].Complete:
		return []int{own}
	default:
		return []int{own, all}
	}
}

// newestFirst orders backups so that equal input in any order gives equal output, and among those of one second the
// complete come first, for they are the ones to keep.
func newestFirst(a, b Backup) int {
	return cmp.Or(
		b.Time.Compare(a.Time),
		compareBool(b.Complete, a.Complete),
		compareBool(a.Foreign, b.Foreign),
		cmp.Compare(b.ID, a.ID),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// whyRemoved names the rules that did not keep a backup.
func (p Policy) whyRemoved() string {
	words := p.words()
	if p.Days == 0 {
		return "not among " + strings.Join(words, ", ")
	}
	older := "older than " + words[0]
	if len(words) == 1 {
		return older
	}
	return older + ", not among " + strings.Join(words[1:], ", ")
}

// window is the rule on days.
type window struct {
	loc   *time.Location
	days  int
	today int // number of the calendar day
	// The latest long gap: the day before it, and how many days it lasts. Without one gapDays is 1, which changes nothing.
	gapFrom, gapDays int
}

func newWindow(now time.Time, loc *time.Location, sorted []Backup, days int) window {
	w := window{loc: loc, days: days, today: clock.Day(now, loc), gapDays: 1}
	counts := func(b Backup) bool { return b.Complete && !clock.IsAhead(b.Time, now) }
	hasOwn := slices.ContainsFunc(sorted, func(b Backup) bool { return counts(b) && !b.Foreign })
	after := w.today
	for _, b := range sorted {
		if !counts(b) || b.Foreign && hasOwn {
			continue
		}
		day := clock.Day(b.Time, loc)
		if after-day > clock.LongGapDays {
			w.gapFrom, w.gapDays = day, after-day
			break
		}
		after = day
	}
	return w
}

func (w window) keeps(t time.Time) (bool, string) {
	day := clock.Day(t, w.loc)
	age, reason := w.today-day, "within "+Policy{Days: w.days}.String()
	if w.gapDays > 1 && day <= w.gapFrom {
		age -= w.gapDays - 1
		reason += fmt.Sprintf(", with a gap of %d days counted as one", w.gapDays)
	}
	return age < w.days, reason
}

// rule keeps the newest backup of each of the n latest periods.
type rule struct {
	n      int
	period func(Backup) (key, reason string) // nil: each backup is a period of its own
	name   string
}

type keeper struct {
	at     int
	reason string
}

func (p Policy) rules(loc *time.Location) []rule {
	layout := func(name, layout string) func(Backup) (string, string) {
		return func(b Backup) (string, string) {
			key := b.Time.In(loc).Format(layout)
			return key, name + " " + key
		}
	}
	week := func(b Backup) (string, string) {
		year, week := b.Time.In(loc).ISOWeek()
		key := fmt.Sprintf("%04d-W%02d", year, week)
		return key, "weekly " + key
	}
	return []rule{
		{n: p.KeepLast, name: fmt.Sprintf("last %d", p.KeepLast)},
		{n: p.Daily, period: layout("daily", "2006-01-02")},
		{n: p.Weekly, period: week},
		{n: p.Monthly, period: layout("monthly", "2006-01")},
		{n: p.Yearly, period: layout("yearly", "2006")},
	}
}

// keepersByClass picks for each class of backups from those that may displace them: a damaged one displaces only damaged
// ones, a foreign one only foreign ones.
func (r rule) keepersByClass(sorted []Backup, countable []int) []keeper {
	var kept []keeper
	for _, class := range []struct{ complete, foreign bool }{{true, false}, {false, false}, {true, true}, {false, true}} {
		among := slices.DeleteFunc(slices.Clone(countable), func(i int) bool {
			return class.complete && !sorted[i].Complete || !class.foreign && sorted[i].Foreign
		})
		for _, k := range r.keepers(sorted, among) {
			if b := sorted[k.at]; b.Complete == class.complete && b.Foreign == class.foreign {
				kept = append(kept, k)
			}
		}
	}
	return kept
}

// keepers picks from the backups at the given positions, newest first.
func (r rule) keepers(sorted []Backup, positions []int) []keeper {
	var kept []keeper
	seen := make(map[string]bool)
	for _, at := range positions {
		if len(kept) == r.n {
			break
		}
		if r.period == nil {
			kept = append(kept, keeper{at, r.name})
			continue
		}
		// A set, as calendar days do not always follow each other: some clocks went back across midnight.
		key, reason := r.period(sorted[at])
		if seen[key] {
			continue
		}
		seen[key] = true
		kept = append(kept, keeper{at, reason})
	}
	return kept
}
