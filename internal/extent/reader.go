// Package extent knows the parts of a volume: what lies where on its snapshot, and how each part gets into a backup, as files
// or as an image.
//
//	survey.go    partition table, gaps, and what each part holds: a Layout
//	guestlvm.go  physical volumes of the guest itself, and its logical volumes as parts of their own
//	archive.go   every part into the backup: mapped, mounted and archived as files, or read as an image
//	changed.go   what need not be read, as the pool knows that it did not change
//	tree.go      a tree as an archive with its index; those of live directories too
//	gate.go      what must hold before a tree counts as archived
//	report.go    the parts in the report of a run, with a ledger of every byte
//
// A Reader works on one snapshot and changes nothing but that.
package extent

import (
	"time"

	"voltar/internal/journal"
	"voltar/internal/mount"
	"voltar/internal/owned"
	"voltar/internal/probe"
	"voltar/lvm"
)

// As says how the extents of a volume are stored.
type As string

// Ways to store extents.
const (
	AsAuto  As = "auto"  // files where the filesystem can be mounted, an image otherwise
	AsFiles As = "files" // likewise, but an extent that is no mountable filesystem fails the volume
	AsImage As = "image"
	AsSkip  As = "skip"
)

// Host is what reading takes of the host, in the name of a run.
type Host struct {
	*owned.Owner // of maps
	Locks        *journal.Locks
	Prober       *probe.Prober
	Mounts       *mount.Mounter
	MaxDuration  time.Duration // that one volume may take; 0 sets no bound
}

// Reader reads one snapshot.
type Reader struct {
	*Host
	Volume   lvm.Volume // of which it is
	Snapshot lvm.Snapshot
	Last     *Last // nil where none was set aside
	As       As
	Grouped  bool // its consistency group takes other volumes at the same moment
	Warn     func(message, hint string)
}
