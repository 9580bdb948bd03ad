// Package placement puts backups on destinations: the files of a run on their way to each of them, encrypted where one wants
// it so, and whole backups from one destination to another.
//
//	target.go    a destination during a run: whether it takes anything, and what it holds
//	prepare.go   room on every destination for one backup, and at its end the policy of each
//	output.go    every file to every destination, summed on the way
//	seal.go      what is encrypted on its way to one of them
//	previous.go  what unchanged members are carried over from
//	rot.go       older backups that lie where something rotted
//	copy.go      a backup that stands on one destination to another
//	copyshare.go what a copy shares with what lies there already
//	catchup.go   what each destination lacks of the others, after a run
//	repair.go    what is damaged on a destination, from one that has it whole
//
// It knows nothing of volumes and of how their data are read.
package placement

import (
	"log/slog"
	"time"

	"voltar/internal/agefile"
	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/keep"
	"voltar/internal/owned"
	"voltar/internal/store"
	"voltar/retention"
)

// Destination is one place for backups and what is kept there.
type Destination struct {
	Name   string
	Store  store.Store
	Policy retention.Policy // the zero policy prunes nothing
	// CatchUp has each run make up what the destination lacks of the others.
	CatchUp bool
	// Recipients are those for whom what goes there is encrypted; nil stores it as it is.
	Recipients *agefile.Recipients
}

// Run is the run, or the command, that backups are placed for.
type Run struct {
	ID     string
	Host   catalog.Host // as manifests and markers name it
	Owner  *owned.Owner
	Locks  *journal.Locks
	Log    *slog.Logger
	Now    func() time.Time
	Damage map[string]string // what was found wrong with backups since, as in catalog.Filter
	Known  *catalog.Known    // what manifests said that were read before; nil reads each
	// Written is by which manifests that this host wrote are known again; nil keeps nothing.
	Written *catalog.Written
	// RestoredAs is which volumes that are gone were restored as others, as in catalog.Filter.
	RestoredAs map[catalog.Identity]catalog.Identity
	// Wanted are the sources that it is about: of others nothing is looked at on the destinations. Nil is about all.
	Wanted func(catalog.Ref) bool
	// MarkDamaged remembers for later runs what was found wrong with a backup, which has the place; nil where nothing is remembered.
	MarkDamaged func(place, what string) error
	// FoundSound is told that all files of a backup with the place have their sums; replaced is of one that was repaired. Nil tells nobody.
	FoundSound func(place string, replaced bool) error
}

// Keeper decides on backups, and removes them in the name of the run.
func (r *Run) Keeper() *keep.Keeper {
	return &keep.Keeper{MachineID: r.Host.MachineID, Now: r.Now, Locks: r.Locks, Owner: r.Owner}
}
