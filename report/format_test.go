package report

import (
	"math"
	"testing"
	"time"

	"voltar/internal/say"
)

func TestFormatDuration(t *testing.T) {
	tests := []struct {
		d    time.Duration
		want string
	}{
		{-time.Second, "0.0 s"},
		{0, "0.0 s"},
		{49 * time.Millisecond, "0.0 s"},
		{400 * time.Millisecond, "0.4 s"},
		{59900 * time.Millisecond, "59.9 s"},
		{59949 * time.Millisecond, "59.9 s"},
		{59950 * time.Millisecond, "1 m 0 s"},
		{time.Minute, "1 m 0 s"},
		{81 * time.Second, "1 m 21 s"},
		{119500 * time.Millisecond, "2 m 0 s"},
		{time.Hour - 400*time.Millisecond, "1 h 0 m 0 s"},
		{75 * time.Minute, "1 h 15 m 0 s"},
		{75*time.Minute + 35*time.Second, "1 h 15 m 35 s"},
		{24*time.Hour - time.Second, "23 h 59 m 59 s"},
		{51*time.Hour + 4*time.Minute + 5*time.Second, "2 d 3 h 4 m 5 s"},
	}
	for _, tt := range tests {
		if got := FormatDuration(tt.d); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.d, got, tt.want)
		}
	}
}

func TestFormatPercent(t *testing.T) {
	tests := []struct {
		percent float64
		want    string
	}{
		{0, "0 %"}, {0.001, "<0.1 %"}, {0.1, "0.1 %"}, {3.2, "3.2 %"}, {9.94, "9.9 %"}, {9.96, "10 %"}, {35, "35 %"},
		{98.6, "99 %"}, {99.4, "99.4 %"}, {99.99, "99.9 %"}, {100, "100 %"}, {250.4, "250 %"}, {-62, "-62 %"},
		{-0.01, "-<0.1 %"}, {math.NaN(), "unknown"}, {math.Inf(1), "unknown"},
	}
	for _, tt := range tests {
		if got := FormatPercent(tt.percent); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.percent, got, tt.want)
		}
	}
}

func TestChange(t *testing.T) {
	tests := []struct {
		now, before int64
		want        string
	}{
		{10, -1, "first"}, {10, 10, "same"}, {0, 0, "same"}, {10, 0, "was 0"}, {15, 10, "+50 %"}, {5, 10, "-50 %"},
		{0, 10, "-100 %"}, {1 << 60, 1, "> 999 %"},
	}
	for _, tt := range tests {
		if got := change(tt.now, tt.before); got != tt.want {
			t.Errorf("%d after %d: %q, want %q", tt.now, tt.before, got, tt.want)
		}
	}
}

func TestFormatCountAndAge(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1 000", 1234567: "1 234 567", -1000: "-1 000"} {
		if got := say.Count(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	now := time.Date(2026, 11, 20, 1, 0, 0, 0, time.UTC)
	for ago, want := range map[time.Duration]string{
		-time.Hour: "just now", 59 * time.Minute: "just now", time.Hour: "1 hour ago", 47 * time.Hour: "47 hours ago",
		48 * time.Hour: "2 days ago", 75 * time.Hour: "3 days ago",
	} {
		if got := formatAge(now, now.Add(-ago)); got != want {
			t.Errorf("%v: %q, want %q", ago, got, want)
		}
	}
}
