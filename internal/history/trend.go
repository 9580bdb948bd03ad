package history

import (
	"time"

	"voltar/report"
)

// trendRuns is how many runs a trend goes back.
const trendRuns = 30

// backupCommand is the command of the runs that make backups; others are kept in the same history.
const backupCommand = "run"

// Points gives what reports need for the trend and the forecast: the newest 30 runs that made backups. Here and below,
// runs are as List returns them, newest first.
func Points(runs []report.Run) []report.Point {
	var points []report.Point
	for _, run := range runs {
		if run.Command == backupCommand && len(points) < trendRuns {
			points = append(points, report.PointOf(run))
		}
	}
	return points
}

// VolumePoint is one volume in one run.
type VolumePoint struct {
	RunID       string              `json:"run"`
	Started     time.Time           `json:"started"`
	Status      report.VolumeStatus `json:"status"`
	Backup      string              `json:"backup,omitempty"`
	Duration    time.Duration       `json:"duration_ns"`
	ReadBytes   int64               `json:"read"`
	StoredBytes int64               `json:"stored"`
	Entries     int64               `json:"entries"`
}

// Trend gives the last 30 backups of a volume that were tried, newest first.
func Trend(runs []report.Run, volume string) []VolumePoint {
	var points []VolumePoint
	for _, run := range runs {
		if run.Command != backupCommand {
			continue
		}
		for _, v := range run.Volumes {
			if v.Name != volume || v.Status == report.VolumeSkipped || len(points) == trendRuns {
				continue
			}
			points = append(points, VolumePoint{
				RunID: run.ID, Started: v.Started, Status: v.Status, Backup: v.Backup, Duration: v.Ended.Sub(v.Started),
				ReadBytes: v.ReadBytes, StoredBytes: v.StoredBytes, Entries: v.Entries,
			})
		}
	}
	return points
}

// LastGood gives the newest complete backup of a volume as its run reported it; ok is false when there is none.
func LastGood(runs []report.Run, volume string) (v report.Volume, ok bool) {
	for _, run := range runs {
		if run.Command != backupCommand {
			continue
		}
		for _, v := range run.Volumes {
			if v.Name == volume && v.Good() {
				return v, true
			}
		}
	}
	return report.Volume{}, false
}

// LastSuccess gives for each volume when a run of the given command ("run", "verify", "restore") last ended well for it.
func LastSuccess(runs []report.Run, command string) map[string]time.Time {
	last := make(map[string]time.Time)
	for _, run := range runs {
		if run.Command != command {
			continue
		}
		for _, v := range run.Volumes {
			if v.Good() && v.Ended.After(last[v.Name]) {
				last[v.Name] = v.Ended
			}
		}
	}
	return last
}
