package retention

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"voltar/internal/clock"
)

func location(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// at reads a time of the given location.
func at(t testing.TB, loc *time.Location, text string) time.Time {
	t.Helper()
	parsed, err := time.ParseInLocation("2006-01-02 15:04", text, loc)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// history reads one backup a line: a time, then words.
func history(t testing.TB, loc *time.Location, lines ...string) []Backup {
	t.Helper()
	var backups []Backup
	for _, line := range lines {
		when, words := line[:16], line[16:]
		backups = append(backups, Backup{
			ID:       line[:16],
			Time:     at(t, loc, when).UTC(),
			Complete: !strings.Contains(words, "damaged"),
			Foreign:  strings.Contains(words, "foreign"),
		})
	}
	return backups
}

func nightly(t testing.TB, loc *time.Location, first string, nights int) []Backup {
	t.Helper()
	start := at(t, loc, first)
	var lines []string
	for i := range nights {
		lines = append(lines, start.AddDate(0, 0, i).Format("2006-01-02 15:04"))
	}
	return history(t, loc, lines...)
}

func apply(t testing.TB, now time.Time, loc *time.Location, backups []Backup, policy Policy) []Decision {
	t.Helper()
	decisions, err := Apply(now, loc, backups, policy)
	if err != nil {
		t.Fatal(err)
	}
	return decisions
}

func lines(decisions []Decision) []string {
	var out []string
	for _, d := range decisions {
		verb := " removed: "
		if d.Keep {
			verb = " kept: "
		}
		out = append(out, d.Backup.ID+verb+d.Reason)
	}
	return out
}

func keptIDs(decisions []Decision) []string {
	var ids []string
	for _, d := range decisions {
		if d.Keep {
			ids = append(ids, d.Backup.ID)
		}
	}
	return ids
}

func TestApply(t *testing.T) {
	berlin := location(t, "Europe/Berlin")
	tests := []struct {
		name    string
		now     string
		backups []string
		policy  Policy
		want    []string
	}{
		{
			name:    "seven days are today and the six before, whatever the hour",
			now:     "2026-11-20 01:10",
			backups: []string{"2026-11-20 01:00", "2026-11-14 23:59", "2026-11-14 00:00", "2026-11-13 23:59"},
			policy:  Policy{Days: 7},
			want: []string{
				"2026-11-20 01:00 kept: within 7 days",
				"2026-11-14 23:59 kept: within 7 days",
				"2026-11-14 00:00 kept: within 7 days",
				"2026-11-13 23:59 removed: older than 7 days",
			},
		},
		{
			name:    "days alone keep the last good one when nothing is within them",
			now:     "2026-11-20 01:00",
			backups: []string{"2026-11-13 01:00", "2026-11-12 01:00"},
			policy:  Policy{Days: 7},
			want: []string{
				"2026-11-13 01:00 kept: last good backup",
				"2026-11-12 01:00 removed: older than 7 days",
			},
		},
		{
			name:    "nights that fail end nothing",
			now:     "2026-11-20 01:00",
			backups: []string{"2026-11-20 00:30 damaged", "2026-11-11 01:00 damaged", "2026-11-10 01:00", "2026-11-05 01:00", "2026-11-04 01:00"},
			policy:  Policy{Days: 7},
			want: []string{
				"2026-11-20 00:30 kept: within 7 days",
				"2026-11-11 01:00 removed: older than 7 days",
				"2026-11-10 01:00 kept: within 7 days, with a gap of 10 days counted as one",
				"2026-11-05 01:00 kept: within 7 days, with a gap of 10 days counted as one",
				"2026-11-04 01:00 removed: older than 7 days",
			},
		},
		{
			name:    "one day",
			now:     "2026-11-20 02:00",
			backups: []string{"2026-11-20 01:00", "2026-11-19 01:00"},
			policy:  Policy{Days: 1},
			want:    []string{"2026-11-20 01:00 kept: within 1 day", "2026-11-19 01:00 removed: older than 1 day"},
		},
		{
			name:    "only damaged ones: the newest stays",
			now:     "2026-11-20 01:00",
			backups: []string{"2026-11-02 01:00 damaged", "2026-11-01 01:00 damaged"},
			policy:  Policy{Days: 7},
			want: []string{
				"2026-11-02 01:00 kept: best there is, as no backup is complete",
				"2026-11-01 01:00 removed: older than 7 days",
			},
		},
		{
			name: "damaged ones take no slot of complete ones and are kept in their own time",
			now:  "2026-11-20 02:00",
			backups: []string{"2026-11-20 01:00 damaged", "2026-11-19 01:00 damaged", "2026-11-18 01:00 damaged",
				"2026-11-17 01:00", "2026-11-16 01:00", "2026-11-15 01:00"},
			policy: Policy{Daily: 2},
			want: []string{
				"2026-11-20 01:00 kept: daily 2026-11-20",
				"2026-11-19 01:00 kept: daily 2026-11-19",
				"2026-11-18 01:00 removed: not among 2 daily",
				"2026-11-17 01:00 kept: daily 2026-11-17",
				"2026-11-16 01:00 kept: daily 2026-11-16",
				"2026-11-15 01:00 removed: not among 2 daily",
			},
		},
		{
			name: "the newest of each period, periods without a backup not counted, rules independent",
			now:  "2026-11-20 02:00",
			backups: []string{"2026-11-20 01:00", "2026-11-19 01:00", "2026-11-12 13:00", "2026-11-12 01:00",
				"2026-10-31 01:00", "2026-10-30 01:00", "2025-12-31 01:00", "2025-06-01 01:00"},
			policy: Policy{KeepLast: 1, Daily: 3, Weekly: 2, Monthly: 2, Yearly: 2},
			want: []string{
				"2026-11-20 01:00 kept: last 1, daily 2026-11-20, weekly 2026-W47, monthly 2026-11, yearly 2026",
				"2026-11-19 01:00 kept: daily 2026-11-19",
				"2026-11-12 13:00 kept: daily 2026-11-12, weekly 2026-W46",
				"2026-11-12 01:00 removed: not among last 1, 3 daily, 2 weekly, 2 monthly, 2 yearly",
				"2026-10-31 01:00 kept: monthly 2026-10",
				"2026-10-30 01:00 removed: not among last 1, 3 daily, 2 weekly, 2 monthly, 2 yearly",
				"2025-12-31 01:00 kept: yearly 2025",
				"2025-06-01 01:00 removed: not among last 1, 3 daily, 2 weekly, 2 monthly, 2 yearly",
			},
		},
		{
			name:    "ISO weeks across the new year",
			now:     "2027-01-05 02:00",
			backups: []string{"2027-01-04 01:00", "2027-01-03 01:00", "2026-12-28 01:00", "2026-12-27 01:00"},
			policy:  Policy{Weekly: 3},
			want: []string{
				"2027-01-04 01:00 kept: weekly 2027-W01",
				"2027-01-03 01:00 kept: weekly 2026-W53",
				"2026-12-28 01:00 removed: not among 3 weekly",
				"2026-12-27 01:00 kept: weekly 2026-W52",
			},
		},
		{
			name:    "days and a rule",
			now:     "2026-11-20 02:00",
			backups: []string{"2026-11-20 01:00", "2026-11-18 01:00", "2026-10-31 01:00", "2026-10-30 01:00"},
			policy:  Policy{Days: 2, Monthly: 2},
			want: []string{
				"2026-11-20 01:00 kept: within 2 days, monthly 2026-11",
				"2026-11-18 01:00 removed: older than 2 days, not among 2 monthly",
				"2026-10-31 01:00 kept: monthly 2026-10",
				"2026-10-30 01:00 removed: older than 2 days, not among 2 monthly",
			},
		},
		{
			name:    "one of the future stays, takes no slot and is no floor",
			now:     "2026-11-20 02:00",
			backups: []string{"2036-01-01 01:00", "2026-11-18 01:00 damaged", "2026-11-17 01:00"},
			policy:  Policy{KeepLast: 1},
			want: []string{
				"2036-01-01 01:00 kept: dated ahead of this host's clock",
				"2026-11-18 01:00 kept: last 1",
				"2026-11-17 01:00 kept: last 1",
			},
		},
		{
			name:    "clock back at 1970: everything is in the future and stays",
			now:     "1970-01-02 01:00",
			backups: []string{"2026-11-20 01:00", "2026-11-19 01:00", "1970-01-02 00:30"},
			policy:  Policy{Days: 1},
			want: []string{
				"2026-11-20 01:00 kept: dated ahead of this host's clock",
				"2026-11-19 01:00 kept: dated ahead of this host's clock",
				"1970-01-02 00:30 kept: within 1 day",
			},
		},
		{
			name:    "clock ten years ahead, first run: the gap counts as one day",
			now:     "2036-11-20 02:00",
			backups: []string{"2036-11-20 01:00", "2026-11-19 01:00", "2026-11-14 01:00", "2026-11-13 23:00"},
			policy:  Policy{Days: 7},
			want: []string{
				"2036-11-20 01:00 kept: within 7 days",
				"2026-11-19 01:00 kept: within 7 days, with a gap of 3654 days counted as one",
				"2026-11-14 01:00 kept: within 7 days, with a gap of 3654 days counted as one",
				"2026-11-13 23:00 removed: older than 7 days",
			},
		},
		{
			name:    "clock ten years ahead for two nights: a night costs what a night would",
			now:     "2036-11-21 02:00",
			backups: []string{"2036-11-21 01:00", "2036-11-20 01:00", "2026-11-19 01:00", "2026-11-15 01:00", "2026-11-14 01:00"},
			policy:  Policy{Days: 7},
			want: []string{
				"2036-11-21 01:00 kept: within 7 days",
				"2036-11-20 01:00 kept: within 7 days",
				"2026-11-19 01:00 kept: within 7 days, with a gap of 3654 days counted as one",
				"2026-11-15 01:00 kept: within 7 days, with a gap of 3654 days counted as one",
				"2026-11-14 01:00 removed: older than 7 days",
			},
		},
		{
			name:    "damaged ones make no gap shorter",
			now:     "2036-11-21 02:00",
			backups: []string{"2036-11-21 01:00 damaged", "2031-11-20 01:00 damaged", "2026-11-19 01:00"},
			policy:  Policy{Days: 7},
			want: []string{
				"2036-11-21 01:00 kept: within 7 days",
				"2031-11-20 01:00 removed: older than 7 days",
				"2026-11-19 01:00 kept: within 7 days, with a gap of 3655 days counted as one",
			},
		},
		{
			name:    "only the latest gap counts as one day",
			now:     "2036-11-20 02:00",
			backups: []string{"2036-11-20 01:00", "2036-08-01 01:00", "2036-04-01 01:00"},
			policy:  Policy{Days: 7},
			want: []string{
				"2036-11-20 01:00 kept: within 7 days",
				"2036-08-01 01:00 kept: within 7 days, with a gap of 111 days counted as one",
				"2036-04-01 01:00 removed: older than 7 days",
			},
		},
		{
			name:    "what came after the gap is counted from today",
			now:     "2036-11-27 02:00",
			backups: []string{"2036-11-20 02:00", "2036-11-20 01:00", "2026-11-19 01:00"},
			policy:  Policy{Days: 7},
			want: []string{
				"2036-11-20 02:00 kept: last good backup",
				"2036-11-20 01:00 removed: older than 7 days",
				"2026-11-19 01:00 removed: older than 7 days",
			},
		},
		{
			name:    "two clocks may differ by minutes",
			now:     "2026-11-20 00:40",
			backups: []string{"2026-11-20 01:00", "2026-11-19 01:00"},
			policy:  Policy{KeepLast: 1},
			want:    []string{"2026-11-20 01:00 kept: last 1", "2026-11-19 01:00 removed: not among last 1"},
		},
		{
			name:    "another machine's backups displace none, and go as this machine's come",
			now:     "2026-11-20 02:00",
			backups: []string{"2026-11-20 01:30 foreign", "2026-11-20 01:00", "2026-11-19 01:30 foreign", "2026-11-18 01:00", "2026-11-17 01:00"},
			policy:  Policy{KeepLast: 2},
			want: []string{
				"2026-11-20 01:30 kept: last 2 (made by another machine)",
				"2026-11-20 01:00 kept: last 2",
				"2026-11-19 01:30 removed: not among last 2 (made by another machine)",
				"2026-11-18 01:00 kept: last 2",
				"2026-11-17 01:00 removed: not among last 2",
			},
		},
		{
			name:    "a machine that was replaced: its last good one stays until its successor has one",
			now:     "2026-11-20 02:00",
			backups: []string{"2026-11-19 01:00 damaged", "2026-11-13 01:00 foreign", "2026-11-12 01:00 foreign"},
			policy:  Policy{Days: 7},
			want: []string{
				"2026-11-19 01:00 kept: within 7 days",
				"2026-11-13 01:00 kept: last good backup (made by another machine)",
				"2026-11-12 01:00 removed: older than 7 days (made by another machine)",
			},
		},
		{
			name:    "a machine that was replaced: its successor has one",
			now:     "2026-11-20 02:00",
			backups: []string{"2026-11-20 01:00", "2026-11-13 01:00 foreign"},
			policy:  Policy{Days: 7},
			want: []string{
				"2026-11-20 01:00 kept: within 7 days",
				"2026-11-13 01:00 removed: older than 7 days (made by another machine)",
			},
		},
		{
			name:    "another machine's backup is no floor of this one",
			now:     "2026-11-20 02:00",
			backups: []string{"2026-11-19 01:00 foreign", "2026-11-13 01:00", "2026-11-12 01:00"},
			policy:  Policy{Days: 7},
			want: []string{
				"2026-11-19 01:00 kept: within 7 days (made by another machine)",
				"2026-11-13 01:00 kept: last good backup",
				"2026-11-12 01:00 removed: older than 7 days",
			},
		},
		{
			name:    "a week between backups is no gap",
			now:     "2026-11-20 02:00",
			backups: []string{"2026-11-20 01:00", "2026-11-13 01:00"},
			policy:  Policy{Days: 7},
			want:    []string{"2026-11-20 01:00 kept: within 7 days", "2026-11-13 01:00 removed: older than 7 days"},
		},
		{name: "no backups", now: "2026-11-20 01:00", policy: Policy{Days: 7}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := apply(t, at(t, berlin, tt.now), berlin, history(t, berlin, tt.backups...), tt.policy)
			if diff := cmp.Diff(tt.want, lines(got)); diff != "" {
				t.Errorf("decisions (-want +got):\n%s", diff)
			}
		})
	}
}

// Days are dates: neither the short nor the long day of the year moves the border.
func TestDaysAcrossDaylightSaving(t *testing.T) {
	tests := []struct{ zone, first, now string }{
		{"Europe/Berlin", "2026-03-20 00:30", "2026-03-31 00:40"},
		{"Europe/Berlin", "2026-10-15 23:30", "2026-10-27 23:40"},
		{"America/Sao_Paulo", "2018-10-30 00:30", "2018-11-07 00:40"}, // midnight of 4 November did not exist
		{"Pacific/Apia", "2011-12-24 01:00", "2012-01-03 01:10"},      // 30 December did not exist
		{"UTC", "2026-11-01 01:00", "2026-11-20 01:10"},
	}
	for _, tt := range tests {
		t.Run(tt.zone+" "+tt.first[:10], func(t *testing.T) {
			loc := location(t, tt.zone)
			now := at(t, loc, tt.now)
			backups := nightly(t, loc, tt.first, 25)
			backups = slices.DeleteFunc(backups, func(b Backup) bool { return b.Time.After(now) })
			oldest := now.AddDate(0, 0, -6).Format("2006-01-02")
			for _, d := range apply(t, now, loc, backups, Policy{Days: 7}) {
				if want := d.Backup.Time.In(loc).Format("2006-01-02") >= oldest; d.Keep != want {
					t.Errorf("%s: kept %v: %s", d.Backup.ID, d.Keep, d.Reason)
				}
			}
		})
	}
}

// A clock that is wrong for some nights, whatever it shows, costs no more than as many nights with a right one.
func TestClockJumpAndReturn(t *testing.T) {
	loc := location(t, "Europe/Berlin")
	for _, policy := range []Policy{{Days: 7}, {Days: 30}, {Days: 7, Monthly: 12}, {KeepLast: 5}} {
		for _, years := range []int{-50, -1, 1, 10, 300} {
			for _, wrongNights := range []int{1, 2, 3} {
				t.Run(fmt.Sprintf("%s, %+d years, %d nights", policy, years, wrongNights), func(t *testing.T) {
					backups := nightly(t, loc, "2026-10-01 01:00", 50)
					now := at(t, loc, "2026-11-19 01:10")
					backups = remaining(apply(t, now, loc, backups, policy))
					real := slices.Clone(backups)
					night := func(list []Backup, now time.Time, id string) []Backup {
						list = append(list, Backup{ID: id, Time: now.Add(-time.Minute), Complete: true})
						return remaining(apply(t, now, loc, list, policy))
					}
					for n := range wrongNights {
						real = night(real, now.AddDate(0, 0, n+1), fmt.Sprint("night ", n))
						backups = night(backups, now.AddDate(years, 0, n+1), fmt.Sprint("night ", n))
					}
					var want []string
					for _, b := range real {
						want = append(want, b.ID)
					}
					var have []string
					for _, b := range backups {
						have = append(have, b.ID)
					}
					containsAll(t, "with the wrong clock", have, want)
					right := now.AddDate(0, 0, wrongNights+1)
					left := night(backups, right, "right")
					if !slices.ContainsFunc(left, func(b Backup) bool { return b.ID == "right" }) || len(left) < min(len(real), 7)-wrongNights {
						t.Errorf("after the clock was set right: %+v", left)
					}
				})
			}
		}
	}
}

func remaining(decisions []Decision) []Backup {
	var backups []Backup
	for _, d := range decisions {
		if d.Keep {
			backups = append(backups, d.Backup)
		}
	}
	return backups
}

func TestPolicy(t *testing.T) {
	tests := []struct {
		policy Policy
		want   string
		err    error
	}{
		{Policy{Days: 7}, "7 days", nil},
		{Policy{Days: 1}, "1 day", nil},
		{Policy{Daily: 7, Weekly: 4, Monthly: 12}, "7 daily, 4 weekly, 12 monthly", nil},
		{Policy{Days: 7, KeepLast: 3, Daily: 24, Yearly: 5}, "7 days, last 3, 24 daily, 5 yearly", nil},
		{Policy{}, "nothing", ErrEmptyPolicy},
	}
	for _, tt := range tests {
		if got := tt.policy.String(); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.policy, got, tt.want)
		}
		if _, err := Apply(time.Now(), time.UTC, nil, tt.policy); !errors.Is(err, tt.err) {
			t.Errorf("%+v: error %v, want %v", tt.policy, err, tt.err)
		}
	}
	err := Policy{Days: 7, Weekly: -1}.Validate()
	if err == nil || !strings.Contains(err.Error(), "weekly is negative") {
		t.Errorf("negative count: %v", err)
	}
}

// scenario makes a random history, policy and time from a seed: many backups a day or years apart, some in the future.
func scenario(seed uint64) (now time.Time, backups []Backup, policy Policy) {
	r := rand.New(rand.NewPCG(seed, 1))
	now = time.Unix(1_700_000_000+r.Int64N(100_000_000), 0).UTC()
	spread := []int64{3600, 86400 * 3, 86400 * 60, 86400 * 365 * 12}[r.IntN(4)]
	for i := range r.IntN(25) {
		backups = append(backups, Backup{
			ID:       fmt.Sprint(i),
			Time:     now.Add(time.Duration(r.Int64N(spread)-spread*9/10) * time.Second),
			Complete: r.IntN(3) > 0,
			Foreign:  r.IntN(4) == 0,
		})
	}
	for _, n := range []*int{&policy.Days, &policy.KeepLast, &policy.Daily, &policy.Weekly,
		&policy.Monthly, &policy.Yearly} {
		if r.IntN(3) == 0 {
			*n = r.IntN(9)
		}
	}
	if policy == (Policy{}) {
		policy.Days = 1 + r.IntN(40)
	}
	return now, backups, policy
}

// checkProperties holds one scenario to what is true of every history and policy.
func checkProperties(t *testing.T, seed uint64) {
	loc := []*time.Location{time.UTC, location(t, "Europe/Berlin"), location(t, "America/St_Johns")}[seed%3]
	now, backups, policy := scenario(seed)
	decisions := apply(t, now, loc, backups, policy)
	kept := remaining(decisions)
	r := rand.New(rand.NewPCG(seed, 2))

	present := func(in []Backup, ok func(Backup) bool) bool { return slices.ContainsFunc(in, ok) }
	for _, d := range decisions {
		if clock.IsAhead(d.Backup.Time, now) && !d.Keep {
			t.Errorf("condemned %+v", d.Backup)
		}
		if d.Reason == "" {
			t.Errorf("no reason for %+v", d.Backup)
		}
	}
	past := func(b Backup) bool { return !clock.IsAhead(b.Time, now) }
	own := func(b Backup) bool { return b.Complete && !b.Foreign && past(b) }
	if present(backups, own) && !present(kept, own) {
		t.Errorf("this machine's last complete backup is condemned: %q", lines(decisions))
	}
	good := func(b Backup) bool { return b.Complete && past(b) }
	if present(backups, good) && !present(kept, good) {
		t.Errorf("the last complete backup is condemned: %q", lines(decisions))
	}
	if present(backups, past) && !present(kept, past) {
		t.Errorf("nothing is left but the future: %q", lines(decisions))
	}

	if again := apply(t, now, loc, kept, policy); len(remaining(again)) != len(kept) {
		t.Errorf("applied twice, removes more: %q then %q", lines(decisions), lines(again))
	}

	shuffled := slices.Clone(backups)
	r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	if diff := cmp.Diff(decisions, apply(t, now, loc, shuffled, policy)); diff != "" {
		t.Errorf("the order of the input matters:\n%s", diff)
	}

	larger := policy
	for _, n := range []*int{&larger.Days, &larger.KeepLast, &larger.Daily, &larger.Weekly,
		&larger.Monthly, &larger.Yearly} {
		*n += r.IntN(3)
	}
	containsAll(t, "a larger policy", keptIDs(apply(t, now, loc, backups, larger)), keptIDs(decisions))

	whole := slices.DeleteFunc(slices.Clone(backups), func(b Backup) bool { return !b.Complete })
	containsAll(t, "with damaged ones beside them, complete ones", keptIDs(decisions),
		keptIDs(apply(t, now, loc, whole, policy)))

	alone := slices.DeleteFunc(slices.Clone(backups), func(b Backup) bool { return b.Foreign })
	containsAll(t, "with another machine's beside them, own ones", keptIDs(decisions),
		keptIDs(apply(t, now, loc, alone, policy)))

	today := slices.DeleteFunc(slices.Clone(backups), func(b Backup) bool { return clock.IsAhead(b.Time, now) })
	containsAll(t, "with future ones beside them, others", keptIDs(decisions),
		keptIDs(apply(t, now, loc, today, policy)))
}

func containsAll(t *testing.T, what string, have, want []string) {
	t.Helper()
	for _, id := range want {
		if !slices.Contains(have, id) {
			t.Errorf("%s: %s is condemned; kept %q, expected at least %q", what, id, have, want)
		}
	}
}

func TestProperties(t *testing.T) {
	for seed := range uint64(3000) {
		checkProperties(t, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzProperties(f *testing.F) {
	f.Add(uint64(1 << 40))
	f.Fuzz(checkProperties)
}
