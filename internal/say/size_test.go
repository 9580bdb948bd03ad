package say_test

import (
	"math"
	"testing"

	"voltar/internal/say"
)

func TestSize(t *testing.T) {
	tests := []struct {
		bytes int64
		want  string
	}{
		{0, "0 B"},
		{1, "1 B"},
		{1023, "1023 B"},
		{1024, "1.0 KiB"},
		{3584 << 20, "3.5 GiB"},
		{102348, "99.9 KiB"},
		{102399, "100 KiB"},
		{267 << 30, "267 GiB"},
		{1<<20 - 1, "1.0 MiB"},
		{1<<30 - 1, "1.0 GiB"},
		{1<<50 - 1, "1.0 PiB"},
		{1 << 50, "1.0 PiB"},
		{1<<50 + 1<<49, "1.5 PiB"},
		{math.MaxInt64, "8.0 EiB"},
		{math.MinInt64, "-8.0 EiB"},
		{-1536, "-1.5 KiB"},
	}
	for _, tt := range tests {
		if got := say.Size(tt.bytes); got != tt.want {
			t.Errorf("%d: %q, want %q", tt.bytes, got, tt.want)
		}
	}
}

func TestCounted(t *testing.T) {
	for want, got := range map[string]string{
		"0 volumes": say.Counted(0, "volume"), "1 entry": say.Counted(1, "entry"), "2 entries": say.Counted(int64(2), "entry"),
		"1 234 directories": say.Counted(1234, "directory"), "7 days": say.Counted(7, "day"), "1 day": say.Counted(1, "day"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
