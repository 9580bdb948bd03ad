package catalog

import (
	"cmp"
	"slices"
	"strings"
)

// History is all backups of one source, whatever names it had.
type History struct {
	Identity Identity
	Ref      Ref      // the name in the newest backup
	LVUUID   string   // of volumes
	Backups  []Backup // the newest first; never empty
}

// SizeBytes is that of all its backups.
func (h History) SizeBytes() int64 {
	var sum int64
	for _, b := range h.Backups {
		sum += b.SizeBytes
	}
	return sum
}

// Histories sorts backups by what they are of. A volume made anew under an old name has a history of its own. The
// result is in the order of names, and of identities where two share one.
func Histories(backups []Backup) []History {
	byIdentity := map[Identity][]Backup{}
	for _, b := range backups {
		byIdentity[b.Identity()] = append(byIdentity[b.Identity()], b)
	}
	var histories []History
	for identity, list := range byIdentity {
		slices.SortFunc(list, func(a, b Backup) int {
			return cmp.Or(b.ID.Time.Compare(a.ID.Time), a.ID.Compare(b.ID))
		})
		source := list[0].Manifest.Source
		histories = append(histories, History{Identity: identity, Ref: source.Ref(), LVUUID: source.LVUUID, Backups: list})
	}
	slices.SortFunc(histories, func(a, b History) int {
		return cmp.Or(strings.Compare(a.Ref.String(), b.Ref.String()), cmp.Compare(a.Identity, b.Identity))
	})
	return histories
}

// Gone returns the histories of volumes that are not among the live ones. Sources that are no volumes never go.
func Gone(histories []History, live map[Identity]bool) []History {
	var gone []History
	for _, h := range histories {
		if h.Ref.Kind == SourceVolume && !live[h.Identity] {
			gone = append(gone, h)
		}
	}
	return gone
}
