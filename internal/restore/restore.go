// Package restore brings a volume back from its backup: to a logical volume, a block device, an image file or a folder.
//
// Plan looks at the backup and at the target, refuses what would destroy something, and returns the steps with the real
// names of everything; Run takes them one after the other:
//
//	source.go      read the backup's files, and check their sums before the target is touched
//	place.go       the target: make or claim it, mark it as incomplete, take the mark off in the end
//	occupied.go    what a target holds, and who uses it
//	layout.go      where each extent goes, on a target of another size too
//	table.go       the partition table
//	image.go       extents that are stored as they were
//	filesystem.go  make a filesystem as it was, and fill it; swap areas
//	folder.go      files alone, into a folder
//	scratch.go     a file that nobody sees, for a restore that is only to be tried
//	prove.go       comparing what was restored with the backup
//
// Until the last step a volume carries the tag voltar.incomplete, and an image file's name ends in .incomplete. Maps
// and loop devices are journalled before they are made, mounts are detached and end with the process.
package restore

import (
	"context"
	"errors"
	"time"

	"voltar/archive"
	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/mount"
	"voltar/internal/owned"
	"voltar/internal/probe"
	"voltar/internal/say"
	"voltar/internal/store"
)

// incompleteSuffix is on the name of an image file while it is being restored.
const incompleteSuffix = ".incomplete"

var (
	// ErrUsage is wrapped by the error of a request that cannot be understood or that contradicts itself.
	ErrUsage = errors.New("cannot restore that")
	// ErrOccupied is wrapped by the error for a target that holds something: Request.Force overrides it.
	ErrOccupied = errors.New("the target holds something")
	// ErrInUse is wrapped by the error for a target that someone uses; nothing overrides it.
	ErrInUse = errors.New("the target is in use")
	// ErrTooLarge is wrapped by the error for a backup that does not fit a scratch file.
	ErrTooLarge = errors.New("it is too large to be tried")
	// ErrHost is wrapped by the error of a drill that something else than the backup ended: its folder, another drill, a store that does
	// not answer, or who stopped it. It says nothing of the backup.
	ErrHost = errors.New("it was not tried")
	// ErrDiffers is wrapped by the error for what was restored and is not what the backup holds.
	ErrDiffers = errors.New("what was restored is not what was backed up")
	// ErrSums is wrapped by the error for a backup whose files are not what its manifest says.
	ErrSums = errors.New("the backup is damaged")
)

// Options of an Engine.
type Options struct {
	Host   string // name of this host, for the journal
	RunDir string
}

// Deps are the long-lived objects that a restore works with.
type Deps struct {
	*owned.Host
	Prober   *probe.Prober
	Mounts   *mount.Mounter
	Progress Progress // nil where nobody watches
	Now      func() time.Time
}

// Progress is told how a restore goes on, in one goroutine.
type Progress interface {
	Started(totalBytes int64) // of data to be read back or written
	Step(text string)
	Done(bytes int64) // since the last call
}

// TargetKind says what is restored to.
type TargetKind string

// Kinds of targets.
const (
	ToVolume TargetKind = "volume" // a logical volume, made when it is missing
	ToDevice TargetKind = "device" // any block device
	ToImage  TargetKind = "image"  // a new raw image file, sparse
	ToFolder TargetKind = "folder" // files alone
	// ToScratch is a file that is compared with the backup when all is restored, and given up.
	ToScratch TargetKind = "scratch"
)

// Target says where to.
type Target struct {
	Kind      TargetKind
	VG, LV    string // of ToVolume; both empty for the volume that the backup is of
	Path      string // of all others; of ToScratch the folder
	MaxBytes  int64  // of data that may be written to ToScratch; 0 sets no limit
	SizeBytes int64  // of a volume or image to be made; 0 means the size that the volume had
	Classic   bool   // make the volume outside of any thin pool
	ThinPool  string // make the volume in this pool; empty means as it was
}

// Verify says when the sums of the backup's files are checked.
type Verify string

// Ways to verify.
const (
	VerifyFirst  Verify = "first"  // all of them before the target is touched
	VerifyStream Verify = "stream" // those of archives and images while they are read
	VerifyNone   Verify = "none"
)

// Request is one restore.
type Request struct {
	Backup      catalog.Backup
	Store       store.Store
	Destination string // the store's name, for people
	Target      Target
	Partitions  []string // p1, p2, …: only these are restored; all when empty
	Paths       []string // patterns of files, as archive.ExtractOptions has them: only these are restored
	Verify      Verify
	Force       bool // overwrite what the target holds
	Grow        bool // let the last partition, or the only filesystem, take all of a larger target
	KeepGoing   bool // restore what can be, around damage in the backup
	Privileges  bool // restore to a folder what archive.ExtractOptions has under that name; everywhere else it always comes back
	// Decrypt opens the files of a backup that is encrypted; nil is for who has no key.
	Decrypt browse.DecryptFunc
	// Promised is set for one of several disks that are planned before the first is restored, and shared by them: what the new volumes of
	// those that are planned take of a volume group, or are to write to a thin pool, by its name.
	Promised map[string]int64
}

// promise notes what the new volume of one of several disks will take.
func (r Request) promise(from string, bytes int64) {
	if r.Promised != nil {
		r.Promised[from] += bytes
	}
}

// IsWhole tells whether all of the backup is wanted, with its sums: what comes back of that proves the backup.
func (r Request) IsWhole() bool {
	return len(r.Partitions) == 0 && len(r.Paths) == 0 && r.Verify != VerifyNone &&
		(r.Target.Kind != ToFolder || r.Backup.Manifest.Source.Kind != catalog.SourceVolume)
}

// Status of a restore.
type Status string

// A restore that is incomplete failed; one with losses went to its end, but not all of the backup was good.
const (
	StatusRestored   Status = "restored"
	StatusLosses     Status = "restored with losses"
	StatusUntouched  Status = "failed, target untouched"
	StatusIncomplete Status = "failed, target incomplete"
)

// Result says what a restore did. It is what `voltar restore --json` prints.
type Result struct {
	Backup      string       `json:"backup"`
	Destination string       `json:"destination"`
	Target      string       `json:"target"`
	Run         string       `json:"run"`
	Status      Status       `json:"status"`
	Started     time.Time    `json:"started"`
	Ended       time.Time    `json:"ended"`
	Seconds     float64      `json:"seconds"` // until the target stood, without comparing it
	Checked     []string     `json:"checked"` // what was found to be right: sums, table, filesystem, entries, images
	Bytes       int64        `json:"bytes"`   // of data written
	Parts       []PartResult `json:"parts"`
	Notes       []string     `json:"notes,omitempty"` // what differs from the original
	Losses      []string     `json:"losses,omitempty"`
	Error       string       `json:"error,omitempty"`
	Hint        string       `json:"hint,omitempty"` // what to do about the error, a line for each thing
}

// PartResult is what became of one extent.
type PartResult struct {
	Name    string `json:"name"` // "" for a volume without a table
	As      string `json:"as"`   // files, image, swap, dump
	Entries int64  `json:"entries,omitempty"`
	Bytes   int64  `json:"bytes"`
}

// Engine restores.
type Engine struct {
	Deps
	opts Options
}

// New returns an Engine.
func New(deps Deps, opts Options) *Engine { return &Engine{Deps: deps, opts: opts} }

// Step is one step of a plan.
type Step interface {
	// Describe says in a line or more what the step does, with real names; commands as they would be typed.
	Describe() []string
	do(ctx context.Context, w *work) error
}

// noteExtraction adds to a result what an extraction could not give back.
func (r *Result) noteExtraction(part string, stats archive.ExtractStats) {
	const listed = 100
	for i, f := range stats.Failures {
		if i == listed {
			r.lose("%s: and %d more", part, int64(len(stats.Failures)-listed)+stats.FailuresOmitted)
			break
		}
		if f.Path == "" {
			r.lose("%s: %v", part, f.Err)
			continue
		}
		r.lose("%s: %q: %v", part, f.Path, f.Err)
	}
	for _, d := range stats.Damage {
		r.lose("%s: %v", part, &d)
	}
	for _, s := range stats.Shortfalls {
		if s.What == archive.Withheld {
			r.note("%s: set-id bits, capabilities or system attributes of %s, the first %q, are left out; --privileges restores them",
				part, say.Counted(s.Count, "entry"), s.Path)
			continue
		}
		note := s.What
		if s.Err != nil {
			note = s.Err.Error()
		}
		r.note("%s: %s of %s not restored, the first %q: %s", part, s.What, say.Counted(s.Count, "entry"), s.Path, note)
	}
}
