package journal

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
	"time"
)

const runIDTime = "20060102T150405Z"

var runIDPattern = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}$`)

// NewRunID names a run that starts now: "20261120T010001Z-3f9a0c", sorted by time. It holds digits, "T", "Z", "-" and
// the letters a to f only, which are valid in LVM tags, in device-mapper names and UUIDs and in file names.
func NewRunID(now time.Time) string {
	random := make([]byte, 3)
	rand.Read(random) // never fails, as its documentation promises
	return now.UTC().Format(runIDTime) + "-" + hex.EncodeToString(random)
}

// ParseRunID checks a run ID and returns the second in which the run started.
func ParseRunID(id string) (time.Time, error) {
	if !runIDPattern.MatchString(id) {
		return time.Time{}, fmt.Errorf("cannot read %q as a run ID: it must look like 20261120T010001Z-3f9a0c", id)
	}
	started, err := time.Parse(runIDTime, id[:len(runIDTime)])
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot read %q as a run ID: %w", id, err)
	}
	return started, nil
}
