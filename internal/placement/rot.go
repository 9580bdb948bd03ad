package placement

import (
	"context"
	"errors"
	"fmt"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/report"
)

// A member that rotted lies in one place for all backups that share it. Those before the previous one that have it are looked at, and
// those in which it is not what was stored are marked damaged, too.

// maxRottenMembers bounds those of a backup that are looked for in older ones.
const maxRottenMembers = 1000

// rottenMember is a member that is not what was stored.
type rottenMember struct {
	extent string
	state  catalog.State
	sums   archive.MemberSums
}

// noteRotten keeps in mind a member of an extent that was found rotten; anything else is left out.
func (p *Previous) noteRotten(x catalog.Extent, err error) {
	var member *archive.CarryError
	if !isRotten(err) || !errors.As(err, &member) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.members) < maxRottenMembers {
		p.members = append(p.members, rottenMember{x.Name, x.State, member.Sums})
	}
}

// FollowRot looks for what was found rotten in the backups before, whose data may lie in the same place, once the backup that is being
// made is written. What is carried over is carried from one night to the next: before a good backup that has none of it there is none.
func (p *Previous) FollowRot(ctx context.Context) {
	if p == nil || len(p.members) == 0 {
		return
	}
	var damaged []string
	for _, e := range p.target.stock.History(p.entry.Identity) {
		if !e.ID.Time.Before(p.entry.ID.Time) || !e.IsGood() || e.Encryption != nil {
			continue
		}
		has, found := p.hasRotten(ctx, e)
		if ctx.Err() != nil {
			return
		}
		if isRotten(found) {
			p.target.stock.MarkDamaged(e, found.Error())
			p.remember(e, found)
			damaged = append(damaged, e.ID.String())
		} else if found != nil {
			p.problems = append(p.problems, *report.ProblemOf(say.WithHint(
				fmt.Errorf("whether %s on %s is damaged, too, cannot be told: %w", e.ID, p.target.Name, found), "`voltar verify --full` tells")))
		}
		if !has && found == nil {
			break
		}
	}
	if len(damaged) > 0 {
		p.problems = append(p.problems, report.Problem{
			Message: fmt.Sprintf("backups on %s that hold the same data are damaged as well: %s", p.target.Name, someOf(damaged)),
			Hint:    "`voltar verify --full --all` says what is lost in each",
		})
	}
}

// hasRotten tells whether a backup has any of the members that were found rotten, and what is wrong with the first that it has rotten, too.
func (p *Previous) hasRotten(ctx context.Context, e catalog.Entry) (has bool, err error) {
	older := &Previous{target: p.target, entry: e, all: true}
	opened := map[string]*archive.Previous{} // by the names of extents
	defer func() {
		for _, a := range opened {
			err = errors.Join(err, a.Close())
		}
	}()
	for _, m := range p.members {
		a, isOpen := opened[m.extent]
		if !isOpen {
			if a, err = older.open(ctx, m.extent, m.state, archive.PreviousOptions{}); err != nil {
				return has, err
			}
			opened[m.extent] = a
		}
		holds, err := a.Holds(m.sums)
		has = has || holds
		if err != nil {
			return has, err
		}
	}
	return has, nil
}
