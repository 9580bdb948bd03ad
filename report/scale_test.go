package report

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// volumesRun is a night of many volumes in three groups, all well, to a disk and a bucket.
func volumesRun(count int) Run {
	run := goodRun()
	run.Volumes, run.PlannedVolumes, run.Ended = nil, count, run.Started.Add(73*time.Minute)
	where := []string{"/BACKUPS/EBS-VOL", "s3://volume-backups/offsite"}
	run.Destinations = append(run.Destinations, Destination{Name: "offsite", Where: where[1], BackupBytes: 310 * gib, TotalBytes: -1, FreeBytes: -1})
	for i := range count {
		n := int64(i)
		group := []string{"nova-volumes", "nova-volumes", "cinder-ssd"}[i%3]
		name := fmt.Sprintf("%s/volume-%08d", group, i+8)
		if group == "cinder-ssd" {
			name = fmt.Sprintf("%s/volume-%08x-7a0a-4a52-a6a4-8b0e1d3c%04x", group, 0x3f9d1c5e+i*7919, i)
		}
		v := Volume{
			Name: name, Guest: &Guest{ID: fmt.Sprint(100 + i/2), Name: fmt.Sprintf("customer-%d", i/2), Disk: []string{"vda", "vdb"}[i%2]},
			Status: VolumeOK, Started: run.Started, Ended: run.Started.Add(time.Duration(40+i*37%600) * time.Second),
			Backup: name + "@2026-11-20T000006Z", SizeBytes: 100 * gib, StoredBytes: 700*mib + n*37%9000*mib,
			PreviousStoredBytes: 690*mib + n*36%9000*mib, Entries: 12345, Quiesce: "crash-consistent",
			Snapshot: &Snapshot{Kind: "classic", SizeBytes: 10 * gib, PeakBytes: 320 * mib, PeakPercent: 3.2, SuggestedBytes: gib},
			Extents: []Extent{
				{Name: "p1", What: "ext4", State: "files", SizeBytes: 98 * gib, StoredBytes: 700 * mib, Entries: 12345},
				{Name: "p2", What: "swap", State: "swap", SizeBytes: 2 * gib, Reason: "only UUID and label are kept"},
			},
			LastVerified: night.Add(-time.Duration(i%9+1) * 24 * time.Hour), LastRestored: night.Add(-time.Duration(i+1) * 8 * time.Hour),
			Restore: &Restore{To: "scratch", Seconds: float64(200 + i*61%5000), StoredBytes: 700*mib + n*37%9000*mib},
		}
		for j, d := range run.Destinations {
			path := where[j] + "/volume-host/" + name + "/"
			v.Copies = append(v.Copies, Copy{Destination: d.Name, Path: path + "2026-11-20T000006Z", Kept: 7, Removed: []Removed{
				{Path: path + "2026-11-13T000006Z", Reason: "older than 7 days", FreedBytes: 3400 * mib}}})
		}
		run.Volumes = append(run.Volumes, v)
	}
	return run
}

// failVolume makes the volume's backup one that failed, with a cause that is its own.
func failVolume(v *Volume, good time.Time) {
	*v = Volume{
		Name: v.Name, Guest: v.Guest, Status: VolumeFailed, Started: v.Started, Ended: v.Started.Add(40 * time.Second), SizeBytes: v.SizeBytes,
		PreviousStoredBytes: v.PreviousStoredBytes, Ledger: Ledger{FailedBytes: v.SizeBytes}, LastVerified: v.LastVerified,
		Error: &Problem{
			Message: "snapshot overflowed: its 100 MiB filled up before all of " + v.Name + " was read",
			Hint:    "give snapshots of " + v.Name + " more space: size in [snapshot], or snapshot_size in a [[volume]]",
		},
		Copies: []Copy{{Destination: "disk", Kept: 7}, {Destination: "offsite", Kept: 7}}, LastGood: &good,
	}
}

func oneOf(count int) Run {
	run := volumesRun(count)
	run.ExitCode = 3
	failVolume(&run.Volumes[11], lastNight)
	run.Volumes[6].Warnings = []Problem{{Message: "only 20117 files and folders, where the last backup had 52949", Hint: "look whether that is as it should be, before the older backups are gone"}}
	return run
}

// unmounted is a night without its one destination.
func unmounted() Run {
	run := volumesRun(12)
	run.ExitCode = 1
	run.Destinations = run.Destinations[:1]
	d := &run.Destinations[0]
	d.Error = &Problem{
		Message: "nothing is mounted at /BACKUPS/EBS-VOL", Hint: "mount it: `mount /BACKUPS/EBS-VOL`",
		Destinations: []string{"disk"},
	}
	d.BackupBytes, d.TotalBytes, d.FreeBytes, d.Notes = -1, -1, -1, nil
	run.Errors = []Problem{{Message: "no destination can be written to\ndestination disk: nothing is mounted at /BACKUPS/EBS-VOL",
		Destinations: []string{"disk"}}}
	run.Ended = run.Started.Add(2100 * time.Millisecond)
	for i, v := range run.Volumes {
		run.Volumes[i] = Volume{
			Name: v.Name, Status: VolumeFailed, Started: night, Ended: night.Add(40 * time.Millisecond), SizeBytes: v.SizeBytes,
			PreviousStoredBytes: v.PreviousStoredBytes, Ledger: Ledger{FailedBytes: v.SizeBytes}, LastVerified: v.LastVerified,
			Error:  &Problem{Message: "no destination took the backup\ndestination disk: nothing is mounted at /BACKUPS/EBS-VOL", Destinations: []string{"disk"}},
			Copies: []Copy{{Destination: "disk", Error: d.Error}}, LastGood: &lastNight, LastGoodUnseen: true,
		}
	}
	return run
}

// noGood is a night after which one volume has no good backup left.
func noGood() Run {
	run := oneOf(60)
	failVolume(&run.Volumes[40], time.Time{})
	run.Volumes[40].Copies = []Copy{{Destination: "disk"}, {Destination: "offsite"}}
	run.Volumes[40].LastVerified = time.Time{}
	run.Volumes[40].Error = &Problem{Message: "cannot read nova-volumes at 1.2 GiB: input/output error",
		Hint: "the disk under the volume fails: look at `dmesg`, and save what can be read before anything else"}
	return run
}

func firstNight() Run {
	run := volumesRun(3)
	for i := range run.Volumes {
		v := &run.Volumes[i]
		v.PreviousStoredBytes, v.LastVerified = -1, time.Time{}
		for j := range v.Copies {
			v.Copies[j].Removed, v.Copies[j].Kept = nil, 1
		}
	}
	run.Excluded = append(run.Excluded, Excluded{Name: "nova-volumes/scratch", Rule: "exclude", Reason: "nova-volumes/scr*"})
	return run
}

// objectLock is a night on whose bucket nothing can be removed yet.
func objectLock() Run {
	run := volumesRun(12)
	for i := range run.Volumes {
		run.Volumes[i].Copies[1].Removed, run.Volumes[i].Copies[1].Kept = nil, 14
	}
	run.Destinations[1].Notes = []string{
		"object lock: 84 backups that the policy would remove stay until they are 14 days old (governance)",
	}
	return run
}

// mailFixtures are the mails that are looked at.
func mailFixtures() []fixture {
	cet := time.FixedZone("CET", 3600)
	opts := Options{Location: cet, TrendCID: "trend@voltar"}
	list := []fixture{
		{"12-well", volumesRun(12), opts},
		{"60-well", volumesRun(60), opts},
		{"300-well", volumesRun(300), opts},
		{"1-of-12-failed", oneOf(12), opts},
		{"1-of-60-failed", oneOf(60), opts},
		{"unmounted", unmounted(), opts},
		{"no-good-backup", noGood(), opts},
		{"first-night", firstNight(), Options{Location: cet}},
		{"object-lock", objectLock(), opts},
		{"interrupted", interrupted(), opts},
		{"verified", verified(), Options{Location: cet}},
		{"hostile", hostile(), opts},
	}
	for i, f := range list {
		if f.name == "first-night" || f.name == "verified" {
			continue
		}
		list[i].opts.History = nights() // of a host whose last night was like the others
		size := float64(max(PointOf(f.run).StoredBytes, 10*gib)) / float64(42*gib)
		for j := range list[i].opts.History {
			p := &list[i].opts.History[j]
			p.StoredBytes = int64(float64(p.StoredBytes) * size)
		}
	}
	return list
}

// A mail stays below what Gmail cuts, and its text can be read.
func TestSizeOfMails(t *testing.T) {
	const most = 90 << 10
	for _, f := range mailFixtures() {
		page, text := html(t, f), Text(f.run, f.opts)
		if len(page) > most {
			t.Errorf("%s: %d bytes of HTML", f.name, len(page))
		}
		if lines := strings.Count(text, "\n"); f.run.Verdict() == VerdictOK && lines > 150 {
			t.Errorf("%s: %d lines of text", f.name, lines)
		}
	}
	many := volumesRun(5000)
	page := html(t, fixture{"5000", many, Options{}})
	if lines := strings.Count(Text(many, Options{}), "\n"); len(page) > most || lines > 250 {
		t.Errorf("5000 volumes: %d bytes, %d lines", len(page), lines)
	}
	for i := range many.Volumes {
		failVolume(&many.Volumes[i], lastNight)
	}
	if page := html(t, fixture{"5000 failed", many, Options{}}); len(page) > 2*most {
		t.Errorf("5000 that failed: %d bytes", len(page))
	}
}
