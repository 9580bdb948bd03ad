package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
)

// party is the members of a unit that stand or fall together: one alone, or several that share volume groups of a guest,
// because what one of them archives lies on the snapshots of others too. None lets go of its snapshot, and none is
// published, before all were archived.
type party struct {
	members []*volumeRun // in the order in which they are published: homes come before what they are the home of
	spans   []*span
	left    atomic.Int64  // members that are yet to be archived
	unlink  []func() bool // ends what watches over the members for each other
}

// newParties returns the members of a unit in parties, in their order.
func newParties(members []*volumeRun, spans []*span) []*party {
	of := map[*volumeRun]*party{}
	for _, v := range members {
		of[v] = &party{}
	}
	for _, s := range spans {
		to := of[s.home()]
		for _, other := range s.members {
			from := of[other]
			for v := range of {
				if of[v] == from {
					of[v] = to
				}
			}
		}
	}
	var list []*party
	for _, v := range members {
		p := of[v]
		if len(p.members) == 0 {
			list = append(list, p)
		}
		p.members = append(p.members, v)
	}
	for _, s := range spans {
		of[s.home()].spans = append(of[s.home()].spans, s)
	}
	for _, p := range list {
		for _, v := range p.members {
			v.party = p
		}
		p.left.Store(int64(len(p.members)))
		p.link()
	}
	return list
}

// link has a member whose snapshot must not be read any more, or that is taken out of the run, stop the others.
func (p *party) link() {
	for _, v := range p.members {
		if len(p.members) == 1 || v.reading == nil {
			continue
		}
		p.unlink = append(p.unlink, context.AfterFunc(v.reading, func() {
			if cause := v.stopped(); cause != nil {
				p.stopOthers(v, cause)
			}
		}))
	}
}

// partnerError is why a volume fails that shares volume groups of a guest with one that failed.
type partnerError struct {
	volume    string
	cause     error
	cancelled bool // a person cancelled the other
}

func (e *partnerError) Error() string {
	return fmt.Sprintf("a volume group of the guest lies on it and on %s, which failed: %v", e.volume, e.cause)
}

func (e *partnerError) Unwrap() error { return e.cause }

// shared is what the failure of a member means for the others.
func (v *volumeRun) shared(cause error) error {
	var partner *partnerError
	if errors.As(cause, &partner) {
		return partner
	}
	return &partnerError{v.name(), forOthers(cause), errors.Is(cause, errCancelled)}
}

// others names the members but for one. There are none without a party.
func (p *party) others(v *volumeRun) (names []string) {
	if p == nil {
		return nil
	}
	for _, other := range p.members {
		if other != v {
			names = append(names, other.name())
		}
	}
	return names
}

// stopOthers ends the reading of all members but one, which failed.
func (p *party) stopOthers(failed *volumeRun, cause error) {
	for _, v := range p.members {
		if v != failed && v.stop != nil {
			v.stop(failed.shared(cause))
		}
	}
}

// archive archives one member. The last one brings the party to its end.
func (p *party) archive(ctx context.Context, v *volumeRun) {
	if v.failure == nil {
		v.fail(v.archive(v.within(ctx)))
	}
	if v.failure != nil {
		p.stopOthers(v, v.failure)
	}
	if p.left.Add(-1) > 0 {
		return
	}
	for _, unlink := range p.unlink {
		unlink()
	}
	p.pass(ctx)
	for _, v := range p.inOrderOfEnd() {
		v.end(ctx)
	}
}

// inOrderOfEnd returns the members, first those for which a person waits who cancelled them.
func (p *party) inOrderOfEnd() []*volumeRun {
	waits := func(v *volumeRun) int {
		if errors.Is(v.failure, errCancelled) {
			return 0
		}
		return 1
	}
	list := slices.Clone(p.members)
	slices.SortStableFunc(list, func(a, b *volumeRun) int { return cmp.Compare(waits(a), waits(b)) })
	return list
}

// pass is the gate of the whole party: when every snapshot was good to its last byte, each member's backup is made.
func (p *party) pass(ctx context.Context) {
	for _, v := range p.members {
		v.fail(v.endReading(v.within(ctx), v.stopped()))
	}
	p.failTogether()
	if p.members[0].failure != nil {
		return
	}
	if len(p.members) == 1 {
		p.members[0].fail(p.members[0].commit(p.members[0].within(ctx)))
		return
	}
	for _, s := range p.spans {
		s.nameBackups()
	}
	// Half of it would be of no use: once the first stands, the rest is not given up for an interruption.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	for i, v := range p.members {
		p.agree(i)
		if err := v.out.failure(); err != nil {
			v.fail(err)
			p.failBehind(i)
			return
		}
		v.fail(v.commit(ctx))
		if v.failure != nil {
			p.failBehind(i)
			return
		}
	}
	p.warnHalves()
}

// failTogether fails all members where one has failed.
func (p *party) failTogether() {
	for _, failed := range p.members {
		if failed.failure == nil {
			continue
		}
		for _, v := range p.members {
			v.fail(failed.shared(failed.failure))
		}
		return
	}
}

// agree drops, for the members that are not published yet, each destination on which another has failed: its backup would
// be half of something there.
func (p *party) agree(from int) {
	for i := range p.members[0].out.branches {
		for _, failed := range p.members {
			err := failed.out.branches[i].failure()
			if err == nil {
				continue
			}
			for _, v := range p.members[from:] {
				v.out.branches[i].drop(failed.shared(err))
			}
			break
		}
	}
}

// failBehind fails what comes behind a member whose backup could not be made, and tells those whose backups stand by then.
func (p *party) failBehind(at int) {
	for _, v := range p.members[at+1:] {
		v.fail(p.members[at].shared(p.members[at].failure))
	}
	p.warnHalves()
}

// warnHalves tells where a backup stands on a destination without another that belongs with it.
func (p *party) warnHalves() {
	for _, v := range p.members {
		for i, b := range v.out.branches {
			for _, other := range p.members {
				if b.stands && !other.out.branches[i].stands {
					v.warn(fmt.Sprintf("it stands on %s without that of %s, with which it shares a volume group of the guest",
						b.target.Name, other.name()), "its files can be read; an older backup of both brings back the volumes")
				}
			}
		}
	}
}
