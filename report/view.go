package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"voltar/internal/say"
)

// Options of the renderings.
type Options struct {
	Location *time.Location // for times; nil means UTC
	History  []Point        // earlier runs in any order, without this one; for the forecast and the trend
	TrendCID string         // content id of the trend's picture in the same mail; "" leaves the picture out of the HTML
}

// view is a run in words, ready for any rendering: everything in it is clean and bounded, nothing in it is yet escaped.
type view struct {
	Subject      string
	Preheader    string // what lists of mails show behind the subject
	Verdict      Verdict
	Headline     string
	When         string
	Facts        []fact
	Counters     []counter
	Failures     []problemView // what went wrong, the first thing to read
	Warnings     []problemView
	Volumes      volumesView
	Destinations []destinationView
	Ledger       []string // what is not stored as files, by kind
	Known        []string // what is well, and worth knowing
	LeftOut      []line2  // volumes that no backup was made of
	Gone         []line2
	Recovered    []string
	Trend        trendView
	Footer       []string
}

type fact struct{ Label, Value string }

// line2 is a name and what there is to say of it.
type line2 struct{ Name, Text string }

// Tones of what is shown.
const (
	toneGood = "good"
	toneWarn = "warn"
	toneBad  = "bad"
)

// counter is a figure of the run's first row.
type counter struct {
	Value, Label string
	Tone         string // "" for none
}

type trendView struct {
	Words       string // what the picture shows; "" for no trend
	CID         string
	Most        string // the top of the axis: bytes stored
	Longest     string // the top of the line: a duration
	First, Last string // dates at the ends of the axis
}

func newView(run Run, opts Options) view {
	run = cleaned(run)
	loc := opts.Location
	if loc == nil {
		loc = time.UTC
	}
	var points []Point
	if run.makesBackups() {
		points = append(append(points, opts.History...), PointOf(run))
	}
	v := view{
		Subject:   Subject(run),
		Verdict:   run.Verdict(),
		Headline:  run.headline(),
		When:      run.Started.In(loc).Format("Monday, 2006-01-02 15:04 MST") + ", took " + FormatDuration(run.Ended.Sub(run.Started)),
		Facts:     facts(run, loc),
		Failures:  failures(run, loc),
		Warnings:  warnings(run),
		Volumes:   newVolumesView(run),
		Ledger:    ledger(run),
		Known:     known(run),
		Gone:      gone(run, loc),
		Recovered: run.Recovered,
		Footer:    footer(run),
	}
	for _, d := range run.Destinations {
		v.Destinations = append(v.Destinations, newDestinationView(run, d, points, loc))
	}
	for _, e := range run.Excluded {
		v.LeftOut = append(v.LeftOut, line2{e.Name, join(": ", e.Rule, e.Reason)})
	}
	v.LeftOut = merge(v.LeftOut, func(a, b line2) bool { return a.Text == b.Text },
		func(into *line2, l line2) { into.Name += ", " + l.Name })
	v.Counters = counters(run, len(v.Warnings), points, loc)
	v.Preheader = preheader(run, v)
	v.Trend = newTrendView(latest(points), opts.TrendCID, loc)
	return v
}

// counters are the figures that sum up a run: with none to sum up, there are none.
func counters(run Run, toLookAt int, points []Point, loc *time.Location) []counter {
	if run.planned() == 0 {
		return nil
	}
	bad, notDone := len(run.notGood())+run.missing(), 0
	for _, v := range run.Volumes {
		if v.Status == VolumeSkipped {
			notDone++
		}
	}
	tone := func(n int, tone string) string {
		if n == 0 {
			return ""
		}
		return tone
	}
	number := func(n int) string { return say.Count(int64(n)) }
	good := run.planned() - bad
	list := []counter{
		{number(good), "good", tone(good, toneGood)},
		{number(bad - notDone), failedWord(run), tone(bad-notDone, toneBad)},
	}
	if notDone > 0 {
		list = append(list, counter{number(notDone), "not done", toneBad})
	}
	list = append(list, counter{number(toLookAt), "to look at", tone(toLookAt, toneWarn)})
	if !run.makesBackups() {
		return append(list, counter{say.Size(run.storedBytes()), "looked at", ""})
	}
	list = append(list, counter{say.Size(run.storedBytes()), "stored", ""})
	if free, ok := freeCounter(run, points, loc); ok {
		list = append(list, free)
	}
	return list
}

func failedWord(run Run) string {
	if run.makesBackups() {
		return "failed"
	}
	return "not good"
}

// freeCounter is the room on the destination that is full first.
func freeCounter(run Run, points []Point, loc *time.Location) (c counter, ok bool) {
	least := math.Inf(1)
	for _, d := range run.Destinations {
		if d.TotalBytes <= 0 || d.FreeBytes < 0 {
			continue
		}
		f := forecastOf(points, d.Name, loc)
		rank := math.MaxFloat64
		switch {
		case d.FreeBytes == 0:
			rank = 0
		case f.Known:
			rank = f.Days
		}
		if rank >= least {
			continue
		}
		least, ok = rank, true
		c = counter{Value: say.Size(d.FreeBytes), Label: "free"}
		if len(run.Destinations) > 1 {
			c.Label += " on " + shorten(d.Name, 20)
		}
		switch {
		case d.FreeBytes == 0:
			c.Label, c.Tone = c.Label+": it is full", toneBad
		case f.Known && f.Days <= forecastMaxDays:
			c.Label += ": full in " + say.Counted(int64(math.Ceil(f.Days)), "day")
			if f.Days <= soonDays {
				c.Tone = toneWarn
			}
		}
	}
	return c, ok
}

// soonDays is how long before a destination is full the counter warns.
const soonDays = 14

// preheader is the cause and the age of what there is to fall back on; of a run that went well, how it went.
func preheader(run Run, v view) string {
	var text string
	switch {
	case len(v.Failures) > 0:
		f := v.Failures[0]
		text = join(". ", f.First(), f.Good)
		if len(f.None) > 0 {
			text = "NO GOOD BACKUP of " + say.Listed(f.None, 2) + ". " + f.First()
		}
	case len(v.Warnings) > 0:
		text = join(": ", say.Listed(v.Warnings[0].Names, 2), v.Warnings[0].First())
	case !run.makesBackups():
		text = "took " + FormatDuration(run.Ended.Sub(run.Started))
	default:
		text = fmt.Sprintf("%s stored in %s", say.Size(run.storedBytes()), FormatDuration(run.Ended.Sub(run.Started)))
		for _, d := range v.Destinations {
			text = join("; ", text, join(": ", d.Name, d.Room))
		}
	}
	return shorten(text, 200)
}

// join joins the parts that are not empty.
func join(sep string, parts ...string) string {
	var present []string
	for _, part := range parts {
		if part != "" {
			present = append(present, part)
		}
	}
	return strings.Join(present, sep)
}

// merge adds what is alike to the first of its kind: one cause that befell forty volumes is told once.
func merge[T any](in []T, alike func(a, b T) bool, add func(into *T, item T)) []T {
	var out []T
	for _, item := range in {
		if at := slices.IndexFunc(out, func(o T) bool { return alike(o, item) }); at >= 0 {
			add(&out[at], item)
			continue
		}
		out = append(out, item)
	}
	return out
}

func facts(run Run, loc *time.Location) []fact {
	if !run.makesBackups() {
		return []fact{
			{"Start time", run.Started.In(loc).Format("2006-01-02 15:04:05 MST")},
			{"Total execution time", FormatDuration(run.Ended.Sub(run.Started))},
		}
	}
	retention := run.Retention
	if retention == "" {
		retention = "none: nothing is removed"
	}
	list := []fact{
		{"Backup start time", run.Started.In(loc).Format("2006-01-02 15:04:05 MST")},
		{"Current retention", retention},
		{"Total execution time", FormatDuration(run.Ended.Sub(run.Started))},
	}
	if all, ok := RestoreTimeOf(run.Volumes); ok && len(run.Named) == 0 {
		list = append(list, fact{"Time to restore all", all.String()})
	}
	return list
}

// shownPairs bounds the lists of what was left out and what is gone.
const shownPairs = 30

func gone(run Run, loc *time.Location) []line2 {
	var list []line2
	for _, g := range run.Gone {
		text := say.Counted(int64(g.Backups), "backup")
		if !g.Newest.IsZero() {
			text += ", newest " + g.Newest.In(loc).Format("2006-01-02")
		}
		list = append(list, line2{g.Name, join("; ", text, g.Note)})
	}
	return list
}

func newTrendView(points []Point, cid string, loc *time.Location) trendView {
	if len(points) < 2 {
		return trendView{}
	}
	var mostBytes int64
	var longest time.Duration
	bad := 0
	for _, p := range points {
		mostBytes, longest = max(mostBytes, p.StoredBytes), max(longest, p.Duration)
		if p.Verdict == VerdictFailed || p.Verdict == VerdictInterrupted {
			bad++
		}
	}
	return trendView{
		Words: fmt.Sprintf("Of the last %d runs %d failed. At most %s stored in a run, at most %s taken.",
			len(points), bad, say.Size(mostBytes), FormatDuration(longest)),
		CID: cid, Most: say.Size(mostBytes), Longest: FormatDuration(longest),
		First: points[0].Time.In(loc).Format("2006-01-02"), Last: points[len(points)-1].Time.In(loc).Format("2006-01-02"),
	}
}

func footer(run Run) []string {
	return []string{
		join(", ", strings.TrimSpace("voltar "+run.Version), "run "+run.ID, fmt.Sprintf("exit code %d", run.ExitCode)),
		run.Config,
	}
}
