package history

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"voltar/report"
)

// Verdict says how a restore ended.
type Verdict string

// Verdicts of restores.
const (
	Proven  Verdict = "proven"  // all of it came back; by a drill, compared with the backup
	Partly  Verdict = "partly"  // what was wanted came back, which was not all, or without its sums
	Damaged Verdict = "damaged" // the backup is, or what came back of it is not what it holds
	Failed  Verdict = "failed"  // for another cause
)

// Proof is one restore of one volume, by a drill or for use.
type Proof struct {
	Time         time.Time `json:"time"`    // when it ended
	Command      string    `json:"command"` // drill or restore
	Volume       string    `json:"volume"`
	Guest        string    `json:"guest,omitempty"` // whose disk it was when the backup was made: web1:vda
	Backup       string    `json:"backup"`
	Destination  string    `json:"destination"`
	To           string    `json:"to"` // scratch, volume, device, image, folder
	Verdict      Verdict   `json:"verdict"`
	Seconds      float64   `json:"seconds"`       // until the data stood
	TotalSeconds float64   `json:"total_seconds"` // with all that was checked
	StoredBytes  int64     `json:"stored"`
	WrittenBytes int64     `json:"written"`
	Checked      []string  `json:"checked"`
	Error        string    `json:"error,omitempty"`
}

// VolumeProofs is what the proofs of one volume come to.
type VolumeProofs struct {
	Volume        string    `json:"volume"`
	Guest         string    `json:"guest,omitempty"`
	Proofs        int       `json:"proofs"` // that went well
	Failed        int       `json:"failed"` // drills and restores that did not
	LastRestored  time.Time `json:"last_restored,omitzero"`
	LastSeconds   float64   `json:"last_seconds"` // that bringing it back took; 0 where nothing was measured
	MedianSeconds float64   `json:"median_seconds"`
	WorstSeconds  float64   `json:"worst_seconds"`
}

// Proofs is what a host can show for its restores.
type Proofs struct {
	Host       string              `json:"host"`
	Since      time.Time           `json:"since"`
	Proofs     []Proof             `json:"proofs"`                // the newest first
	Volumes    []VolumeProofs      `json:"volumes"`               // of the last run and of the proofs; what was restored least lately first
	Oldest     time.Time           `json:"oldest,omitzero"`       // of the last restores of the volumes that had one
	Never      int                 `json:"never"`                 // volumes without any
	RestoreAll *report.RestoreTime `json:"restore_all,omitempty"` // of the volumes of the last run; nil where nothing was measured
}

// ProofsSince collects the restores that a history knows of from a time on. A volume that was restored before counts as never restored.
func ProofsSince(runs []report.Run, host string, since time.Time) Proofs {
	all := Proofs{Host: host, Since: since, Proofs: []Proof{}, Volumes: []VolumeProofs{}}
	runs = slices.DeleteFunc(slices.Clone(runs), func(r report.Run) bool { return IsProof(r) && r.Ended.Before(since) })
	for _, run := range runs {
		if IsProof(run) {
			for _, v := range run.Volumes {
				all.Proofs = append(all.Proofs, proofOf(run, v))
			}
		}
	}
	slices.SortStableFunc(all.Proofs, func(a, b Proof) int { return b.Time.Compare(a.Time) })
	last, missing := Standing(OfCommand(runs, backupCommand))
	standing := report.Run{Command: backupCommand, Destinations: last.Destinations, Volumes: slices.Concat(last.Volumes, missing)}
	for i := range standing.Volumes { // what the run knew then is of all times
		standing.Volumes[i].LastRestored, standing.Volumes[i].Restore = time.Time{}, nil
	}
	NoteProofs(&standing, runs)
	if t, ok := report.RestoreTimeOf(standing.Volumes); ok {
		all.RestoreAll = &t
	}
	all.addVolumes(standing.Volumes)
	return all
}

func proofOf(run report.Run, v report.Volume) Proof {
	p := Proof{
		Time: v.Ended, Command: run.Command, Volume: v.Name, Backup: v.Backup, TotalSeconds: v.Ended.Sub(v.Started).Seconds(),
		StoredBytes: v.StoredBytes, Checked: []string{}, Verdict: Failed,
	}
	if v.Guest != nil {
		p.Guest = v.Guest.String()
	}
	if r := v.Restore; r != nil {
		p.To, p.Seconds, p.WrittenBytes, p.Checked = r.To, r.Seconds, r.WrittenBytes, append(p.Checked, r.Checked...)
	}
	for _, c := range v.Copies {
		p.Destination = c.Destination
		if c.Error != nil {
			p.Error = c.Error.Message
		}
	}
	switch {
	case v.Good() && isPart(v):
		p.Verdict = Partly
	case v.Good():
		p.Verdict = Proven
	case v.Status == report.VolumeDamaged:
		p.Verdict = Damaged
	}
	return p
}

// addVolumes sums up the proofs of each volume: of those that stand, and of what else was restored.
func (all *Proofs) addVolumes(standing []report.Volume) {
	took := map[string][]float64{}
	volumes := map[string]*VolumeProofs{}
	of := func(name, guest string) *VolumeProofs {
		if volumes[name] == nil {
			volumes[name] = &VolumeProofs{Volume: name, Guest: guest}
		}
		return volumes[name]
	}
	for _, v := range standing {
		guest := ""
		if v.Guest != nil {
			guest = v.Guest.String()
		}
		of(v.Name, guest)
	}
	for _, p := range slices.Backward(all.Proofs) {
		v := of(p.Volume, p.Guest)
		switch p.Verdict {
		case Proven:
			v.Proofs++
			v.LastRestored = p.Time
			if p.Seconds > 0 {
				v.LastSeconds = p.Seconds
				took[p.Volume] = append(took[p.Volume], p.Seconds)
			}
		case Partly:
		case Damaged, Failed:
			v.Failed++
		}
	}
	for name, v := range volumes {
		if seconds := took[name]; len(seconds) > 0 {
			slices.Sort(seconds)
			v.MedianSeconds, v.WorstSeconds = median(seconds), seconds[len(seconds)-1]
		}
		if v.LastRestored.IsZero() {
			all.Never++
		} else if all.Oldest.IsZero() || v.LastRestored.Before(all.Oldest) {
			all.Oldest = v.LastRestored
		}
		all.Volumes = append(all.Volumes, *v)
	}
	slices.SortFunc(all.Volumes, func(a, b VolumeProofs) int {
		return cmp.Or(a.LastRestored.Compare(b.LastRestored), strings.Compare(a.Volume, b.Volume))
	})
}

// median of numbers in their order.
func median(sorted []float64) float64 {
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
