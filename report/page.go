package report

import (
	"cmp"
	"crypto/sha256"
	_ "embed" // for the template and the script
	"encoding/base64"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"voltar/internal/say"
)

// PageNights is how many nights the strip of a volume shows, today's among them.
const PageNights = 30

// Night is what became of a volume in one night, worst first.
type Night byte

// Nights.
const (
	NightNone    Night = iota // there was no backup, as far as is known
	NightFailed               // it was tried
	NightDamaged              // there is one that lacks data
	NightGood
)

// Page is what a status page shows of one host or of many.
type Page struct {
	Title    string
	Made     time.Time
	Location *time.Location
	Limit    time.Duration // how old the newest good backup of a volume may be
	Volumes  []PageVolume
	Problems []Problem // what keeps the page from showing all: destinations that do not answer
	Run      *Run      // the last run of the one host, whose causes are shown; nil for several hosts
	History  []Point   // the runs before it, for the forecast
}

// PageVolume is one row: a volume and what there is of it. Its texts are as they came.
type PageVolume struct {
	Host, Name string    // a Name of "" stands for a host without backups
	Guest      string    // whose disk it is, "web1:vda"; "" where nobody knows
	Good       time.Time // of the newest good backup; zero for none
	SizeBytes  int64     // of that
	Verified   time.Time // when a backup was last read back; zero where that is not known
	Failed     bool      // in the last night
	Damaged    bool      // the newest backup, or one that verify looked at
	On         []string  // destinations that have the newest good backup
	Note       string
	Nights     []Night // the oldest first, of PageNights nights; nil where they are not known
}

// pageRows bounds a page: beyond so many volumes those that are well are counted and not shown.
const pageRows = 20000

// pageText bounds a name or a note of a row, in characters.
const pageText = 140

//go:embed page.html.tmpl
var pageTemplate string

//go:embed page.js
var pageScript string

// StatusPage renders a page that is complete in itself: it loads nothing from anywhere, and no script runs in it but its own,
// which searches, says when the page has become old and loads it again. It works without that script, too. 15,000 volumes make
// a page of some 5 MB; the most that it shows are 20,000 rows of at most 1 KiB each.
func StatusPage(p Page) (string, error) {
	page, err := template.New("page").Funcs(templateFuncs).Parse(pageTemplate)
	if err != nil {
		return "", fmt.Errorf("cannot read the template of the status page: %w", err)
	}
	var b strings.Builder
	if err := page.Execute(&b, newPageView(p)); err != nil {
		return "", fmt.Errorf("cannot render the status page: %w", err)
	}
	return b.String(), nil
}

type pageView struct {
	Title, Headline, Made string
	Colour                template.CSS
	Script                template.JS
	Policy                string // which scripts run
	MadeUnix, LimitUnix   int64  // seconds
	Counters              []counter
	Problems              []problemView
	Warnings              []problemView
	Destinations          []destinationView
	Attention             []rowView // what is not well, the worst first
	Hosts                 []hostView
	Legend                string
	More                  string // rows that are not shown
	Several               bool   // hosts
}

type hostView struct {
	Name, Summary string
	Rows          []rowView
}

type rowView struct {
	Host, Name, Word, Tone string
	Good, Age, Size, Proof string
	Note                   string
	Strip                  template.HTML // made of numbers alone
	Nights                 string        // what the strip shows, in words
}

// rank orders rows, the worst first.
type rank int

// Ranks of what is shown.
const (
	rankNone rank = iota // there is no good backup
	rankLate
	rankFailed
	rankDamaged
	rankUnproven
	rankGood
	ranks // how many there are
)

func (v PageVolume) rank(now time.Time, limit time.Duration) rank {
	switch {
	case v.Good.IsZero():
		return rankNone
	case now.Sub(v.Good) > limit:
		return rankLate
	case v.Failed:
		return rankFailed
	case v.Damaged:
		return rankDamaged
	case v.Verified.IsZero():
		return rankUnproven
	}
	return rankGood
}

// word gives the word and the tone of a rank.
func (r rank) word() (word, tone string) {
	switch r {
	case rankNone:
		return "NO GOOD BACKUP", toneBad
	case rankLate:
		return "LATE", toneBad
	case rankFailed:
		return "FAILED", toneBad
	case rankDamaged:
		return "DAMAGED", toneWarn
	case rankUnproven:
		return "unproven", ""
	}
	return "ok", toneGood
}

// ranked is a volume and what there is to say of it.
type ranked struct {
	PageVolume
	rank rank
}

// ranked returns the volumes, the worst first, and how many there are of each rank.
func (p Page) ranked() (volumes []ranked, counts [ranks]int) {
	for _, v := range p.Volumes {
		rank := v.rank(p.Made, p.Limit)
		volumes = append(volumes, ranked{v, rank})
		counts[rank]++
	}
	slices.SortStableFunc(volumes, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Name, b.Name))
	})
	return volumes, counts
}

func newPageView(p Page) pageView {
	loc := cmp.Or(p.Location, time.UTC)
	volumes, counts := p.ranked()
	hosts, failed := map[string]bool{}, 0
	var stored int64
	for _, v := range volumes {
		hosts[v.Host] = true
		if v.Failed {
			failed++
		}
		stored += v.SizeBytes
	}
	v := pageView{
		Title: shorten(say.Clean(p.Title), pageText), Made: p.Made.In(loc).Format("Monday, 2006-01-02 15:04 MST"),
		Script: template.JS(pageScript), MadeUnix: p.Made.Unix(), LimitUnix: int64(p.Limit / time.Second), //nolint:gosec // our own script
		Several: len(hosts) > 1, Legend: fmt.Sprintf("the %d nights to %s", PageNights, p.Made.In(loc).Format("2006-01-02")),
		Counters: pageCounters(counts, failed, len(hosts), stored),
	}
	if oldest, ok := OldestProof(p.Volumes); ok {
		v.Counters = append(v.Counters, counter{
			shortAge(p.Made, oldest.Verified), "oldest proof: " + shorten(say.Clean(oldest.Name), pageText), "",
		})
	}
	sum := sha256.Sum256([]byte(pageScript))
	v.Policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; " +
		"script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	shown := volumes[:min(len(volumes), pageRows)]
	if more := len(volumes) - len(shown); more > 0 {
		v.More = say.Counted(int64(more), "more volume") + ", none of them worse than those that are shown"
	}
	v.addVolumes(shown, p.Made, loc)
	bad := v.headline(counts, len(p.Problems), nounOf(say.Names(volumes, func(v ranked) string { return v.Name })))
	for _, problem := range p.Problems {
		problem = cleaned(Run{Errors: []Problem{problem}}).Errors[0]
		v.Problems = append(v.Problems, problemView{Message: problem.Message, Hint: problem.Hint})
	}
	if p.Run != nil {
		run := newView(*p.Run, Options{Location: loc, History: p.History})
		v.addVerdict(run, bad)
		v.Problems = append(v.Problems, run.Failures[:min(len(run.Failures), shownProblems)]...)
		v.Warnings = run.Warnings[:min(len(run.Warnings), shownProblems)]
		v.Destinations = run.Destinations
	}
	return v
}

// OldestProof is the row whose proof is the oldest; ok is false where nothing is proven.
func OldestProof(volumes []PageVolume) (oldest PageVolume, ok bool) {
	for _, v := range volumes {
		if !v.Verified.IsZero() && (!ok || v.Verified.Before(oldest.Verified)) {
			oldest, ok = v, true
		}
	}
	return oldest, ok
}

// addVolumes adds a row for each volume: below those that need attention, or below its host.
func (v *pageView) addVolumes(volumes []ranked, now time.Time, loc *time.Location) {
	byHost, unproven := map[string]*hostView{}, map[string]int64{}
	var order []string
	for _, volume := range volumes {
		row := newRow(volume.PageVolume, volume.rank, now, loc)
		if volume.rank <= rankDamaged {
			v.Attention = append(v.Attention, row)
			continue
		}
		if byHost[volume.Host] == nil {
			byHost[volume.Host] = &hostView{Name: row.Host}
			order = append(order, volume.Host)
		}
		byHost[volume.Host].Rows = append(byHost[volume.Host].Rows, row)
		if volume.rank == rankUnproven {
			unproven[volume.Host]++
		}
	}
	slices.Sort(order)
	for _, host := range order {
		h := byHost[host]
		h.Summary = say.Counted(int64(len(h.Rows)), "good volume")
		if unproven[host] > 0 {
			h.Summary += ", " + say.Count(unproven[host]) + " unproven"
		}
		v.Hosts = append(v.Hosts, *h)
	}
}

// headline sets the headline and its colour, and returns how many volumes need attention.
func (v *pageView) headline(counts [ranks]int, problems int, noun string) (bad int) {
	all := 0
	for _, n := range counts {
		all += n
	}
	bad = counts[rankNone] + counts[rankLate] + counts[rankFailed] + counts[rankDamaged]
	v.Headline, v.Colour = pageHeadline(bad, all, problems, noun), headlineColour(VerdictOK)
	if problems > 0 || counts[rankDamaged] > 0 {
		v.Colour = headlineColour(VerdictWarning)
	}
	if bad > counts[rankDamaged] {
		v.Colour = headlineColour(VerdictFailed)
	}
	return bad
}

// addVerdict takes in how the last run went: the page of a host is never better than that.
func (v *pageView) addVerdict(run view, bad int) {
	switch run.Verdict {
	case VerdictOK:
		return
	case VerdictWarning:
		if v.Colour == headlineColour(VerdictOK) {
			v.Colour = headlineColour(VerdictWarning)
		}
	default:
		v.Colour = headlineColour(VerdictFailed)
	}
	if bad == 0 {
		v.Headline = run.Headline
	}
}

func pageHeadline(bad, all, problems int, noun string) string {
	switch {
	case bad == 1:
		return fmt.Sprintf("1 of %s needs attention", say.Counted(int64(all), noun))
	case bad > 0:
		return fmt.Sprintf("%s of %s need attention", say.Count(int64(bad)), say.Counted(int64(all), noun))
	case problems > 0:
		return "Not everything could be looked at"
	case all == 0:
		return "There are no backups"
	case all == 1:
		return "The one " + noun + " is well"
	}
	return "All " + say.Counted(int64(all), noun) + " are well"
}

// pageCounters sum up a page. What failed last night may be late as well, and counts as both.
func pageCounters(counts [ranks]int, failed, hosts int, stored int64) []counter {
	of := func(n int, label, tone string) counter {
		if n == 0 {
			tone = ""
		}
		return counter{say.Count(int64(n)), label, tone}
	}
	return []counter{
		of(counts[rankNone]+counts[rankLate], "late or without any", toneBad), of(failed, "failed last night", toneBad),
		of(counts[rankDamaged], "damaged", toneWarn),
		of(counts[rankUnproven], "unproven", ""), of(counts[rankGood], "good and proven", toneGood),
		of(hosts, strings.TrimPrefix(say.Counted(int64(hosts), "host"), say.Count(int64(hosts))+" "), ""),
		{say.Size(stored), "newest good backups", ""},
	}
}

func newRow(v PageVolume, r rank, now time.Time, loc *time.Location) rowView {
	short := func(s string) string { return shorten(say.Clean(s), pageText) }
	row := rowView{Host: short(v.Host), Name: short(v.Name), Good: "none", Size: "-", Proof: "-", Note: short(v.Note)}
	row.Word, row.Tone = r.word()
	if row.Name == "" {
		row.Name = "(no backups)"
	}
	if v.Guest != "" {
		row.Name += " (" + short(v.Guest) + ")"
	}
	if !v.Good.IsZero() {
		row.Good, row.Age, row.Size = v.Good.In(loc).Format("2006-01-02 15:04"), formatAge(now, v.Good), say.Size(v.SizeBytes)
		row.Proof = "no"
		if !v.Verified.IsZero() {
			row.Proof = formatAge(now, v.Verified)
		}
	}
	if len(v.On) > 0 {
		row.Note = join("; ", short("on "+say.Listed(v.On, 4)), row.Note)
	}
	row.Strip, row.Nights = strip(v.Nights)
	return row
}

// strip draws nights: runs of one kind are one element as many cells wide as they are nights long.
func strip(nights []Night) (drawn template.HTML, words string) {
	if len(nights) == 0 {
		return "", ""
	}
	good := 0
	var b strings.Builder
	for i := 0; i < len(nights); {
		end := i
		for end < len(nights) && nights[end] == nights[i] {
			end++
		}
		class := map[Night]string{NightNone: "n", NightFailed: "f", NightDamaged: "d", NightGood: "g"}[nights[i]]
		fmt.Fprintf(&b, `<s class=%s style=--n:%d></s>`, class, end-i)
		if nights[i] == NightGood {
			good += end - i
		}
		i = end
	}
	return template.HTML(b.String()), fmt.Sprintf("good in %d of %d nights", good, len(nights)) //nolint:gosec // numbers and letters of ours
}
