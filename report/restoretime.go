package report

import (
	"fmt"
	"strings"
	"time"
)

// RestoreTime is how long it takes to bring back all volumes, one after the other: as it was measured, by drills and restores, and
// for the others by the rate of those.
type RestoreTime struct {
	Measured  int `json:"measured"`  // volumes
	Estimated int `json:"estimated"` // volumes
	Unknown   int `json:"unknown"`   // volumes without a backup to estimate by
	// MeasuredSeconds and EstimatedSeconds are those of the volumes of either kind.
	MeasuredSeconds  float64 `json:"measured_seconds"`
	EstimatedSeconds float64 `json:"estimated_seconds"`
	BytesPerSecond   float64 `json:"bytes_per_second"` // of backups as they are stored, by all that was measured
}

// RestoreTimeOf sums up what is known of some volumes. ok is false where nothing was ever measured: there is nothing to estimate by.
func RestoreTimeOf(volumes []Volume) (t RestoreTime, ok bool) {
	var measuredBytes, otherBytes int64
	for _, v := range volumes {
		stored := v.StoredBytes
		if stored <= 0 {
			stored = v.PreviousStoredBytes
		}
		switch {
		case v.Restore != nil && v.Restore.Seconds > 0:
			t.Measured++
			t.MeasuredSeconds += v.Restore.Seconds
			measuredBytes += v.Restore.StoredBytes
		case stored > 0:
			t.Estimated++
			otherBytes += stored
		default:
			t.Unknown++
		}
	}
	if t.Measured == 0 || measuredBytes == 0 {
		return RestoreTime{}, false
	}
	t.BytesPerSecond = float64(measuredBytes) / t.MeasuredSeconds
	t.EstimatedSeconds = float64(otherBytes) / t.BytesPerSecond
	return t, true
}

// Duration is that of all volumes.
func (t RestoreTime) Duration() time.Duration {
	return time.Duration((t.MeasuredSeconds + t.EstimatedSeconds) * float64(time.Second))
}

// String says it in words, and what of it is an estimate.
func (t RestoreTime) String() string {
	text := FormatDuration(t.Duration()) + ", one after the other"
	switch {
	case t.Measured+t.Estimated == 1:
		text = FormatDuration(t.Duration())
	case t.Estimated > 0:
		text = "about " + text
	}
	if t.Estimated == 0 {
		text += ": measured"
	} else {
		text += fmt.Sprintf(": %d measured, %d estimated by these", t.Measured, t.Estimated)
	}
	if t.Unknown > 0 {
		text += fmt.Sprintf(", %d unknown", t.Unknown)
	}
	return text
}

// shortAge is an age in days, or in hours where it is less than two: "3 d".
func shortAge(now, then time.Time) string {
	age := max(now.Sub(then), 0)
	if days := int64(age / (24 * time.Hour)); days >= 2 {
		return fmt.Sprintf("%d d", days)
	}
	return fmt.Sprintf("%d h", int64(age/time.Hour))
}

// proofWords say in a few characters how long ago a backup of the volume was proven, and how long the last restore took:
// "3 d, 6 m 12 s".
func (v Volume) proofWords(now time.Time) string {
	switch last := v.LastProven(); {
	case v.LastDamaged.After(last):
		return "damaged"
	case last.IsZero():
		return "never"
	case v.Restore == nil || v.LastRestored.IsZero():
		return shortAge(now, last)
	default:
		return shortAge(now, last) + ", " + roughly(v.Restore.Duration())
	}
}

// roughly is a duration in its two largest units at most.
func roughly(d time.Duration) string {
	words := strings.Fields(FormatDuration(d))
	return strings.Join(words[:min(len(words), 4)], " ")
}

// oldestProof is of some volumes the one whose last proof is the oldest, and how many have none.
func oldestProof(volumes []Volume) (oldest Volume, unproven int) {
	for _, v := range volumes {
		switch last := v.LastProven(); {
		case last.IsZero():
			unproven++
		case oldest.LastProven().IsZero() || last.Before(oldest.LastProven()):
			oldest = v
		}
	}
	return oldest, unproven
}
