package admit

import (
	"context"
	"slices"
	"sync"
)

// Space is what volume groups have free.
type Space interface {
	// Room tells what is free in a group; Holders is left 0.
	Room(ctx context.Context, group string) (Room, error)
	// Take reserves exactly so many bytes, and returns how to use them. Should they be gone then, floorBytes of them do.
	Take(ctx context.Context, group string, bytes, floorBytes int64) (Taken, error)
}

// Taken is space that was reserved. Release gives it back, when the snapshot in it is gone.
type Taken interface{ Release() }

// Queue admits the volumes of one run. It is safe for concurrent use.
type Queue struct {
	space Space
	state State // Rooms are asked for anew in each pass

	mu      sync.Mutex
	holders map[string]int
	waiting []*Ticket
	passing bool // somebody is deciding
	changed bool // since the decision began
}

// New returns a queue for so many volumes at a time. SpareFraction is as in State.
func New(space Space, parallel int, spareFraction float64) *Queue {
	return &Queue{space: space, state: State{Parallel: max(parallel, 1), SpareFraction: spareFraction}, holders: map[string]int{}}
}

// Ticket is a request's place in the queue.
type Ticket struct {
	queue   *Queue
	request Request
	ctx     context.Context
	done    chan struct{} // closed when the request is decided
	grant   Grant
	err     error
}

// Grant is what a request was given: a share for each of its wants.
type Grant []*Share

// Share is one volume's part of a grant. The caller releases it when the volume's snapshot is gone.
type Share struct {
	Bytes int64
	Taken Taken // nil without space
	Err   error // why this volume can never fit

	release func()
	once    sync.Once
}

// Release gives place and space back.
func (s *Share) Release() { s.once.Do(s.release) }

// Release gives back all shares.
func (g Grant) Release() {
	for _, s := range g {
		s.Release()
	}
}

// Join takes a place at the end of the queue. It is followed by Wait. When ctx ends the place is given up.
func (q *Queue) Join(ctx context.Context, request Request) *Ticket {
	t := &Ticket{queue: q, request: request, ctx: ctx, done: make(chan struct{})}
	q.mu.Lock()
	q.waiting = append(q.waiting, t)
	q.mu.Unlock()
	q.decide()
	return t
}

// Wait returns what the request was given. It waits for as long as others hold what is needed, and ctx lets it.
func (t *Ticket) Wait() (Grant, error) {
	select {
	case <-t.done:
		return t.grant, t.err
	case <-t.ctx.Done():
	}
	q := t.queue
	q.mu.Lock()
	i := slices.Index(q.waiting, t)
	if i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	q.mu.Unlock()
	if i < 0 {
		<-t.done // just being decided
		return t.grant, t.err
	}
	q.decide() // those behind may have waited for this one
	return nil, context.Cause(t.ctx)
}

// decide looks, in a goroutine of its own, who may begin now. There is one at a time, which goes on for as long as something
// changes: it may have to ask lvm2, and nobody who gives space back waits for that.
func (q *Queue) decide() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.changed = true
	if q.passing {
		return
	}
	q.passing = true
	go func() {
		for q.pass() {
		}
	}()
}

// lookAhead is how many of those who wait are looked at first. With two volumes at a time most of a night's thousand need no look, each
// time that one of them ends.
const lookAhead = 16

// pass decides once, and reports whether it should be done again.
func (q *Queue) pass() bool {
	q.mu.Lock()
	if !q.changed || len(q.waiting) == 0 {
		q.changed, q.passing = false, false
		q.mu.Unlock()
		return false
	}
	q.changed = false
	q.mu.Unlock()
	for n := lookAhead; q.passOver(n); n *= 2 {
	}
	return true
}

// passOver decides on the first n of those who wait, and reports whether more of them could begin.
func (q *Queue) passOver(n int) bool {
	q.mu.Lock()
	isAll := n >= len(q.waiting)
	waiting := slices.Clone(q.waiting[:min(n, len(q.waiting))])
	state := q.state
	state.Rooms = map[string]Room{}
	holders := map[string]int{}
	for group, n := range q.holders {
		holders[group] = n
	}
	q.mu.Unlock()

	waiting = q.ask(waiting, &state, holders)
	requests := make([]Request, len(waiting))
	for i, t := range waiting {
		requests[i] = t.request
	}
	for i, d := range state.Pass(requests) {
		if d.Admitted {
			q.give(waiting[i], d)
		}
	}
	return !isAll && state.Busy < state.Parallel
}

// ask fills in the free space of the groups that are waited for, and fails the requests for those that cannot be read.
func (q *Queue) ask(waiting []*Ticket, state *State, holders map[string]int) (rest []*Ticket) {
	failed := map[string]error{}
	for _, t := range waiting {
		var err error
		for _, w := range t.request {
			if _, known := state.Rooms[w.Group]; known || w.WantBytes == 0 || err != nil {
				continue
			}
			if err = failed[w.Group]; err != nil {
				continue
			}
			var room Room
			if room, err = q.space.Room(t.ctx, w.Group); err != nil {
				if t.ctx.Err() == nil {
					failed[w.Group] = err
				}
				continue
			}
			room.Holders = holders[w.Group]
			state.Rooms[w.Group] = room
		}
		if err != nil {
			q.settle(t, nil, err)
			continue
		}
		rest = append(rest, t)
	}
	return rest
}

// give takes the space that was decided on and admits a request. Space that went meanwhile, as to a snapshot that was
// extended, leaves it waiting; where nobody of this run has it, it is an error.
func (q *Queue) give(t *Ticket, d Decision) {
	q.mu.Lock()
	gone := !slices.Contains(q.waiting, t)
	others := 0
	for _, w := range t.request {
		others += q.holders[w.Group]
	}
	q.mu.Unlock()
	if gone {
		return
	}
	taken := make([]Taken, len(t.request))
	for i, w := range t.request {
		if d.Bytes[i] == 0 {
			continue
		}
		var err error
		if taken[i], err = q.space.Take(t.ctx, w.Group, d.Bytes[i], w.FloorBytes); err != nil {
			for _, room := range taken[:i] {
				if room != nil {
					room.Release()
				}
			}
			if others == 0 || t.ctx.Err() != nil {
				q.settle(t, nil, err)
			}
			return
		}
	}
	grant := make(Grant, len(t.request))
	left := len(t.request)
	for i, w := range t.request {
		share := &Share{Bytes: d.Bytes[i], Taken: taken[i], Err: d.Errs[i]}
		share.release = func() {
			if share.Taken != nil {
				share.Taken.Release()
			}
			q.mu.Lock()
			if share.Bytes > 0 {
				q.holders[w.Group]--
			}
			if left--; left < q.state.Parallel {
				q.state.Busy--
			}
			q.mu.Unlock()
			q.decide()
		}
		grant[i] = share
	}
	q.settle(t, grant, nil)
}

// settle ends a request's wait. A grant for one that has given up goes back.
func (q *Queue) settle(t *Ticket, grant Grant, err error) {
	q.mu.Lock()
	i := slices.Index(q.waiting, t)
	if i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	if grant != nil {
		q.state.Busy += q.state.slots(t.request)
		for j, w := range t.request {
			if grant[j].Bytes > 0 {
				q.holders[w.Group]++
			}
		}
	}
	q.changed = true
	q.mu.Unlock()
	if i < 0 {
		grant.Release()
		return
	}
	t.grant, t.err = grant, err
	close(t.done)
}
