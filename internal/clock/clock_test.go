package clock

import (
	"testing"
	"time"
)

func TestIsAhead(t *testing.T) {
	now := time.Date(2026, 11, 20, 1, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		at    time.Time
		ahead bool
	}{
		{"past", now.Add(-time.Second), false},
		{"now", now, false},
		{"as far as two clocks may differ", now.Add(Tolerance), false},
		{"a second more", now.Add(Tolerance + time.Second), true},
		{"further than a duration can tell", now.AddDate(2000, 0, 0), true},
		{"long past", now.AddDate(-2000, 0, 0), false},
	} {
		if got := IsAhead(c.at, now); got != c.ahead {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestDayCountsDates(t *testing.T) {
	loc, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	// The night in which an hour comes twice, and a time before 1970.
	day := func(text string) int {
		at, err := time.ParseInLocation("2006-01-02 15:04", text, loc)
		if err != nil {
			t.Fatal(err)
		}
		return Day(at, loc)
	}
	if n := day("2026-10-26 00:10") - day("2026-10-25 23:50"); n != 1 {
		t.Errorf("%d days", n)
	}
	if n := day("2026-10-25 23:50") - day("2026-10-25 00:10"); n != 0 {
		t.Errorf("%d days", n)
	}
	if n := day("1970-01-02 12:00") - day("1969-12-30 12:00"); n != 3 {
		t.Errorf("%d days around the epoch", n)
	}
}
