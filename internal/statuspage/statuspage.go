// Package statuspage knows what a status page shows: of one host what its history tells, of several what lies on their
// destinations. It decides nothing about layout, which is package report's, and is pure: no clock, no files, no network.
package statuspage

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/clock"
	"voltar/internal/history"
	"voltar/report"
)

// Since is from when on backups matter to a page that is made now: the first of its nights.
func Since(now time.Time) time.Time { return now.AddDate(0, 0, -report.PageNights) }

// nightOf gives the place of a time in the nights that end with today's; ok is false for one before them or after.
func nightOf(t, now time.Time, loc *time.Location) (at int, ok bool) {
	day := func(t time.Time) time.Time {
		y, m, d := t.In(loc).Date()
		return time.Date(y, m, d, 12, 0, 0, 0, time.UTC) // noon: no change of the clock matters
	}
	at = report.PageNights - 1 - int(day(now).Sub(day(t))/(24*time.Hour))
	return at, at >= 0 && at < report.PageNights
}

// note enters what became of one backup; the best of a night counts.
func note(nights []report.Night, t, now time.Time, loc *time.Location, what report.Night) {
	if at, ok := nightOf(t, now, loc); ok {
		nights[at] = max(nights[at], what)
	}
}

// Host makes the page of one host out of its history, the newest run first. Its volumes are those of the last run of all, and of
// later ones that named theirs. One is late when its newest good backup is older than limit. ok is false where no run has made backups yet.
func Host(runs []report.Run, now time.Time, limit time.Duration, loc *time.Location) (page report.Page, ok bool) {
	runs = slices.DeleteFunc(slices.Clone(runs), func(r report.Run) bool { return clock.IsAhead(r.Started, now) })
	backups := history.OfCommand(runs, "run")
	if len(backups) == 0 {
		return report.Page{}, false
	}
	last, missing := history.Standing(backups)
	shown := last
	shown.Volumes = slices.Clone(last.Volumes)
	for _, v := range missing { // they are still the host's
		v.Status, v.Error = report.VolumeFailed, nil
		shown.Volumes = append(shown.Volumes, v)
	}
	history.NoteProofs(&shown, runs)
	rows := map[string]*report.PageVolume{}
	known := map[string]*time.Time{} // the newest good backup that the last run found: what was newer is gone
	page = report.Page{Title: last.Host, Made: now, Location: loc, Limit: limit, Run: &last, History: history.Points(backups[1:])}
	page.Volumes = make([]report.PageVolume, len(shown.Volumes))
	for i, v := range shown.Volumes {
		proven := v.LastProven()
		page.Volumes[i] = report.PageVolume{
			Host: last.Host, Name: v.Name, Guest: guestOf(v), Verified: proven, Failed: !v.Good() && v.Status != report.VolumeDamaged,
			Damaged: v.Status == report.VolumeDamaged || v.LastDamaged.After(proven), Nights: make([]report.Night, report.PageNights),
		}
		rows[v.Name] = &page.Volumes[i]
		if v.LastGood != nil && !v.LastGoodUnseen {
			known[v.Name] = v.LastGood
		}
	}
	for _, run := range backups {
		for _, v := range run.Volumes {
			row := rows[v.Name]
			if row == nil {
				continue
			}
			gone := known[v.Name] != nil && v.Started.After(*known[v.Name])
			if v.Good() && !gone && v.Ended.After(row.Good) {
				row.Good, row.SizeBytes, row.On = v.Ended, v.StoredBytes, copies(v)
			}
			note(row.Nights, run.Started, now, loc, nightOfVolume(v))
		}
	}
	return page, true
}

// guestOf names whose disk a volume is, or "".
func guestOf(v report.Volume) string {
	if v.Guest == nil {
		return ""
	}
	return v.Guest.String()
}

func nightOfVolume(v report.Volume) report.Night {
	switch {
	case v.Good():
		return report.NightGood
	case v.Status == report.VolumeDamaged:
		return report.NightDamaged
	default:
		return report.NightFailed
	}
}

func copies(v report.Volume) (on []string) {
	for _, c := range v.Copies {
		if c.Error == nil && c.Path != "" {
			on = append(on, c.Destination)
		}
	}
	return on
}

// Known is what the history of this host knows of a volume beside what lies on destinations.
type Known struct {
	Verified time.Time // when a backup of it was last read back
	Damaged  bool      // damage was found since
	Failed   bool      // by the last run, which left nothing on the destinations that tells so
}

// Fleet makes the page of all hosts out of what their destinations hold. The lines are those of catalog.Fleet, of the same
// listings; failed are the errors of destinations that do not answer; known is what HistoryOf returned.
func Fleet(lines []catalog.FleetLine, found []catalog.Listed, failed []error, known func(host, volume string) Known,
	now time.Time, limit time.Duration, loc *time.Location) report.Page {
	nights := map[string][]report.Night{}
	for _, l := range found {
		for _, b := range l.Lines(l.Destination) {
			key := l.Host + "/" + strings.TrimSuffix(b.Backup, "@"+catalog.FormatTime(b.Time))
			if nights[key] == nil {
				nights[key] = make([]report.Night, report.PageNights)
			}
			note(nights[key], b.Time, now, loc, nightOfStatus(b.Status))
		}
	}
	hosts := map[string]bool{}
	page := report.Page{Made: now, Location: loc, Limit: limit}
	for _, l := range lines {
		hosts[l.Host] = true
		v := report.PageVolume{
			Host: l.Host, Name: l.Volume, Guest: l.Guest, Good: l.Good, SizeBytes: l.SizeBytes, On: l.On, Nights: nights[l.Host+"/"+l.Volume],
			Failed:  l.Newest.After(l.Good) && l.Status == "unfinished",
			Damaged: l.Newest.After(l.Good) && l.Status != "unfinished" && l.Status != string(catalog.StatusComplete),
		}
		k := known(l.Host, l.Volume)
		switch {
		case v.Failed || v.Damaged:
			v.Note = "one of " + l.Newest.In(loc).Format("2006-01-02 15:04") + " is " + l.Status
		case k.Failed:
			v.Note = "the last run failed"
		}
		if !l.Ahead.IsZero() {
			v.Note = "one of " + l.Ahead.In(loc).Format("2006-01-02 15:04") + " is dated ahead of this host's clock"
		}
		v.Verified, v.Damaged, v.Failed = k.Verified, v.Damaged || k.Damaged, v.Failed || k.Failed
		page.Volumes = append(page.Volumes, v)
	}
	for _, err := range failed {
		page.Problems = append(page.Problems, report.ProblemsOf(err)...)
	}
	page.Title = fmt.Sprintf("%d hosts", len(hosts))
	if len(hosts) == 1 {
		page.Title = lines[0].Host
	}
	return page
}

func nightOfStatus(status string) report.Night {
	switch status {
	case string(catalog.StatusComplete):
		return report.NightGood
	case "unfinished":
		return report.NightFailed
	default:
		return report.NightDamaged
	}
}

// HistoryOf returns what the history of this host knows of its own volumes; of others nothing is known.
func HistoryOf(host string, runs []report.Run) func(host, volume string) Known {
	volumes := map[string]Known{}
	if backups := history.OfCommand(runs, "run"); len(backups) > 0 {
		last, missing := history.Standing(backups)
		run := report.Run{Command: "run", Destinations: last.Destinations, Volumes: slices.Concat(last.Volumes, missing)}
		history.NoteProofs(&run, runs)
		for i, v := range run.Volumes {
			failed := i >= len(last.Volumes) || !v.Good() && v.Status != report.VolumeDamaged
			volumes[v.Name] = Known{v.LastProven(), v.LastDamaged.After(v.LastProven()), failed}
		}
	}
	return func(of, volume string) Known {
		if of != host {
			return Known{}
		}
		return volumes[volume]
	}
}
