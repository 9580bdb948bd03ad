package sign

import (
	"context"
	"errors"
	"fmt"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/store"
)

// Pass signs backups of one host that no trusted key has signed.
type Pass struct {
	Host   string
	Match  func(id catalog.ID) bool // which backups are meant
	Made   map[Maker]bool           // what runs of this host made, by its history
	Force  bool                     // also sign what Made does not name, and what has a signature that does not count
	DryRun bool
	RunDir string // of the locks that keep runs from removing what is signed
	Now    func() time.Time
}

// Maker is a run and a backup that it made.
type Maker struct{ Run, Backup string }

// Line is one backup that no trusted key had signed, and what became of it.
type Line struct {
	Backup      string `json:"backup"`
	Destination string `json:"destination"`
	State       string `json:"state"` // signed, unsigned (of a dry run: it would be signed), left, failed
	Reason      string `json:"reason,omitempty"`
}

// States of a Line.
const (
	StateDone   = "signed"
	StateWould  = "unsigned"
	StateLeft   = "left"
	StateFailed = "failed"
)

// On signs on one destination, and returns a line for each backup that is meant and was not signed. Beside an error there are none.
func (p *Pass) On(ctx context.Context, name string, in store.Store) ([]Line, error) {
	strangers, err := p.strangers(ctx, in)
	if err != nil {
		return nil, err
	}
	var lines []Line
	for _, id := range strangers {
		line := Line{Backup: id.String(), Destination: name}
		if line.State, line.Reason, err = p.one(ctx, in, id); err != nil {
			line.State, line.Reason = StateFailed, err.Error()
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// strangers lists the backups of this host on a store that are meant and that no trusted key has signed.
func (p *Pass) strangers(ctx context.Context, in store.Store) (strangers []catalog.ID, err error) {
	listing, err := catalog.List(ctx, in, p.Host, catalog.Filter{Now: p.Now()})
	if err != nil {
		return nil, err
	}
	for _, u := range listing.Unreadable {
		if errors.Is(u.Err, catalog.ErrUntrusted) && p.Match(u.ID) {
			strangers = append(strangers, u.ID)
		}
	}
	return strangers, nil
}

// one signs one backup, under the locks that keep runs from removing it meanwhile.
func (p *Pass) one(ctx context.Context, in store.Store, id catalog.ID) (state, reason string, err error) {
	unlock, err := journal.LockBackup(ctx, p.RunDir, "voltar sign", id.Ref.String(), in.String())
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	b, err := ReadUnsigned(ctx, in, id.Path(p.Host))
	if err != nil {
		return "", "", err
	}
	switch {
	case p.Force:
	case b.Signature:
		return StateLeft, "it has a signature that does not count: who changed it, or the trusted keys? --force signs it", nil
	case !p.Made[Maker{b.Manifest.Run, id.String()}]:
		return StateLeft, fmt.Sprintf("the history of this host knows no run %s that made it; --force signs it", b.Manifest.Run), nil
	}
	if p.DryRun {
		return StateWould, "", nil
	}
	return StateDone, "", b.Sign(ctx)
}
