// Package report holds the result of a run and renders it for people and machines: text, HTML, JSON, metrics. It is
// pure: no clock, no files, no network.
package report

import (
	"strings"
	"time"

	"voltar/internal/say"
)

// Schema is the version of the JSON form. Fields may be added within a version; none changes its meaning.
const Schema = 1

// Verdict is the outcome of a run, worst last.
type Verdict string

// Verdicts of a run.
const (
	VerdictOK          Verdict = "ok"
	VerdictWarning     Verdict = "warning"     // every backup is good, something should be looked at
	VerdictFailed      Verdict = "failed"      // at least one volume, destination or file failed
	VerdictInterrupted Verdict = "interrupted" // stopped before its end, and cleaned up
)

// Run is the result of one run.
type Run struct {
	Schema         int           `json:"schema"`
	ID             string        `json:"id"`
	Host           string        `json:"host"`
	Version        string        `json:"version"`          // of voltar
	Config         string        `json:"config,omitempty"` // path of the configuration
	Command        string        `json:"command"`          // run, verify, prune, …
	Started        time.Time     `json:"started"`
	Ended          time.Time     `json:"ended"`
	ExitCode       int           `json:"exit_code"`
	Retention      string        `json:"retention"` // the policy in words: "7 days"
	Volumes        []Volume      `json:"volumes"`
	Excluded       []Excluded    `json:"excluded,omitempty"` // volumes, and folders of directories, that were left out, with the rule
	Destinations   []Destination `json:"destinations"`
	Gone           []Gone        `json:"gone,omitempty"`      // backups of volumes that are no longer on the host
	Recovered      []string      `json:"recovered,omitempty"` // what an earlier, dead run had left and was removed
	Warnings       []Problem     `json:"warnings,omitempty"`
	Errors         []Problem     `json:"errors,omitempty"` // of the run itself
	Named          []string      `json:"named,omitempty"`  // what the command named of the host's volumes: names and patterns; none for all
	PlannedVolumes int           `json:"planned_volumes"`  // volumes selected, done or not
	// LastGood is, of the volumes without a result, the oldest of their newest good backups, by earlier reports.
	LastGood *time.Time `json:"last_good,omitempty"`
}

// Problem is a cause and what to do about it.
type Problem struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // one line for each thing that can be done
	// Destinations are those whose failure this is, by name: it is told with them.
	Destinations []string `json:"destinations,omitempty"`
}

// ProblemOf turns an error into one problem with all hints that it carries.
func ProblemOf(err error) *Problem {
	return &Problem{Message: err.Error(), Hint: strings.Join(say.Hints(err), "\n")}
}

// ProblemsOf turns an error into a problem for each cause that is joined in it, each with its own hints.
func ProblemsOf(err error) []Problem {
	var problems []Problem
	for _, cause := range say.Causes(err) {
		problems = append(problems, Problem{Message: cause.Message, Hint: strings.Join(cause.Hints, "\n")})
	}
	return problems
}

// VolumeStatus is what became of one volume tonight.
type VolumeStatus string

// Statuses of a volume.
const (
	VolumeOK      VolumeStatus = "ok"
	VolumeDamaged VolumeStatus = "damaged" // there is a backup, but it lacks data that could not be read
	VolumePartial VolumeStatus = "partial" // not on every destination
	VolumeFailed  VolumeStatus = "failed"
	VolumeSkipped VolumeStatus = "skipped" // the run ended before it began
)

// Volume is the result of one volume, dump, stream or directory.
type Volume struct {
	Name                string       `json:"name"`            // VG/LV, or @dump/NAME and the like
	Guest               *Guest       `json:"guest,omitempty"` // whose disk it is; nil where nobody knows
	Status              VolumeStatus `json:"status"`
	Started             time.Time    `json:"started"`
	Ended               time.Time    `json:"ended"`
	Backup              string       `json:"backup,omitempty"` // identity VG/LV@TIME
	SizeBytes           int64        `json:"size"`             // of the LV
	ReadBytes           int64        `json:"read"`             // data read from the snapshot
	StoredBytes         int64        `json:"stored"`           // tonight's files, on one destination
	PreviousStoredBytes int64        `json:"previous_stored"`  // the last complete backup's; -1 when there is none
	Entries             int64        `json:"entries"`
	Error               *Problem     `json:"error,omitempty"`
	Warnings            []Problem    `json:"warnings,omitempty"`
	DamagedFiles        []string     `json:"damaged_files,omitempty"` // the first 20
	DamagedCount        int64        `json:"damaged_count,omitempty"`
	Snapshot            *Snapshot    `json:"snapshot,omitempty"`
	Quiesce             string       `json:"quiesce,omitempty"` // crash-consistent; frozen 0.4 s; …
	Extents             []Extent     `json:"extents,omitempty"`
	Ledger              Ledger       `json:"ledger"`
	Carried             *Carried     `json:"carried,omitempty"` // nil when there was no backup to carry over from
	Copies              []Copy       `json:"copies,omitempty"`  // one for each destination
	LastVerified        time.Time    `json:"last_verified,omitzero"`
	LastRestored        time.Time    `json:"last_restored,omitzero"`
	Restore             *Restore     `json:"restore,omitempty"`          // of a drill or restore; of others, the last whole one
	LastDamaged         time.Time    `json:"last_damaged,omitzero"`      // when verify last found one of its backups damaged
	LastGood            *time.Time   `json:"last_good,omitempty"`        // of one that is not ok; zero when there is none
	LastGoodUnseen      bool         `json:"last_good_unseen,omitempty"` // of an earlier report: no destination could be asked
}

// Guest is the machine or container whose disk a volume is.
type Guest struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Kind string `json:"kind,omitempty"` // libvirt, proxmox-vm, proxmox-ct, command
	Disk string `json:"disk,omitempty"`
	// DefinitionChanged says that what defines the guest is not what it was at its last backup.
	DefinitionChanged bool `json:"definition_changed,omitempty"`
}

// Carried says what of a volume's archives was carried over from the previous backup, and what was compressed anew.
// Bytes are as they are stored, on one destination.
type Carried struct {
	From       string `json:"from"` // identity of the previous backup
	Bytes      int64  `json:"bytes"`
	Members    int64  `json:"members"`
	NewBytes   int64  `json:"new_bytes"`
	NewMembers int64  `json:"new_members"`

	UnreadBytes int64 `json:"unread,omitempty"` // of the volume, of which its pool said that they had not changed
}

// Restore says how a backup was brought back: by a drill, which tries it, or to be used.
type Restore struct {
	To           string   `json:"to"`             // scratch (a drill), volume, device, image, folder
	Seconds      float64  `json:"seconds"`        // until the data stood, without comparing them
	StoredBytes  int64    `json:"stored"`         // of the backup, as it is stored
	WrittenBytes int64    `json:"written"`        // of data
	Checked      []string `json:"checked"`        // what was found to be right: sums, table, filesystem, entries, images
	Part         bool     `json:"part,omitempty"` // only some partitions or files, or without its sums: it proves nothing of the rest
}

// Duration is how long the data took to stand.
func (r *Restore) Duration() time.Duration { return time.Duration(r.Seconds * float64(time.Second)) }

// Snapshot is the use of one LVM snapshot.
type Snapshot struct {
	Kind           string  `json:"kind"` // classic or thin
	SizeBytes      int64   `json:"size"`
	PeakBytes      int64   `json:"peak"`
	PeakPercent    float64 `json:"peak_percent"`
	SuggestedBytes int64   `json:"suggested,omitempty"`
	Note           string  `json:"note,omitempty"` // "reduced from 10 GiB to what the VG had free"
}

// Extent is one line of the ledger.
type Extent struct {
	Name        string `json:"name"`
	What        string `json:"what"`  // ext4, xfs, swap, unknown
	State       string `json:"state"` // files, image, swap, excluded, failed
	Reason      string `json:"reason,omitempty"`
	SizeBytes   int64  `json:"size"`
	StoredBytes int64  `json:"stored"`
	Entries     int64  `json:"entries,omitempty"`
	ByHandBytes int64  `json:"by_hand,omitempty"` // least size for standard tools to restore it, where that is more than it has
}

// Ledger accounts for every byte of a volume: the fields add up to its size.
type Ledger struct {
	FilesBytes    int64 `json:"files"`
	ImageBytes    int64 `json:"image"`
	FreeBytes     int64 `json:"free"`
	ExcludedBytes int64 `json:"excluded"`
	FailedBytes   int64 `json:"failed"`
}

// Copy is the result of one volume on one destination.
type Copy struct {
	Destination string    `json:"destination"`
	Path        string    `json:"path,omitempty"` // of tonight's backup
	Error       *Problem  `json:"error,omitempty"`
	SharedBytes int64     `json:"shared,omitempty"` // of tonight's backup, what shares its place with the previous one
	Removed     []Removed `json:"removed,omitempty"`
	Kept        int       `json:"kept"`
}

// Removed is one backup that retention ended.
type Removed struct {
	Path       string `json:"path"`
	Reason     string `json:"reason"`
	FreedBytes int64  `json:"freed"`
}

// Excluded is a volume that was left out and the rule that said so.
type Excluded struct {
	Name   string `json:"name"`
	Rule   string `json:"rule"`
	Reason string `json:"reason"`
}

// Destination is the state of one destination after the run. Room that is not known is -1.
type Destination struct {
	Name        string   `json:"name"`
	Where       string   `json:"where"`
	BackupBytes int64    `json:"backups"` // all of this host
	TotalBytes  int64    `json:"total"`
	FreeBytes   int64    `json:"free"`
	Error       *Problem `json:"error,omitempty"`
	Notes       []string `json:"notes,omitempty"`

	CaughtUp []CaughtUp `json:"caught_up,omitempty"` // earlier backups, or tonight's that had failed here
}

// CaughtUp is a backup that a destination lacked, or that was damaged there, and that was copied from another.
type CaughtUp struct {
	Backup    string `json:"backup"` // identity VG/LV@TIME
	From      string `json:"from"`   // name of the other destination
	SizeBytes int64  `json:"size"`

	SharedBytes int64 `json:"shared,omitempty"` // of SizeBytes, what lies where an earlier backup has it

	Repaired []string `json:"repaired,omitempty"` // files of one that was damaged, which were replaced
}

// Gone is a volume that has backups but is no longer on the host.
type Gone struct {
	Name    string    `json:"name"`
	Backups int       `json:"backups"`
	Newest  time.Time `json:"newest"`
	Note    string    `json:"note,omitempty"`
}

// guestNameLimit is how much of a guest's name stands on a line, in characters.
const guestNameLimit = 40

// ofGuest is what stands behind a name of the volume: " (web1:vda)".
func (v Volume) ofGuest() string {
	if v.Guest == nil {
		return ""
	}
	return " (" + v.Guest.String() + ")"
}

// String names the guest and its disk.
func (g Guest) String() string {
	name := shorten(g.Name, guestNameLimit)
	if g.Disk != "" {
		name += ":" + shorten(g.Disk, guestNameLimit)
	}
	return name
}

// LastProven is when a backup of it was last found to be good: by a verification or a restore.
func (v Volume) LastProven() time.Time {
	if v.LastRestored.After(v.LastVerified) {
		return v.LastRestored
	}
	return v.LastVerified
}
