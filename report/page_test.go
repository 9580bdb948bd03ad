package report

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

var pageNow = night.Add(8 * time.Hour)

// fleetPage is a page of hosts with volumes of which a few are not well.
func fleetPage(hosts, volumes int) Page {
	p := Page{Title: fmt.Sprintf("%d hosts", hosts), Made: pageNow, Location: time.FixedZone("CET", 3600), Limit: 26 * time.Hour}
	for h := range hosts {
		for i := range volumes {
			n := h*volumes + i
			v := PageVolume{
				Host: fmt.Sprintf("host-%02d.example.org", h+1), Name: fmt.Sprintf("nova-volumes/volume-%08d", n+8),
				Good: night.Add(time.Duration(n%90) * time.Minute), SizeBytes: 700*mib + int64(n)*37%9000*mib,
				Verified: night.AddDate(0, 0, -1-n%9), On: []string{"disk", "offsite"},
			}
			for i := range PageNights {
				v.Nights = append(v.Nights, NightGood)
				if (n*31+i*17)%211 == 0 {
					v.Nights[i] = NightNone
				}
			}
			switch {
			case n == 17:
				v.Good, v.SizeBytes, v.On, v.Nights = time.Time{}, 0, nil, make([]Night, PageNights)
				v.Nights[29], v.Nights[28], v.Failed = NightFailed, NightFailed, true
				v.Note = "one of 2026-11-20 01:12 is unfinished"
			case n == 45 || n == 171:
				v.Good = night.AddDate(0, 0, -3)
				copy(v.Nights[27:], []Night{NightFailed, NightNone, NightFailed})
			case n == 88:
				v.Damaged, v.Note, v.Nights[29] = true, "one of 2026-11-20 01:30 is damaged", NightDamaged
			case n%23 == 5:
				v.Verified = time.Time{}
			case n%17 == 3:
				v.Name = fmt.Sprintf("cinder-ssd/volume-%08x-7a0a-4a52-a6a4-8b0e1d3c%04x", n, n)
			}
			p.Volumes = append(p.Volumes, v)
		}
	}
	return p
}

// hostPage is the page of the one host of the mail fixtures, with a row for each volume of its last run.
func hostPage() Page {
	run := noGood()
	p := Page{Title: run.Host, Made: pageNow, Location: time.FixedZone("CET", 3600), Limit: 26 * time.Hour, Run: &run}
	for _, v := range run.Volumes {
		row := PageVolume{
			Host: run.Host, Name: v.Name, Good: v.Ended, SizeBytes: v.StoredBytes, Verified: v.LastProven(), Failed: !v.Good(),
			On: []string{"disk", "offsite"}, Nights: slices.Repeat([]Night{NightGood}, PageNights),
		}
		if row.Failed {
			row.Good, row.SizeBytes, row.Nights[PageNights-1] = *v.LastGood, 870*mib, NightFailed
		}
		if row.Good.IsZero() {
			row.SizeBytes, row.On, row.Nights = 0, nil, slices.Repeat([]Night{NightFailed}, PageNights)
		}
		p.Volumes = append(p.Volumes, row)
	}
	return p
}

func hostilePage() Page {
	run := hostile()
	p := fleetPage(2, 3)
	p.Title, p.Run = hostileText, &run
	p.Problems = []Problem{{Message: hostileText, Hint: hostileText}}
	for i := range p.Volumes {
		v := &p.Volumes[i]
		v.Name, v.Note, v.On = hostileText+strings.Repeat("long", 300), strings.Repeat(hostileText, 20), []string{hostileText}
	}
	p.Volumes[0].Host = hostileText
	p.Volumes[0].Damaged = true
	return p
}

func statusPage(t *testing.T, p Page) string {
	t.Helper()
	page, err := StatusPage(p)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// The page loads nothing, runs no script but its own, and shows nothing but visible characters.
func TestPageIsInert(t *testing.T) {
	harmless := statusPage(t, fleetPage(2, 3))
	for _, page := range []string{harmless, statusPage(t, hostPage()), statusPage(t, hostilePage())} {
		if n := strings.Count(page, "<script"); n != 1 {
			t.Errorf("%d scripts", n)
		}
		for _, banned := range []string{"http:", "https:", "src=", "url(", "@import", "ZgotmplZ", "<a "} {
			if strings.Contains(page, banned) {
				t.Errorf("%q in the page", banned)
			}
		}
		for _, r := range page {
			if r != '\n' && r != ' ' && r != '\t' && !unicode.IsPrint(r) {
				t.Errorf("%q in the page", r)
			}
		}
	}
	tags := regexp.MustCompile(`<[a-z]+`)
	p := hostilePage()
	p.Run, p.Problems = nil, nil
	tame := p
	tame.Volumes = slices.Clone(p.Volumes)
	for i := range tame.Volumes {
		tame.Volumes[i].Name, tame.Volumes[i].Note, tame.Volumes[i].On = "vg/a", "note", []string{"disk"}
	}
	tame.Volumes[0].Host = "host"
	if a, b := len(tags.FindAllString(statusPage(t, p), -1)), len(tags.FindAllString(statusPage(t, tame), -1)); a != b {
		t.Errorf("hostile names make %d elements, harmless ones %d", a, b)
	}
	if !strings.Contains(harmless, "script-src &#39;sha256-") && !strings.Contains(harmless, "script-src 'sha256-") {
		t.Error("the page does not say which script may run")
	}
}

// What failed last night is counted although it may be late as well, no proof is told of a volume whose good backups are gone, and
// no number is broken.
func TestPageCounts(t *testing.T) {
	p := fleetPage(20, 60)
	for i := range p.Volumes {
		p.Volumes[i].Failed = p.Volumes[i].Failed || i == 45
	}
	v := newPageView(p)
	if late, failed := v.Counters[0], v.Counters[1]; late.Value != "3" || failed.Value != "2" {
		t.Errorf("counted %+v and %+v", late, failed)
	}
	for _, row := range v.Attention {
		if none := row.Good == "none"; none != (row.Proof == "-") {
			t.Errorf("%s: newest good backup %s, proven %s", row.Name, row.Good, row.Proof)
		}
	}
	if page := statusPage(t, p); !strings.Contains(page, "4 of 1\u00a0200 volumes") {
		t.Error("the number of volumes in the headline can be broken")
	}
}

// What is not well comes first, the worst of it before the rest, and the banner says so.
func TestPageOrder(t *testing.T) {
	p := fleetPage(3, 60)
	v := newPageView(p)
	var words []string
	for _, row := range v.Attention {
		words = append(words, row.Word)
	}
	if want := []string{"NO GOOD BACKUP", "LATE", "LATE", "DAMAGED"}; !slices.Equal(words, want) {
		t.Errorf("not well: %q, want %q", words, want)
	}
	if v.Headline != "4 of 180 volumes need attention" || v.Colour != headlineColour(VerdictFailed) {
		t.Errorf("%q in %s", v.Headline, v.Colour)
	}
	if len(v.Hosts) != 3 || v.Hosts[0].Rows[0].Word != "unproven" || v.Hosts[0].Summary != "58 good volumes, 3 unproven" {
		t.Errorf("the first host: %s, %+v", v.Hosts[0].Summary, v.Hosts[0].Rows[0])
	}
	if strip, words := strip([]Night{NightGood, NightGood, NightNone, NightFailed, NightDamaged}); words != "good in 2 of 5 nights" ||
		strip != `<s class=g style=--n:2></s><s class=n style=--n:1></s><s class=f style=--n:1></s><s class=d style=--n:1></s>` {
		t.Errorf("%s: %s", words, strip)
	}
	for i := range p.Volumes {
		p.Volumes[i].Good, p.Volumes[i].Damaged, p.Volumes[i].Failed = pageNow, false, false
	}
	if v := newPageView(p); v.Headline != "All 180 volumes are well" || v.Colour != headlineColour(VerdictOK) {
		t.Errorf("%q in %s", v.Headline, v.Colour)
	}
	failed := goodRun()
	failed.Errors = []Problem{{Message: "the end of its log"}}
	one := p
	one.Run = &failed
	if v := newPageView(one); v.Headline != "FAILED on volume-host" || v.Colour != headlineColour(VerdictFailed) || len(v.Problems) != 1 {
		t.Errorf("after a run that failed: %q in %s, %+v", v.Headline, v.Colour, v.Problems)
	}
	failed.Errors, failed.Warnings = nil, []Problem{{Message: "look"}}
	if v := newPageView(one); v.Colour != headlineColour(VerdictWarning) || len(v.Warnings) != 1 {
		t.Errorf("after one with a warning: %q in %s, %+v", v.Headline, v.Colour, v.Warnings)
	}
	p.Problems = []Problem{{Message: "destination offsite: no answer"}}
	if v := newPageView(p); v.Headline != "Not everything could be looked at" || v.Colour == headlineColour(VerdictOK) {
		t.Errorf("with a destination away: %q in %s", v.Headline, v.Colour)
	}
}

// The size is bounded, and what is not shown is none of what needs attention.
func TestPageSize(t *testing.T) {
	page := statusPage(t, fleetPage(50, 300))
	t.Logf("50 hosts with 300 volumes: %d bytes", len(page))
	if limit := 7 << 20; len(page) > limit {
		t.Errorf("%d bytes, more than %d", len(page), limit)
	}
	many := fleetPage(10, 2100)
	worst := many.Volumes[len(many.Volumes)-1]
	worst.Good, worst.Name = time.Time{}, "nova-volumes/the-worst"
	many.Volumes[len(many.Volumes)-1] = worst
	page = statusPage(t, many)
	if !strings.Contains(page, "the-worst") || !strings.Contains(page, "1 000 more volumes, none of them worse") ||
		strings.Count(page, "<tr><td") != pageRows {
		t.Errorf("%d rows", strings.Count(page, "<tr><td"))
	}
}
