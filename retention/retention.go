// Package retention decides which backups of one history stay and which may go. It is pure: it takes the time, the
// backups and a policy, and returns a decision with its reason for each backup. The caller deletes.
//
// A history is the backups of one volume (one LV UUID) on one destination. Its rules, each of which keeps backups and
// none of which condemns what another keeps:
//
//   - days N keeps every backup of the last N calendar days, today being the first of them. Days are those of the
//     clock on the wall in the given location: a day with 23 or 25 hours is one day.
//   - keep_last N keeps the N newest backups.
//   - hourly, daily, weekly, monthly, yearly N keep the newest backup of each of the N latest such periods that hold a
//     backup at all, as restic does. Periods without a backup are not counted; weeks are ISO 8601 weeks. The rules
//     do not consume each other's backups: one backup may be the daily, the weekly and the monthly of its time.
//
// On top of the rules, whatever the policy says:
//
//   - The newest complete backup always stays (the floor). Damaged ones never count as the floor; where there is no
//     complete one at all, the newest damaged one stays.
//   - A damaged backup never displaces a complete one: each rule is applied to the complete ones alone, and then to
//     all for the damaged ones, so that those are kept for as long as the policy would keep them were they whole.
//   - A backup dated in the future stays, takes no slot and is no floor: which of the clocks was wrong is not known.
//   - A protected backup stays and takes no slot.
//   - A gap of more than 31 days before the latest day with a complete backup, or between that day and today, is
//     taken for a clock that jumped until a complete backup of a second day confirms it. Until then, the days before
//     the gap are counted back from its beginning as well as from today.
package retention

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrEmptyPolicy is returned for a policy that names nothing to keep: it would remove everything but the floor.
var ErrEmptyPolicy = errors.New("the retention policy keeps nothing: set days, keep_last or another count")

// jumpDays is the longest gap between backups that is believed at once: longer than any month, so that monthly backups
// are never taken for a clock that jumped.
const jumpDays = 31

// Backup is what a decision needs to know of one backup.
type Backup struct {
	ID        string
	Time      time.Time // when its snapshot was taken
	Complete  bool      // false: damaged, some of its data is missing
	Protected bool      // held by a person or by the store: never condemned
}

// Policy says what to keep. A rule whose number is 0 is off.
type Policy struct {
	Days     int // calendar days, today counted
	KeepLast int // newest backups
	Hourly   int // newest of each of so many hours that have one, and so on
	Daily    int
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

// String gives the decision in words: "kept: within 7 days", "removed: older than 7 days".
func (d Decision) String() string {
	if d.Keep {
		return "kept: " + d.Reason
	}
	return "removed: " + d.Reason
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
		{"hourly", "%d hourly", p.Hourly},
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
	var complete, countable []int // positions of backups that take slots
	best := -1                    // position of the floor
	for i, b := range sorted {
		switch {
		case b.Time.After(now):
			reasons[i] = append(reasons[i], "dated in the future")
			continue
		case best < 0 || b.Complete && !sorted[best].Complete:
			best = i
		}
		if b.Protected {
			reasons[i] = append(reasons[i], "protected")
			continue
		}
		countable = append(countable, i)
		if b.Complete {
			complete = append(complete, i)
		}
	}

	window := newWindow(now, loc, sorted, policy.Days)
	for _, rule := range policy.rules(loc) {
		for _, k := range rule.keepers(sorted, complete) {
			reasons[k.at] = append(reasons[k.at], k.reason)
		}
		for _, k := range rule.keepers(sorted, countable) {
			if !sorted[k.at].Complete {
				reasons[k.at] = append(reasons[k.at], k.reason)
			}
		}
	}

	decisions := make([]Decision, len(sorted))
	for i, b := range sorted {
		why := reasons[i]
		if within, reason := window.keeps(b.Time); within && !b.Time.After(now) && !b.Protected {
			why = append([]string{reason}, why...)
		}
		if len(why) == 0 && i == best {
			why = []string{"last good backup"}
			if !b.Complete {
				why = []string{"best there is, as no backup is complete"}
			}
		}
		d := Decision{Backup: b, Keep: len(why) > 0, Reason: strings.Join(why, ", ")}
		if !d.Keep {
			d.Reason = policy.whyRemoved()
		}
		decisions[i] = d
	}
	return decisions, nil
}

// Condemned returns what the policy removes, oldest first. Before tonight's backup stands, with only the standing ones
// given, these are the backups that may go first where there is no room for it: tonight's is not counted, and the floor
// stays.
func Condemned(now time.Time, loc *time.Location, backups []Backup, policy Policy) ([]Decision, error) {
	decisions, err := Apply(now, loc, backups, policy)
	if err != nil {
		return nil, err
	}
	condemned := slices.DeleteFunc(decisions, func(d Decision) bool { return d.Keep })
	slices.Reverse(condemned)
	return condemned, nil
}

// newestFirst orders backups so that equal input in any order gives equal output, and among those of one second the
// complete come first, for they are the ones to keep.
func newestFirst(a, b Backup) int {
	return cmp.Or(
		b.Time.Compare(a.Time),
		compareBool(b.Complete, a.Complete),
		compareBool(b.Protected, a.Protected),
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
	mark  int // the day before a gap that the clock may have made, from which days are counted as well; today when none
}

func newWindow(now time.Time, loc *time.Location, sorted []Backup, days int) window {
	w := window{loc: loc, days: days, today: dayNumber(now, loc)}
	w.mark = w.today
	var latest []int // the two latest days that have a complete backup
	for _, b := range sorted {
		if !b.Complete || b.Time.After(now) {
			continue
		}
		day := dayNumber(b.Time, loc)
		if len(latest) == 0 || day < latest[len(latest)-1] {
			latest = append(latest, day)
		}
		if len(latest) == 2 {
			break
		}
	}
	switch {
	case len(latest) == 2 && latest[0]-latest[1] > jumpDays:
		w.mark = latest[1]
	case len(latest) > 0 && w.today-latest[0] > jumpDays:
		w.mark = latest[0]
	}
	return w
}

func (w window) keeps(t time.Time) (bool, string) {
	if w.days == 0 {
		return false, ""
	}
	words := Policy{Days: w.days}.String()
	day := dayNumber(t, w.loc)
	switch {
	case w.today-day < w.days:
		return true, "within " + words
	case day <= w.mark && w.mark-day < w.days:
		return true, "within " + words + " before a long gap, which another day's backup has yet to confirm"
	default:
		return false, ""
	}
}

// dayNumber counts calendar days of loc, so that the difference of two numbers is one of dates, never of hours.
func dayNumber(t time.Time, loc *time.Location) int {
	year, month, day := t.In(loc).Date()
	const secondsPerDay = 24 * 60 * 60
	return int(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix() / secondsPerDay)
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
	hour := func(b Backup) (string, string) {
		// The hour that the clock goes through twice in autumn is two hours.
		local := b.Time.In(loc)
		return local.Format("2006-01-02 15h -07:00"), "hourly " + local.Format("2006-01-02 15h")
	}
	week := func(b Backup) (string, string) {
		year, week := b.Time.In(loc).ISOWeek()
		key := fmt.Sprintf("%04d-W%02d", year, week)
		return key, "weekly " + key
	}
	return []rule{
		{n: p.KeepLast, name: fmt.Sprintf("last %d", p.KeepLast)},
		{n: p.Hourly, period: hour},
		{n: p.Daily, period: layout("daily", "2006-01-02")},
		{n: p.Weekly, period: week},
		{n: p.Monthly, period: layout("monthly", "2006-01")},
		{n: p.Yearly, period: layout("yearly", "2006")},
	}
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
