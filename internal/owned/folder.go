package owned

import (
	"context"
	"fmt"

	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/say"
	"voltar/internal/store"
)

// Folder journals the folder of a backup that is about to be written on a destination, or deleted there. The Undo ends its
// place in the journal: when the backup stands, or when nothing of it does.
func (o *Owner) Folder(s store.Store, path string) (Undo, error) {
	record, err := o.Journal.Intend(journal.Thing{Kind: journal.KindBackup, Destination: s.String(), Path: path})
	if err != nil {
		return nil, err
	}
	return func(context.Context) error { return o.Journal.Gone(record) }, nil
}

// recoverFolder removes what a dead run had written of a backup, or had not yet deleted of one.
func (h *Host) recoverFolder(ctx context.Context, by maker, t journal.Thing) (string, error) {
	for _, s := range h.Stores {
		if s.String() != t.Destination {
			continue
		}
		stands, freed, err := catalog.SweepUnfinished(ctx, s, t.Path, by.run)
		if err != nil || stands && freed == 0 {
			return "", err
		}
		return fmt.Sprintf("unfinished backup %s (%s)", t.Path, say.Size(freed)), nil
	}
	return "", say.WithHint(
		fmt.Errorf("unfinished backup %s in %s stays: no destination of the configuration leads there", t.Path, t.Destination),
		fmt.Sprintf("name that place in a [[destination]] again for one `voltar cleanup`, or give it up: "+
			"`voltar cleanup --forget-destination '%s'`", t.Destination))
}
