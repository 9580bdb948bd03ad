package report

import (
	"fmt"
	"maps"
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

// view is a run in words, ready for any rendering: everything in it is clean, nothing in it is yet escaped.
type view struct {
	Subject      string
	Verdict      Verdict
	Headline     string
	Facts        []fact
	Failures     []failure // what went wrong, the first thing to read
	Warnings     []failure
	Volumes      []volumeView
	Destinations []destinationView
	Ledger       []line2 // what is not stored as files, and why
	LeftOut      []line2 // volumes that no backup was made of
	Gone         []line2
	Recovered    []string
	Trend        string // what the picture shows, in words
	TrendCID     string
	Footer       string
}

type fact struct{ Label, Value string }

// line2 is a name and what there is to say of it.
type line2 struct{ Name, Text string }

type failure struct {
	Name    string // of the volume or destination; "" for the run
	Message string // may have several lines
	Hint    string
}

// Hints are the lines of the hint: each cause may have its own.
func (f failure) Hints() []string {
	return strings.FieldsFunc(f.Hint, func(r rune) bool { return r == '\n' })
}

type volumeView struct {
	Name     string
	Status   VolumeStatus
	Word     string // status for people
	Good     bool
	Duration string
	Size     string
	Change   string
	Details  []string
	Paths    []string
	Removed  []string
}

type destinationView struct {
	Name, Where string
	Lines       []string
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
		Facts:     facts(run, loc),
		Failures:  failures(run),
		Warnings:  warnings(run),
		Gone:      gone(run, loc),
		Recovered: run.Recovered,
		Footer:    footer(run),
	}
	for _, volume := range run.Volumes {
		shown := newVolumeView(volume, run.Ended, loc)
		if !run.makesBackups() {
			shown.Change = "-"
		}
		v.Volumes = append(v.Volumes, shown)
		v.Ledger = append(v.Ledger, ledger(volume)...)
	}
	v.Ledger = merge(v.Ledger, func(a, b line2) bool { return a.Text == b.Text },
		func(into *line2, l line2) { into.Name += ", " + l.Name })
	// The worst first: nobody reads on to the fortieth line.
	v.Volumes = partition(v.Volumes, func(volume volumeView) bool { return !volume.Good })
	for _, d := range run.Destinations {
		v.Destinations = append(v.Destinations, newDestinationView(d, points, loc))
	}
	for _, e := range run.Excluded {
		v.LeftOut = append(v.LeftOut, line2{e.Name, join(": ", e.Rule, e.Reason)})
	}
	if shown := latest(points); len(shown) > 1 {
		v.Trend = trendWords(shown)
		v.TrendCID = opts.TrendCID
	}
	return v
}

// partition brings what is first to the front and leaves the order otherwise.
func partition[T any](in []T, first func(T) bool) []T {
	var front, back []T
	for _, item := range in {
		if first(item) {
			front = append(front, item)
		} else {
			back = append(back, item)
		}
	}
	return append(front, back...)
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
	return []fact{
		{"Backup start time", run.Started.In(loc).Format("2006-01-02 15:04:05 MST")},
		{"Current retention", retention},
		{"Total execution time", FormatDuration(run.Ended.Sub(run.Started))},
	}
}

func failures(run Run) []failure {
	var list []failure
	for _, p := range run.Errors {
		list = append(list, failure{"", p.Message, p.Hint})
	}
	for _, d := range run.Destinations {
		if d.Error != nil && !slices.ContainsFunc(run.Errors, func(p Problem) bool { return tells(p, d.Error) }) {
			list = append(list, failure{"destination " + d.Name, join("\n", d.Error.Message, run.absent(d)), d.Error.Hint})
		}
	}
	for _, v := range run.notGood() {
		list = append(list, volumeFailures(v, run)...)
	}
	if missing := run.missing(); missing > 0 && run.ExitCode != interruptedCode {
		list = append(list, failure{"", plural(int64(missing), "planned volume") + " without a result", ""})
	}
	if len(list) == 0 && run.Verdict() == VerdictFailed {
		list = append(list, failure{"", fmt.Sprintf("the run ended with exit code %d", run.ExitCode), "see the journal"})
	}
	return merge(list, alikeFailures, func(into *failure, f failure) { into.Name += ", " + f.Name })
}

func alikeFailures(a, b failure) bool {
	return a.Name != "" && b.Name != "" && a.Message == b.Message && a.Hint == b.Hint
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

// tells says that a problem has all of another in it, as that of a run does of the destinations that failed it.
func tells(p Problem, of *Problem) bool { return strings.Contains(p.Message, of.Message) }

// fails says that a copy is not there for the very reason for which its destination failed.
func (d Destination) fails(c Copy) bool {
	return c.Destination == d.Name && c.Error != nil && d.Error != nil && tells(*c.Error, d.Error)
}

// absent says of a destination that failed how many volumes are not there for that reason, and where they are instead.
func (r Run) absent(d Destination) string {
	var lacking, elsewhere int64
	var on map[string]bool // destinations that have all of them
	for _, v := range r.Volumes {
		if !slices.ContainsFunc(v.Copies, d.fails) {
			continue
		}
		has := map[string]bool{}
		for _, c := range v.Copies {
			if c.Error == nil && c.Path != "" && (on == nil || on[c.Destination]) {
				has[c.Destination] = v.Error == nil
			}
		}
		lacking++
		if v.Error == nil && slices.ContainsFunc(v.Copies, func(c Copy) bool { return c.Error == nil && c.Path != "" }) {
			elsewhere++
		}
		on = has
	}
	switch names := slices.Sorted(maps.Keys(on)); {
	case lacking == 0:
		return ""
	case elsewhere == lacking && len(names) > 0:
		return fmt.Sprintf("missing: %s; good on %s", plural(lacking, "volume"), strings.Join(names, ", "))
	default:
		return fmt.Sprintf("missing: %s, %s of them good on another destination", plural(lacking, "volume"), say.Count(elsewhere))
	}
}

// toldAlready says that the failure of a copy is told with its destination.
func (r Run) toldAlready(c Copy) bool {
	return slices.ContainsFunc(r.Destinations, func(d Destination) bool { return d.fails(c) })
}

func volumeFailures(v Volume, run Run) []failure {
	var list []failure
	told := false
	if v.Error != nil {
		list = append(list, failure{v.Name, v.Error.Message, v.Error.Hint})
	}
	for _, c := range v.Copies {
		if c.Error != nil && run.toldAlready(c) {
			told = true
			continue
		}
		if c.Error != nil && (v.Error == nil || !tells(*v.Error, c.Error)) {
			list = append(list, failure{v.Name, "destination " + c.Destination + ": " + c.Error.Message, c.Error.Hint})
		}
	}
	if v.DamagedCount > 0 || len(v.DamagedFiles) > 0 {
		list = append(list, damaged(v, run.makesBackups()))
	}
	if told && len(list) == 0 {
		return nil
	}
	if len(list) == 0 && v.Status == VolumeSkipped {
		list = append(list, failure{v.Name, "not done: the run ended before this volume began", ""})
	} else if len(list) == 0 {
		list = append(list, failure{v.Name, string(v.Status), ""})
	}
	return list
}

// damaged lists files that a backup lacks: of one that was just made those that its volume did not give, else those that
// are lost where it is stored.
func damaged(v Volume, justMade bool) failure {
	count := max(v.DamagedCount, int64(len(v.DamagedFiles)))
	lines := []string{"there is a backup, but " + plural(count, "file") + " could not be read completely:"}
	hint := "check the disk under the volume; older backups have the missing data"
	if !justMade {
		lines[0] = plural(count, "file") + " of the stored backup cannot be read back:"
		hint = "older backups have the missing data"
	}
	for _, name := range v.DamagedFiles {
		lines = append(lines, shorten(name, 200))
	}
	if more := count - int64(len(v.DamagedFiles)); more > 0 {
		lines = append(lines, fmt.Sprintf("and %s more", say.Count(more)))
	}
	return failure{v.Name, strings.Join(lines, "\n"), hint}
}

func warnings(run Run) []failure {
	var list []failure
	for _, p := range run.Warnings {
		list = append(list, failure{"", p.Message, p.Hint})
	}
	for _, v := range run.Volumes {
		for _, p := range v.Warnings {
			list = append(list, failure{v.Name, p.Message, p.Hint})
		}
	}
	return list
}

func statusWord(v Volume) string {
	switch {
	case v.Status == VolumeOK && !v.Good():
		return "PARTIAL"
	case v.Status == VolumeOK:
		return "ok"
	case v.Status == VolumeSkipped:
		return "NOT DONE"
	default:
		return strings.ToUpper(string(v.Status))
	}
}

func newVolumeView(v Volume, now time.Time, loc *time.Location) volumeView {
	out := volumeView{Name: v.Name, Status: v.Status, Word: statusWord(v), Good: v.Good(), Duration: "-", Size: "-", Change: "-"}
	if !v.Started.IsZero() && !v.Ended.IsZero() {
		out.Duration = FormatDuration(v.Ended.Sub(v.Started))
	}
	if stands := v.Backup != "" || v.StoredBytes > 0; stands {
		out.Size = say.Size(v.StoredBytes)
		out.Change = change(v.StoredBytes, v.PreviousStoredBytes)
	}
	for _, c := range v.Copies {
		if c.Path != "" && c.Error == nil {
			out.Paths = append(out.Paths, c.Path)
		}
		for _, r := range c.Removed {
			out.Removed = append(out.Removed, fmt.Sprintf("%s (%s)", r.Path, join(", ", r.Reason, freed(r.FreedBytes))))
		}
	}
	out.Details = append(lastGood(v, now, loc), details(v, now)...)
	return out
}

// lastGood says what there is to fall back on of a volume that has no good backup of this run.
func lastGood(v Volume, now time.Time, loc *time.Location) []string {
	switch {
	case v.LastGood == nil:
		return nil
	case v.LastGood.IsZero():
		return []string{"THERE IS NO GOOD BACKUP"}
	}
	return []string{fmt.Sprintf("newest good backup: %s (%s)", v.LastGood.In(loc).Format("2006-01-02 15:04"), formatAge(now, *v.LastGood))}
}

func freed(bytes int64) string {
	if bytes <= 0 {
		return ""
	}
	return say.Size(bytes) + " freed"
}

// change tells tonight's size against the last one's.
func change(now, before int64) string {
	switch {
	case before < 0:
		return "first"
	case now == before:
		return "same"
	case before == 0:
		return "was empty"
	}
	percent := (float64(now) - float64(before)) / float64(before) * 100
	if percent > 0 {
		return "+" + FormatPercent(percent)
	}
	return FormatPercent(percent)
}

// details is everything about a volume that is worth a few words.
func details(v Volume, now time.Time) []string {
	var list []string
	if v.Entries > 0 {
		list = append(list, plural(v.Entries, "file"))
	}
	for _, x := range v.Extents {
		if x.ByHandBytes > 0 {
			list = append(list, fmt.Sprintf("standard tools need %s to restore %s, voltar needs %s", say.Size(x.ByHandBytes), x.Name,
				say.Size(x.SizeBytes)))
		}
	}
	if s := v.Snapshot; s != nil {
		list = append(list, snapshotWords(*s))
	}
	if v.Quiesce != "" && v.Error == nil {
		list = append(list, v.Quiesce)
	}
	for _, c := range v.Copies {
		if c.Kept == 0 { // of a run that only looked at it
			continue
		}
		if c.Error == nil && len(v.Copies) > 1 {
			list = append(list, fmt.Sprintf("%d kept on %s", c.Kept, c.Destination))
		} else if c.Error == nil {
			list = append(list, fmt.Sprintf("%d kept", c.Kept))
		}
	}
	if v.Status == VolumeSkipped {
		return list
	}
	switch {
	case v.LastRestored.After(v.LastVerified):
		list = append(list, "restored "+formatAge(now, v.LastRestored))
	case !v.LastVerified.IsZero():
		list = append(list, "verified "+formatAge(now, v.LastVerified))
	default:
		list = append(list, "never verified")
	}
	return list
}

func snapshotWords(s Snapshot) string {
	text := fmt.Sprintf("%s snapshot, peak %s", s.Kind, FormatPercent(s.PeakPercent))
	if s.SizeBytes > 0 {
		text += " of " + say.Size(s.SizeBytes)
	}
	if s.SuggestedBytes > 0 {
		text += ", suggested " + say.Size(s.SuggestedBytes)
	}
	return join(", ", text, s.Note)
}

func newDestinationView(d Destination, points []Point, loc *time.Location) destinationView {
	out := destinationView{Name: d.Name, Where: d.Where}
	if d.BackupBytes >= 0 {
		out.Lines = append(out.Lines, "Total backups size: "+say.Size(d.BackupBytes))
	}
	if d.TotalBytes > 0 && d.FreeBytes >= 0 {
		used := d.TotalBytes - d.FreeBytes
		out.Lines = append(out.Lines, fmt.Sprintf("Used space: %s (%s of %s free)",
			FormatPercent(float64(used)/float64(d.TotalBytes)*100), say.Size(d.FreeBytes), say.Size(d.TotalBytes)))
		if forecast := Forecast(points, d.Name, loc); forecast != "" {
			out.Lines = append(out.Lines, forecast)
		}
	}
	out.Lines = append(out.Lines, caughtUp(d.CaughtUp)...)
	out.Lines = append(out.Lines, d.Notes...)
	return out
}

// shownCaughtUp is how many backups that were made up are named.
const shownCaughtUp = 5

// caughtUp tells what a destination got from others.
func caughtUp(list []CaughtUp) []string {
	if len(list) == 0 {
		return nil
	}
	var bytes int64
	var names []string
	for _, c := range list {
		bytes += c.SizeBytes
		if len(names) < shownCaughtUp {
			names = append(names, c.Backup+" from "+c.From)
		}
	}
	if more := len(list) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return []string{fmt.Sprintf("Copied from other destinations: %s, %s: %s", plural(int64(len(list)), "backup"), say.Size(bytes),
		strings.Join(names, ", "))}
}

// ledger lists what of a volume is not stored as files.
func ledger(v Volume) []line2 {
	if v.Error != nil {
		return []line2{{v.Name, "nothing was stored, see above"}}
	}
	var list []line2
	for _, e := range v.Extents {
		if e.State == "files" {
			continue
		}
		name := strings.TrimSpace(v.Name + " " + e.Name)
		what := fmt.Sprintf("%s, %s", e.What, say.Size(e.SizeBytes))
		list = append(list, line2{name, join(": ", e.State+" ("+what+")", e.Reason)})
	}
	if v.Ledger.ExcludedBytes > 0 {
		list = append(list, line2{v.Name, say.Size(v.Ledger.ExcludedBytes) + " excluded by patterns"})
	}
	if v.Ledger.FailedBytes > 0 {
		list = append(list, line2{v.Name, say.Size(v.Ledger.FailedBytes) + " could not be read"})
	}
	return list
}

func gone(run Run, loc *time.Location) []line2 {
	var list []line2
	for _, g := range run.Gone {
		text := plural(int64(g.Backups), "backup")
		if !g.Newest.IsZero() {
			text += ", newest " + g.Newest.In(loc).Format("2006-01-02")
		}
		list = append(list, line2{g.Name, join("; ", text, g.Note)})
	}
	return list
}

func trendWords(points []Point) string {
	var mostBytes int64
	var longest time.Duration
	bad := 0
	for _, p := range points {
		mostBytes, longest = max(mostBytes, p.StoredBytes), max(longest, p.Duration)
		if p.Verdict == VerdictFailed || p.Verdict == VerdictInterrupted {
			bad++
		}
	}
	return fmt.Sprintf("Of the last %d runs %d failed. At most %s stored in a run, at most %s taken.",
		len(points), bad, say.Size(mostBytes), FormatDuration(longest))
}

func footer(run Run) string {
	return join(", ", strings.TrimSpace("voltar "+run.Version), "run "+run.ID, run.Config,
		fmt.Sprintf("exit code %d", run.ExitCode))
}
