package report

import (
	"fmt"
	"time"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

var (
	night     = time.Date(2026, 11, 20, 0, 0, 1, 0, time.UTC)
	lastNight = night.AddDate(0, 0, -1)
)

// goodRun is twelve volumes, all well, in the 1 hour, 15 minutes and 35 seconds of the mail of old.
func goodRun() Run {
	run := Run{
		Schema: Schema, ID: "20261120T000001Z-1f2e", Host: "volume-host", Version: "1.0.0",
		Config: "/etc/voltar/voltar.toml", Command: "run",
		Started: night, Ended: night.Add(time.Hour + 15*time.Minute + 35*time.Second),
		Retention: "7 days", PlannedVolumes: 12,
		Excluded: []Excluded{{Name: "nova-volumes/backup", Rule: "holds-destination", Reason: "/BACKUPS lies on it"}},
		Destinations: []Destination{{
			Name: "disk", Where: "/BACKUPS/EBS-VOL", BackupBytes: 267 * gib, TotalBytes: 1000 * gib, FreeBytes: 650 * gib,
			Notes: []string{"The backup volume is mounted."},
		}},
	}
	start := night.Add(5 * time.Second)
	for i := range 12 {
		n := int64(i)
		name := fmt.Sprintf("volume-%08d", i+8)
		took := time.Duration(81+n*37) * time.Second
		path := "/BACKUPS/EBS-VOL/volume-host/nova-volumes/" + name + "/"
		volume := Volume{
			Name: "nova-volumes/" + name, Status: VolumeOK, Started: start, Ended: start.Add(took),
			Backup:    "nova-volumes/" + name + "@2026-11-20T000006Z",
			SizeBytes: 100 * gib, ReadBytes: 7*gib + n*100*mib, StoredBytes: 3584*mib + n*100*mib,
			PreviousStoredBytes: 3500 * mib, Entries: 12345 + n*1111, Quiesce: "crash-consistent",
			Snapshot: &Snapshot{Kind: "classic", SizeBytes: 10 * gib, PeakBytes: 320 * mib, PeakPercent: 3.2},
			Extents: []Extent{
				{Name: "p1", What: "ext4", State: "files", SizeBytes: 98 * gib, StoredBytes: 3584 * mib, Entries: 12345},
				{Name: "p2", What: "swap", State: "swap", SizeBytes: 2 * gib, Reason: "only UUID and label are kept"},
			},
			Ledger: Ledger{FilesBytes: 7 * gib, FreeBytes: 93 * gib},
			Copies: []Copy{{Destination: "disk", Path: path + "2026-11-20T000006Z", Kept: 7, Removed: []Removed{
				{Path: path + "2026-11-13T000006Z", Reason: "older than 7 days", FreedBytes: 3400 * mib}}}},
			LastVerified: night.Add(-75 * time.Hour),
		}
		run.Volumes = append(run.Volumes, volume)
	}
	run.Volumes[1].LastRestored = night.Add(-13 * time.Hour)
	run.Volumes[1].Restore = &Restore{To: "scratch", Seconds: 372, StoredBytes: 3500 * mib, WrittenBytes: 7 * gib,
		Checked: []string{"sums", "filesystem", "entries"}}
	run.Volumes[2].Carried = &Carried{
		From: run.Volumes[2].Name + "@2026-11-19T000006Z", Bytes: 3400 * mib, Members: 1700, NewBytes: 384 * mib, NewMembers: 92,
	}
	run.Volumes[2].Copies[0].SharedBytes = 3300 * mib
	return run
}

func oneFailed() Run {
	run := goodRun()
	run.ExitCode = 3
	v := &run.Volumes[11]
	*v = Volume{
		Name: v.Name, Status: VolumeFailed, Started: v.Started, Ended: v.Started.Add(59900 * time.Millisecond),
		SizeBytes: v.SizeBytes, PreviousStoredBytes: v.PreviousStoredBytes, Ledger: Ledger{FailedBytes: v.SizeBytes},
		Error: &Problem{
			Message: "cannot create a snapshot of nova-volumes/volume-00000019: lvcreate: exit status 5\n" +
				"Volume group \"nova-volumes\" has insufficient free space (0 extents): 2560 required.",
			Hint: "free 10 GiB in volume group nova-volumes, or lower snapshot.size",
		},
		Copies: []Copy{{Destination: "disk", Kept: 7}}, LastGood: &lastNight,
	}
	run.Volumes[3].Warnings = []Problem{{Message: "only 20117 files and folders, where the last backup had 52949", Hint: "look whether that is as it should be, before the older backups are gone"}}
	run.Volumes[4].Status = VolumeOK
	return run
}

func allFailed() Run {
	run := goodRun()
	run.ExitCode = 1
	problem := &Problem{Message: "/BACKUPS is not mounted", Hint: "mount it, or unset require_mount", Destinations: []string{"disk"}}
	run.Destinations[0].Error = problem
	run.Destinations[0].BackupBytes, run.Destinations[0].TotalBytes, run.Destinations[0].FreeBytes = -1, -1, -1
	run.Destinations[0].Notes = nil
	for i, v := range run.Volumes {
		run.Volumes[i] = Volume{
			Name: v.Name, Status: VolumeFailed, Started: night, Ended: night.Add(40 * time.Millisecond),
			SizeBytes: v.SizeBytes, PreviousStoredBytes: v.PreviousStoredBytes, Ledger: Ledger{FailedBytes: v.SizeBytes},
			Error:  &Problem{Message: "no destination took the backup\ndestination disk: /BACKUPS is not mounted", Destinations: []string{"disk"}},
			Copies: []Copy{{Destination: "disk", Error: problem}}, LastVerified: v.LastVerified,
		}
	}
	run.Volumes[0].LastGood = &time.Time{} // there is none
	// What befell the volume alone on that destination is told with the volume, once.
	run.Volumes[1].Error.Message = "no destination took the backup\ndestination disk: it is full"
	run.Volumes[1].Quiesce = "crash-consistent" // of no backup
	run.Volumes[1].Copies = []Copy{{Destination: "disk", Error: &Problem{Message: "it is full"}}}
	run.Volumes[1].Extents = []Extent{{Name: "p1", What: "ext4", State: "failed", SizeBytes: gib, Reason: "it is full"}}
	run.Ended = night.Add(2100 * time.Millisecond)
	return run
}

func firstRun() Run {
	run := goodRun()
	run.Volumes, run.PlannedVolumes, run.Excluded = run.Volumes[:1], 1, nil
	v := &run.Volumes[0]
	v.PreviousStoredBytes, v.LastVerified, v.Copies[0].Removed, v.Copies[0].Kept = -1, time.Time{}, nil, 1
	run.Ended = v.Ended
	return run
}

func interrupted() Run {
	run := goodRun()
	run.ExitCode = 130
	run.Ended = night.Add(11 * time.Minute)
	run.Errors = []Problem{{Message: "stopped by SIGTERM"}}
	for i, v := range run.Volumes[2:] {
		run.Volumes[2+i] = Volume{Name: v.Name, Status: VolumeSkipped, SizeBytes: v.SizeBytes, PreviousStoredBytes: -1, LastGood: &lastNight}
	}
	run.Recovered = []string{"snapshot nova-volumes/voltar-volume-00000008 of the run 20261119T000001Z-aaaa"}
	return run
}

// verified is a verification that found a damaged backup.
func verified() Run {
	run := firstRun()
	run.Command, run.Retention, run.ExitCode = "verify", "", 3
	v := &run.Volumes[0]
	v.Status, v.Snapshot, v.Extents, v.Quiesce = VolumeDamaged, nil, nil, ""
	v.DamagedFiles, v.DamagedCount = []string{"p1:/etc/fstab"}, 1
	v.Copies[0].Error = &Problem{Message: "archive: its sums are not those in the manifest", Hint: "take an older backup"}
	return run
}

// hostileText tries to break out of every rendering.
const hostileText = "x\nOK: all well\r\x1b[31m\u202egnp.exe\u2066\u200b</td><script>alert(1)</script>&amp;\"'`{{.}}\x00\xff\u2028|"

func hostile() Run {
	run := oneFailed()
	run.Host = "host\r\nBcc: victim@example.org"
	run.Retention, run.Version, run.Config = hostileText, hostileText, hostileText
	run.Errors = []Problem{{Message: hostileText, Hint: hostileText}}
	run.Warnings = []Problem{{Message: hostileText, Hint: hostileText}}
	run.Recovered = []string{hostileText}
	run.Excluded = []Excluded{{Name: hostileText, Rule: hostileText, Reason: hostileText}}
	run.Gone = []Gone{{Name: hostileText, Backups: 2, Newest: night, Note: hostileText}}
	run.Destinations[0].Name, run.Destinations[0].Where = hostileText, hostileText
	run.Destinations[0].Notes = []string{hostileText}
	run.Volumes = run.Volumes[10:]
	run.PlannedVolumes = 2
	v := &run.Volumes[0]
	v.Name, v.Quiesce, v.Backup = "vg/"+hostileText, hostileText, hostileText
	v.Guest = &Guest{ID: hostileText, Name: hostileText, Disk: hostileText, DefinitionChanged: true}
	v.Status, v.DamagedCount = VolumeDamaged, 21
	v.DamagedFiles = []string{hostileText}
	v.Warnings = []Problem{{Message: hostileText}}
	v.Snapshot.Kind, v.Snapshot.Note = hostileText, hostileText
	v.Extents = []Extent{{Name: hostileText, What: hostileText, State: hostileText, Reason: hostileText, SizeBytes: 1}}
	v.Copies = []Copy{{Destination: hostileText, Path: hostileText, Kept: 1,
		Removed: []Removed{{Path: hostileText, Reason: hostileText}}}}
	return run
}

// nights are 29 earlier runs, of which one failed and one warned, that fill the destination by 1 GiB a night.
func nights() []Point {
	var points []Point
	for i := 29; i > 0; i-- {
		n := int64(i)
		p := Point{
			Time: night.AddDate(0, 0, -i), Verdict: VerdictOK, StoredBytes: 42*gib - n*gib/3,
			Duration:     75*time.Minute - time.Duration(i*i)*time.Second,
			Destinations: []Room{{Name: "disk", TotalBytes: 1000 * gib, FreeBytes: (650 + n) * gib}},
		}
		switch i {
		case 4:
			p.Verdict, p.StoredBytes = VerdictFailed, 30*gib
		case 9:
			p.Verdict = VerdictWarning
		}
		points = append(points, p)
	}
	return points
}

type fixture struct {
	name string
	run  Run
	opts Options
}

func fixtures() []fixture {
	cet := time.FixedZone("CET", 3600)
	history := Options{Location: cet, History: nights(), TrendCID: "trend@voltar"}
	return []fixture{
		{"ok", goodRun(), history},
		{"one-failed", oneFailed(), history},
		{"all-failed", allFailed(), history},
		{"first", firstRun(), Options{Location: cet}},
		{"hostile", hostile(), history},
		{"interrupted", interrupted(), history},
		{"verified", verified(), Options{Location: cet}},
	}
}
