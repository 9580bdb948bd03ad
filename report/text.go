package report

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"voltar/internal/say"
)

// textWidth is the number of columns that the text keeps to; only single words that are longer stand out.
const textWidth = 78

// Text renders a run as plain text for mails and terminals. The fields of old are there under their old names.
func Text(run Run, opts Options) string {
	return newView(run, opts).text()
}

func (v view) text() string {
	var t textWriter
	t.wrapped("", v.Headline)
	t.counters(v.Counters)
	t.blank()
	for _, f := range v.Facts {
		t.wrapped(fmt.Sprintf("%-22s", f.Label), f.Value)
	}
	t.problems("WHAT WENT WRONG", v.Failures)
	t.problems("TO LOOK AT", v.Warnings)
	if len(v.Destinations) > 0 {
		t.title("DESTINATIONS")
	}
	for _, d := range v.Destinations {
		t.wrapped("", join(": ", d.Name, d.Where))
		for _, l := range d.Lines {
			t.wrapped("    ", l)
		}
	}
	t.volumes(v.Volumes)
	t.list("WORTH KNOWING", v.Known)
	t.list("LEDGER: WHAT IS NOT STORED AS FILES, AND WHY", v.Ledger)
	t.pairs("EXCLUDED", v.LeftOut)
	t.pairs("NO LONGER ON THIS HOST", v.Gone)
	t.list("REMOVED AFTER AN INTERRUPTED RUN", v.Recovered)
	if v.Trend.Words != "" {
		t.list("TREND", []string{v.Trend.Words})
	}
	t.blank()
	t.raw("-- ")
	for _, line := range v.Footer {
		t.wrapped("", line)
	}
	return strings.TrimRight(t.b.String(), "\n") + "\n"
}

type textWriter struct{ b strings.Builder }

func (t *textWriter) raw(s string) { t.b.WriteString(s + "\n") }

func (t *textWriter) blank() { t.raw("") }

func (t *textWriter) title(s string) {
	t.blank()
	t.raw(s)
	t.raw(strings.Repeat("-", utf8.RuneCountInString(s)))
}

// wrapped writes text behind a first indent and its further lines under it, set in by two columns: so no part of a name
// with spaces in it can stand where a line of ours would begin.
func (t *textWriter) wrapped(indent, text string) {
	rest := strings.Repeat(" ", utf8.RuneCountInString(indent)+2)
	line, filled := indent, false
	for word := range strings.FieldsSeq(text) {
		if filled && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > textWidth {
			t.raw(line)
			line, filled = rest, false
		}
		if filled {
			line += " "
		}
		line, filled = line+word, true
	}
	t.raw(strings.TrimRight(line, " "))
}

func (t *textWriter) counters(list []counter) {
	var parts []string
	for _, c := range list {
		parts = append(parts, c.Value+" "+c.Label)
	}
	if len(parts) > 0 {
		t.wrapped("", strings.Join(parts, " | "))
	}
}

func (t *textWriter) problems(title string, list []problemView) {
	if len(list) == 0 {
		return
	}
	t.title(title)
	for i, p := range list {
		if i == shownProblems {
			t.wrapped("", moreProblems(list))
			return
		}
		t.problem(p)
	}
}

func (t *textWriter) problem(p problemView) {
	indent := ""
	if name := p.Name(); name != "" {
		t.wrapped("", name)
		indent = "    "
	}
	if worst := p.NoGood(); worst != "" {
		t.wrapped(indent, worst)
	}
	t.wrapped(indent, p.First())
	for _, l := range p.Rest() {
		t.wrapped(indent+"| ", l) // marked, so that no line of a command's output passes for one of ours
	}
	if p.Good != "" {
		t.wrapped(indent, p.Good)
	}
	for _, hint := range p.Hints() {
		t.wrapped(indent+say.HintLabel, hint)
	}
	for _, line := range p.Commands {
		t.wrapped(indent+"$ ", line)
	}
}

// How many volumes the text gives a line each. Where there are more good ones, about how many of those do whose size changed
// most; the others are named in a bounded number of lines.
const (
	shownEach    = 80
	shownChanged = 20
	shownOthers  = 60 // lines
)

// A good backup has in place of its result how long ago one of the volume was proven, and how long its restore took.
const volumeRow = "%-34s %-15s %10s %8s %7s"

func (t *textWriter) volumes(v volumesView) {
	count := len(v.NotGood)
	for _, g := range v.Groups {
		count += len(g.Volumes)
	}
	if count == 0 {
		return
	}
	t.blank()
	t.raw(fmt.Sprintf(volumeRow, "VOLUME", v.Column, "DURATION", "SIZE", "CHANGE"))
	t.raw(strings.Repeat("-", textWidth))
	for _, bad := range v.NotGood {
		t.volume("", bad)
		newest := bad.Newest
		if bad.None {
			newest = strings.ToUpper(newest)
		} else if newest != "" {
			newest = "newest " + newest
		}
		if details := join("; ", append([]string{newest}, bad.Details...)...); details != "" {
			t.wrapped("    ", details)
		}
	}
	from := int64(0)
	if count > shownEach && len(v.Groups) > 0 {
		from = v.changedMost(shownChanged)
	}
	for _, g := range v.Groups {
		t.wrapped("", g.Name+": "+g.Summary)
		var others []string
		for i, good := range g.Volumes {
			if good.changedBytes >= from && i-len(others) < 2*shownChanged || from == 0 {
				t.volume("  ", good)
			} else {
				others = append(others, good.Name)
			}
		}
		t.names(others, max(shownOthers/len(v.Groups), 1))
	}
}

func (t *textWriter) volume(indent string, v volumeView) {
	name := indent + v.Name
	if utf8.RuneCountInString(name) > 34 {
		t.wrapped(indent, v.Name)
		name = ""
	}
	t.raw(fmt.Sprintf(volumeRow, name, v.Word, v.Duration, v.Size, v.Change))
}

// names lists volumes by name alone, in so many lines at most.
func (t *textWriter) names(names []string, limit int) {
	if len(names) == 0 {
		return
	}
	var all textWriter
	all.wrapped("  ok, too: ", strings.Join(names, ", "))
	lines := strings.Split(strings.TrimRight(all.b.String(), "\n"), "\n")
	shown := lines[:min(len(lines), limit)]
	for _, line := range shown {
		t.raw(line)
	}
	if len(shown) < len(lines) {
		t.raw("    …: `voltar report --json` names all of them")
	}
}

func (t *textWriter) list(title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	t.title(title)
	for _, l := range lines {
		t.wrapped("", l)
	}
}

func (t *textWriter) pairs(title string, list []line2) {
	if len(list) == 0 {
		return
	}
	t.title(title)
	for i, p := range list {
		if i == shownPairs {
			t.wrapped("", fmt.Sprintf("and %s more: `voltar report --json` has them", say.Count(int64(len(list)-i))))
			return
		}
		t.wrapped("", p.Name+": "+p.Text)
	}
}
