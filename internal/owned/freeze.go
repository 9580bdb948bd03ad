package owned

import (
	"context"
	"errors"
	"strings"
	"time"

	"voltar/internal/journal"
	"voltar/internal/quiesce"
)

// Freeze journals a freeze and has hold make it. The Undo ends its place in the journal: the freeze ends by itself when its
// session does.
func (o *Owner) Freeze(f quiesce.Freeze, until time.Time, hold func() error) (Undo, error) {
	record, err := o.Journal.Intend(journal.Thing{
		Kind: journal.KindFreeze, Name: f.String(), Path: strings.Join(f.Mountpoints, " "), Deadline: until, Thaw: f.Leftover(),
	})
	if err != nil {
		return nil, err
	}
	if err := hold(); err != nil {
		return nil, errors.Join(err, o.Journal.Gone(record))
	}
	return func(context.Context) error { return o.Journal.Gone(record) }, nil
}

// recoverFreeze thaws what a dead run left frozen. Whatever held the freeze thaws by itself when its run ends; this is
// for the case that it was killed as well.
func (h *Host) recoverFreeze(ctx context.Context, by maker, t journal.Thing) (string, error) {
	if by.rebooted {
		return "", nil
	}
	thawed, err := quiesce.ThawLeftover(ctx, h.Runner, t.Thaw)
	if err != nil || !thawed {
		return "", err
	}
	return "freeze of " + t.Name, nil
}
