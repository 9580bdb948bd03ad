package backup

import (
	"slices"

	"voltar/internal/catalog"
	"voltar/retention"
)

// Backups of several volumes that share a volume group of a guest belong together: one without the others does not bring
// the volumes back. Retention, which decides on the history of one volume, keeps them together.

// decider decides on the backups of one history. A backup that it returns no decision on is kept.
type decider func(catalog.History) ([]retention.Decision, error)

// decideTogether decides on histories, and then keeps what belongs with a backup that is kept. stock is everything that is
// on the destination: backups of other histories are kept, and so are those whose manifests cannot be read.
func decideTogether(histories []catalog.History, stock stock, decide decider) (map[catalog.Identity][]retention.Decision, error) {
	decisions := map[catalog.Identity][]retention.Decision{}
	condemned := map[string]*retention.Decision{}
	for _, h := range histories {
		list, err := decide(h)
		if err != nil {
			return nil, err
		}
		decisions[h.Identity] = list
		for i := range list {
			if !list[i].Keep {
				condemned[list[i].Backup.ID] = &list[i]
			}
		}
	}
	for changed := true; changed; {
		changed = false
		for _, b := range stock.backups {
			d := condemned[b.ID.String()]
			if d == nil {
				continue
			}
			for _, id := range b.Manifest.Partners() {
				if partner := id.String(); stock.holds[partner] && condemned[partner] == nil {
					d.Keep, d.Reason = true, "belongs with "+partner
					delete(condemned, b.ID.String())
					changed = true
					break
				}
			}
		}
	}
	return decisions, nil
}

// decide decides on one history, and keeps what belongs with a backup that is kept.
func (t *target) decide(identity catalog.Identity, decide decider) ([]retention.Decision, error) {
	stock := t.stock()
	decisions, err := decideTogether(connected(catalog.Histories(stock.backups), identity), stock, decide)
	return decisions[identity], err
}

// connected returns the history of an identity and those that backups of it belong with, directly or not.
func connected(histories []catalog.History, identity catalog.Identity) []catalog.History {
	of := map[string]catalog.Identity{} // backups to their histories
	byIdentity := map[catalog.Identity]catalog.History{}
	for _, h := range histories {
		byIdentity[h.Identity] = h
		for _, b := range h.Backups {
			of[b.ID.String()] = h.Identity
		}
	}
	reached := []catalog.Identity{identity}
	var list []catalog.History
	for i := 0; i < len(reached); i++ {
		h, found := byIdentity[reached[i]]
		if !found {
			continue
		}
		list = append(list, h)
		for _, b := range h.Backups {
			for _, id := range b.Manifest.Partners() {
				if next, found := of[id.String()]; found && !slices.Contains(reached, next) {
					reached = append(reached, next)
				}
			}
		}
	}
	return list
}

func standing(backups []catalog.Backup) map[string]bool {
	stands := map[string]bool{}
	for _, b := range backups {
		stands[b.ID.String()] = true
	}
	return stands
}

// forRetentionAmong is forRetention where all that a destination holds is known: a backup counts as complete only when
// those that it belongs with are there.
func forRetentionAmong(backups, all []catalog.Backup) []retention.Backup {
	list := forRetention(backups)
	var stands map[string]bool // most have no partners
	for i, b := range backups {
		for _, id := range b.Manifest.Partners() {
			if stands == nil {
				stands = standing(all)
			}
			list[i].Complete = list[i].Complete && stands[id.String()]
		}
	}
	return list
}

// everything returns all backups that stand on the destination.
func (t *target) everything() []catalog.Backup {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.backups)
}

// stock is what a destination holds.
type stock struct {
	backups []catalog.Backup
	holds   map[string]bool // their names, and those of backups that cannot be read
}

func newStock(backups []catalog.Backup, unreadable []catalog.Unreadable) stock {
	s := stock{backups, standing(backups)}
	for _, u := range unreadable {
		s.holds[u.ID.String()] = true
	}
	return s
}

func (t *target) stock() stock {
	t.mu.Lock()
	defer t.mu.Unlock()
	return newStock(slices.Clone(t.backups), t.unreadable)
}

// withCompany returns those of some backups that stand, and all that belong with them, directly or not.
func (t *target) withCompany(backups []catalog.Backup) (list []catalog.Backup) {
	byID := map[string]catalog.Backup{}
	for _, b := range t.everything() {
		byID[b.ID.String()] = b
	}
	reached := map[string]bool{}
	add := func(id catalog.ID) {
		if b, stands := byID[id.String()]; stands && !reached[id.String()] {
			reached[id.String()], list = true, append(list, b)
		}
	}
	for _, b := range backups {
		add(b.ID)
	}
	for i := 0; i < len(list); i++ {
		for _, id := range list[i].Manifest.Partners() {
			add(id)
		}
	}
	return list
}
