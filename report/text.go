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
	t.blank()
	for _, f := range v.Facts {
		t.wrapped(fmt.Sprintf("%-22s", f.Label), f.Value)
	}
	t.problems("WHAT WENT WRONG", v.Failures)
	t.problems("WARNINGS", v.Warnings)
	t.volumes(v.Volumes)
	if len(v.Destinations) > 0 {
		t.title("DESTINATIONS")
	}
	for _, d := range v.Destinations {
		t.wrapped("", join(": ", d.Name, d.Where))
		for _, l := range d.Lines {
			t.wrapped("    ", l)
		}
	}
	t.pairs("LEDGER: WHAT IS NOT STORED AS FILES, AND WHY", v.Ledger)
	t.pairs("EXCLUDED VOLUMES", v.LeftOut)
	t.pairs("NO LONGER ON THIS HOST", v.Gone)
	if len(v.Recovered) > 0 {
		t.title("REMOVED AFTER AN INTERRUPTED RUN")
	}
	for _, r := range v.Recovered {
		t.wrapped("", r)
	}
	if v.Trend != "" {
		t.title("TREND")
		t.wrapped("", v.Trend)
	}
	t.blank()
	t.raw("-- ")
	t.wrapped("", v.Footer)
	return t.b.String()
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

func (t *textWriter) problems(title string, list []failure) {
	if len(list) == 0 {
		return
	}
	t.title(title)
	for _, f := range list {
		indent := ""
		if f.Name != "" {
			t.wrapped("", f.Name)
			indent = "    "
		}
		lines := strings.Split(f.Message, "\n")
		t.wrapped(indent, lines[0])
		for _, l := range lines[1:] {
			t.wrapped(indent+"| ", l) // marked, so that no line of a command's output passes for one of ours
		}
		for _, hint := range f.Hints() {
			t.wrapped(indent+say.HintLabel, hint)
		}
	}
}

func (t *textWriter) volumes(list []volumeView) {
	if len(list) == 0 {
		return
	}
	const row = "%-34s %-9s %12s %10s %9s"
	t.blank()
	t.raw(fmt.Sprintf(row, "VOLUME", "RESULT", "DURATION", "SIZE", "CHANGE"))
	t.raw(strings.Repeat("-", textWidth))
	for _, v := range list {
		name := v.Name
		if utf8.RuneCountInString(name) > 34 {
			t.wrapped("", name)
			name = ""
		}
		t.raw(fmt.Sprintf(row, name, v.Word, v.Duration, v.Size, v.Change))
		for _, p := range v.Paths {
			t.wrapped("    ", p)
		}
		if len(v.Details) > 0 {
			t.wrapped("    ", strings.Join(v.Details, "; "))
		}
		for i, r := range v.Removed {
			if i == 0 {
				t.raw("    Removing old backups:")
			}
			t.wrapped("      ", r)
		}
	}
}

func (t *textWriter) pairs(title string, list []line2) {
	if len(list) == 0 {
		return
	}
	t.title(title)
	for _, p := range list {
		t.wrapped("", p.Name+": "+p.Text)
	}
}
