// Package clock is the one rule for time that is not to be believed. Backups and runs are dated by the clock of the host
// that made them, and that clock may have been wrong; whoever may write to a store can date a backup as he likes. So:
//
//   - What is dated ahead of now is shown and marked as ahead. It is never the newest, never good news, and never a
//     reason to remove anything. Only who names it gets it.
//   - A gap longer than LongGapDays may be a clock that jumped, and counts as one day: no single night ends what many
//     were to end.
package clock

import "time"

// Tolerance is how far ahead a time may lie and still be believed: hosts that share a store do not agree on the second,
// and a clock that is set back a little must not cast doubt on what was made just before.
const Tolerance = time.Hour

// LongGapDays is the longest gap that is believed. Hosts that are backed up every week are not taken for hosts whose
// clock jumps.
const LongGapDays = 7

// IsAhead tells whether a time lies further ahead of now than Tolerance.
func IsAhead(t, now time.Time) bool { return t.Sub(now) > Tolerance }

// Day counts calendar days of a location. The difference of two is one of dates, never of hours.
func Day(t time.Time, loc *time.Location) int {
	year, month, day := t.In(loc).Date()
	const secondsPerDay = 24 * 60 * 60
	return int(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix() / secondsPerDay)
}
