package report

import (
	_ "embed" // for the template
	"fmt"
	"html/template"
	"strings"
)

//go:embed mail.html.tmpl
var mailTemplate string

// HTML renders a run as one page for mail programs: tables and inline styles, which survive Gmail's filter, and a small
// style block for those that turn dark. It loads nothing from anywhere; the picture of the trend, if Options.TrendCID
// names one, comes in the same mail. Escaping is html/template's, on top of Clean.
func HTML(run Run, opts Options) (string, error) {
	page, err := template.New("mail").Parse(mailTemplate)
	if err != nil {
		return "", fmt.Errorf("cannot read the template of the HTML report: %w", err)
	}
	v := newView(run, opts)
	data := struct {
		view
		Colour   template.CSS
		TrendSrc template.URL
	}{view: v, Colour: headlineColour(v.Verdict)}
	if v.TrendCID != "" {
		data.TrendSrc = template.URL("cid:" + v.TrendCID) // the caller's own constant, not from outside
	}
	var b strings.Builder
	if err := page.Execute(&b, data); err != nil {
		return "", fmt.Errorf("cannot render the HTML report: %w", err)
	}
	return b.String(), nil
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
