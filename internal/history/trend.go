package history

import (
	"slices"
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

// LastGood tells when each volume had its last good backup before a run. When that run did not get to its volumes, they are
// the volumes of the run before: an alert on the age of a backup must not lose its subject on the night it is for.
func LastGood(run report.Run, earlier []report.Run) map[string]time.Time {
	volumes := slices.Clone(run.Volumes)
	if len(volumes) == 0 || len(volumes) < run.PlannedVolumes {
		if at := slices.IndexFunc(earlier, func(r report.Run) bool { return len(r.Volumes) > 0 }); at >= 0 {
			volumes = append(volumes, earlier[at].Volumes...)
		}
	}
	found := map[string]time.Time{}
	for _, v := range volumes {
		for _, run := range earlier {
			at := slices.IndexFunc(run.Volumes, func(old report.Volume) bool { return old.Name == v.Name && old.Good() })
			if at >= 0 {
				found[v.Name] = run.Volumes[at].Ended
				break
			}
		}
	}
	return found
}

// OfCommand returns the runs of one command: a report is compared with those.
func OfCommand(runs []report.Run, command string) []report.Run {
	var same []report.Run
	for _, run := range runs {
		if run.Command == command {
			same = append(same, run)
		}
	}
	return same
}

// NoteProofs enters into a report when a backup of each volume was last verified and last restored.
func NoteProofs(run *report.Run, earlier []report.Run) {
	verified, restored := LastSuccess(earlier, "verify"), LastSuccess(earlier, "restore")
	for i := range run.Volumes {
		v := &run.Volumes[i]
		v.LastVerified, v.LastRestored = verified[v.Name], restored[v.Name]
	}
}
