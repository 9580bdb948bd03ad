package report

import (
	_ "embed" // for the template
	"fmt"
	"html/template"
	"regexp"
	"strings"

	"voltar/internal/say"
)

//go:embed mail.html.tmpl
var mailTemplate string

// HTML renders a run as one page for mail programs: tables and inline styles, which survive Gmail's filter and Outlook, and
// a small style block for those that turn dark and for telephones. It loads nothing from anywhere; the picture of the trend, if
// Options.TrendCID names one, comes in the same mail. Escaping is html/template's, on top of Clean. A run whose volumes are all
// good stays below 90 KB, as Gmail cuts mails at 102: beyond that it counts volumes instead of naming them.
func HTML(run Run, opts Options) (string, error) {
	page, err := template.New("mail").Funcs(templateFuncs).Parse(mailTemplate)
	if err != nil {
		return "", fmt.Errorf("cannot read the template of the HTML report: %w", err)
	}
	v := newView(run, opts)
	data := struct {
		view
		Colour       template.CSS
		TrendSrc     template.URL
		MoreFailures string
		MoreWarnings string
		Padding      [40]struct{} // keeps mail programs from showing more of the mail behind the preheader
		Pairs        []pairSection
		Lists        []listSection
	}{
		view: v, Colour: headlineColour(v.Verdict),
		Lists: []listSection{
			{"Worth knowing", v.Known},
			{"Ledger: what is not stored as files, and why", v.Ledger},
			{"Removed after an interrupted run", v.Recovered},
		},
		Pairs: []pairSection{{"Excluded", bounded(v.LeftOut)}, {"No longer on this host", bounded(v.Gone)}},
	}
	if v.Trend.CID != "" {
		data.TrendSrc = template.URL("cid:" + v.Trend.CID) // the caller's own constant, not from outside
	}
	if len(v.Failures) > shownProblems {
		data.Failures, data.MoreFailures = v.Failures[:shownProblems], moreProblems(v.Failures)
	}
	if len(v.Warnings) > shownProblems {
		data.Warnings, data.MoreWarnings = v.Warnings[:shownProblems], moreProblems(v.Warnings)
	}
	data.Volumes = v.Volumes.within(volumeBytes)
	var b strings.Builder
	if err := page.Execute(&b, data); err != nil {
		return "", fmt.Errorf("cannot render the HTML report: %w", err)
	}
	return b.String(), nil
}

type pairSection struct {
	Title string
	Lines []line2
}

type listSection struct {
	Title string
	Lines []string
}

func bounded(list []line2) []line2 {
	if more := len(list) - shownPairs; more > 0 {
		return append(list[:shownPairs:shownPairs], line2{"and " + say.Count(int64(more)) + " more", "`voltar report --json` has them"})
	}
	return list
}

// Bytes of HTML: what the rows of volumes may take, and what a row takes beside its name and details.
const (
	volumeBytes   = 66 << 10
	rowBytes      = 165
	detailedBytes = 400
)

// within leaves out the good volumes for which there is no room, and counts them in the summaries of their groups.
func (v volumesView) within(limit int) volumesView {
	out := volumesView{Column: v.Column}
	for _, bad := range v.NotGood {
		limit -= detailedBytes + len(template.HTMLEscapeString(bad.Name+strings.Join(bad.Details, "")))
		if limit < 0 {
			out.More = fmt.Sprintf("and %s more that are not good: `voltar report` has them", say.Count(int64(len(v.NotGood)-len(out.NotGood))))
			break
		}
		out.NotGood = append(out.NotGood, bad)
	}
	for _, g := range v.Groups {
		limit -= detailedBytes
		shown := groupView{Name: g.Name, Summary: g.Summary}
		for i, good := range g.Volumes {
			limit -= rowBytes + len(template.HTMLEscapeString(good.Name))
			if limit < 0 {
				shown.Summary += fmt.Sprintf("; %s of them are not listed here: `voltar report --json` has them", say.Count(int64(len(g.Volumes)-i)))
				break
			}
			shown.Volumes = append(shown.Volumes, good)
		}
		out.Groups = append(out.Groups, shown)
	}
	return out
}

var templateFuncs = template.FuncMap{"spans": spans, "unbroken": unbroken, "caption": caption}

// caption is a column's heading of the text as HTML has it: "Proven, back in".
func caption(heading string) string { return heading[:1] + strings.ToLower(heading[1:]) }

var thousands = regexp.MustCompile(`(\d) (\d\d\d)\b`)

// unbroken keeps numbers of more than three digits in one line.
func unbroken(text string) string { return thousands.ReplaceAllString(text, "$1\u00a0$2") }

// span is a part of a sentence.
type span struct {
	Text string
	Code bool // something to type
}

// spans takes apart a sentence with commands in `backquotes`.
func spans(text string) []span {
	parts := strings.Split(text, "`")
	if len(parts)%2 == 0 {
		return []span{{text, false}}
	}
	var out []span
	for i, part := range parts {
		if part != "" {
			out = append(out, span{part, i%2 == 1})
		}
	}
	return out
}

// headlineColour is dark enough for white letters and stands out from light and dark pages alike.
func headlineColour(v Verdict) template.CSS {
	switch v {
	case VerdictOK:
		return "#1a7f37"
	case VerdictWarning:
		return "#8a5300"
	default:
		return "#b3261e"
	}
}
