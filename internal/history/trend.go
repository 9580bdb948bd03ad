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
