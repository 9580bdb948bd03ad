package history

import (
	"slices"
	"strings"
	"time"

	"voltar/internal/exitcode"
	"voltar/report"
)

// trendRuns is how many runs a trend goes back.
const trendRuns = 30

// backupCommand is the command of the runs that make backups; others are kept in the same history.
const backupCommand = "run"

// Commands of runs that restored backups: to try them, and for use.
const (
	DrillCommand   = "drill"
	RestoreCommand = "restore"
)

// IsProof tells whether a run restored backups.
func IsProof(run report.Run) bool {
	return run.Command == DrillCommand || run.Command == RestoreCommand
}

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

// Standing gives how the host's volumes stand by the runs that made backups. last is the newest run of all volumes, in which
// what later runs of named ones came to stands in place of what it came to; missing are the volumes that it did not get to, by the
// runs before it. Where every run named its volumes, last is the oldest.
func Standing(backups []report.Run) (last report.Run, missing []report.Volume) {
	if len(backups) == 0 {
		return report.Run{}, nil
	}
	at := slices.IndexFunc(backups, func(r report.Run) bool { return len(r.Named) == 0 })
	if at < 0 {
		at = len(backups) - 1
	}
	last = backups[at]
	reached := reachedAll(last)
	last.Volumes = slices.Clone(last.Volumes)
	for _, later := range slices.Backward(backups[:at]) {
		if overlay(&last, later) && (last.ExitCode == exitcode.Attention || last.ExitCode == exitcode.Nothing) {
			last.ExitCode = exitcode.Done // that of its volumes as they were: what is wrong now is told by those in place of them
		}
	}
	if !reached {
		before, more := Standing(backups[at+1:])
		for _, v := range slices.Concat(before.Volumes, more) {
			if !slices.ContainsFunc(last.Volumes, func(have report.Volume) bool { return have.Name == v.Name }) {
				missing = append(missing, v)
			}
		}
	}
	return last, missing
}

func reachedAll(run report.Run) bool {
	return len(run.Volumes) > 0 && len(run.Volumes) >= run.PlannedVolumes
}

// overlay puts what a later run came to in the place of what a run came to. It tells whether there was anything.
func overlay(run *report.Run, later report.Run) (changed bool) {
	places := map[string]int{}
	for i, v := range run.Volumes {
		places[v.Name] = i
	}
	for _, v := range later.Volumes {
		at, known := places[v.Name]
		switch {
		case v.Status == report.VolumeSkipped: // it says nothing of the volume
			continue
		case known:
			run.Volumes[at] = v
		default:
			run.Volumes = append(run.Volumes, v)
		}
		changed = true
	}
	return changed
}

// LastGood tells when each volume had its last good backup before a run. When that run named its volumes or did not get to all, those of
// the runs before are among them: an alert on the age of a backup must not lose its subject on the night it is for.
func LastGood(run report.Run, earlier []report.Run) map[string]time.Time {
	volumes := slices.Clone(run.Volumes)
	if len(run.Named) > 0 || !reachedAll(run) {
		before, missing := Standing(earlier)
		volumes = slices.Concat(volumes, before.Volumes, missing)
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

// LastAt tells when the latest run of a host began that made a backup at a place, which is what Where of a destination says.
func LastAt(runs []report.Run, host, where string) (began time.Time, ok bool) {
	for _, run := range OfCommand(runs, backupCommand) {
		if run.Host == host && run.Started.After(began) && madeAt(run, where) {
			began, ok = run.Started, true
		}
	}
	return began, ok
}

// madeAt says that a run made a backup at a place.
func madeAt(run report.Run, where string) bool {
	for _, v := range run.Volumes {
		for _, c := range v.Copies {
			if c.Error == nil && c.Path != "" && slices.ContainsFunc(run.Destinations, func(d report.Destination) bool {
				return d.Name == c.Destination && d.Where == where
			}) {
				return true
			}
		}
	}
	return false
}

// NoteProofs enters into a report what earlier runs know of its volumes: when a backup of each was last verified, restored and
// found damaged, on one of the destinations that the run wrote to; and of one that is not good, where no destination could be
// asked, when it last had a good backup.
func NoteProofs(run *report.Run, earlier []report.Run) {
	byName := map[string]*report.Volume{}
	for i := range run.Volumes {
		byName[run.Volumes[i].Name] = &run.Volumes[i]
	}
	for _, past := range earlier {
		for _, old := range past.Volumes {
			if v := byName[old.Name]; v != nil {
				noteProof(v, past, old, placesOf(*run, *v))
			}
		}
	}
	if run.Command != backupCommand {
		return
	}
	lastGood := LastGood(*run, OfCommand(earlier, backupCommand))
	for name, at := range lastGood {
		if byName[name] == nil && len(run.Named) == 0 && len(run.Volumes) < run.PlannedVolumes &&
			(run.LastGood == nil || at.Before(*run.LastGood)) {
			run.LastGood = &at
		}
	}
	for i := range run.Volumes {
		v := &run.Volumes[i]
		if at, known := lastGood[v.Name]; known && v.LastGood == nil && !v.Good() {
			v.LastGood, v.LastGoodUnseen = &at, true
		}
	}
}

// place is a destination, and what became of a volume there.
type place struct {
	where string
	good  bool
}

// placesOf gives the destinations that a run has something to say of one of its volumes on.
func placesOf(run report.Run, v report.Volume) (places []place) {
	for _, c := range v.Copies {
		where := c.Destination
		if at := slices.IndexFunc(run.Destinations, func(d report.Destination) bool { return d.Name == c.Destination }); at >= 0 {
			where = run.Destinations[at].Where
		}
		places = append(places, place{where, c.Error == nil})
	}
	return places
}

// isPart tells whether a volume was restored in part.
func isPart(v report.Volume) bool { return v.Restore != nil && v.Restore.Part }

// noteProof enters what one earlier run found. Which destinations it was on counts where both runs know.
func noteProof(v *report.Volume, past report.Run, old report.Volume, here []place) {
	there := placesOf(past, old)
	good, damaged := old.Good(), old.Status == report.VolumeDamaged
	if len(here) > 0 && len(there) > 0 {
		good, damaged = false, false
		for _, p := range there {
			if slices.ContainsFunc(here, func(h place) bool { return h.where == p.where }) {
				good, damaged = good || p.good, damaged || !p.good && old.Status == report.VolumeDamaged
			}
		}
	}
	later := func(t *time.Time) (is bool) {
		if is = old.Ended.After(*t); is {
			*t = old.Ended
		}
		return is
	}
	switch {
	case damaged && (strings.HasPrefix(past.Command, "verify") || IsProof(past)): // also of a sample, or without reading data
		later(&v.LastDamaged)
	case good && past.Command == "verify": // in full: the others leave data unread
		later(&v.LastVerified)
	case good && IsProof(past) && !isPart(old):
		if later(&v.LastRestored) {
			v.Restore = old.Restore
		}
	}
}
