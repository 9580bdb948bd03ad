package admit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

const extent = 4

// Whatever comes in whatever order, what can fit is admitted, what cannot is refused with its reason, no room is given twice,
// and no more volumes are at work than are allowed.
func TestEverythingThatCanFitIsAdmitted(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		groups := map[string]int64{"a": rng.Int64N(60) * extent, "b": rng.Int64N(60) * extent, "c": rng.Int64N(60)*extent + 3}
		state := State{Parallel: 1 + rng.IntN(4), Rooms: map[string]Room{}, SpareFraction: 0.2}
		for name, free := range groups {
			state.Rooms[name] = Room{FreeBytes: free, ExtentBytes: extent}
		}
		waiting := make([]Request, 1+rng.IntN(12))
		for i := range waiting {
			waiting[i] = randomRequest(rng)
		}
		type work struct {
			request Request
			bytes   []int64
		}
		var going []work
		for len(waiting) > 0 {
			decisions := state.Pass(waiting)
			var rest []Request
			for i, d := range decisions {
				if !d.Admitted {
					rest = append(rest, waiting[i])
					continue
				}
				check(t, seed, waiting[i], d, groups)
				going = append(going, work{waiting[i], d.Bytes})
			}
			if len(rest) > 0 && len(going) == 0 {
				t.Fatalf("seed %d: %v wait for nobody", seed, rest)
			}
			if state.Busy > state.Parallel {
				t.Fatalf("seed %d: %d volumes at work of %d", seed, state.Busy, state.Parallel)
			}
			for name, room := range state.Rooms {
				if room.FreeBytes < 0 {
					t.Fatalf("seed %d: %s is given away twice: %+v", seed, name, room)
				}
			}
			waiting = rest
			if len(going) > 0 { // any of those at work is done
				i := rng.IntN(len(going))
				done := going[i]
				going = slices.Delete(going, i, i+1)
				state.Busy -= state.slots(done.request)
				for j, w := range done.request {
					if done.bytes[j] > 0 {
						room := state.Rooms[w.Group]
						room.FreeBytes += done.bytes[j]
						room.Holders--
						state.Rooms[w.Group] = room
					}
				}
			}
		}
	}
}

func randomRequest(rng *rand.Rand) Request {
	r := make(Request, 1+rng.IntN(3)*rng.IntN(3))
	for i := range r {
		if rng.IntN(5) == 0 {
			continue // a thin one
		}
		want := (1 + rng.Int64N(40)) * extent
		r[i] = Want{Group: string(rune('a' + rng.IntN(3))), WantBytes: want, FloorBytes: (1 + rng.Int64N(want/extent)) * extent}
	}
	return r
}

// check looks at what one request was given. A member alone in its group is refused only for want of its floor.
func check(t *testing.T, seed uint64, r Request, d Decision, groups map[string]int64) {
	t.Helper()
	for i, w := range r {
		got := d.Bytes[i]
		inGroup := slices.DeleteFunc(slices.Clone(r), func(o Want) bool { return o.Group != w.Group || o.WantBytes == 0 })
		alone := len(inGroup) == 1
		switch {
		case w.WantBytes == 0 && (got != 0 || d.Errs[i] != nil):
			t.Fatalf("seed %d: a thin volume got %d, %v", seed, got, d.Errs[i])
		case d.Errs[i] != nil && (got != 0 || !strings.Contains(d.Errs[i].Error(), "too little free space")):
			t.Fatalf("seed %d: %+v got %d and %v", seed, w, got, d.Errs[i])
		case d.Errs[i] != nil && alone && w.FloorBytes <= groups[w.Group]:
			t.Fatalf("seed %d: %+v was refused, and %d are free", seed, w, groups[w.Group])
		case w.WantBytes > 0 && d.Errs[i] == nil && (got < w.FloorBytes || got > w.WantBytes || got%extent != 0):
			t.Fatalf("seed %d: %+v got %d", seed, w, got)
		}
	}
}

// One that needs much is not overtaken in its group by those that need little, nor a large unit by single volumes; who needs
// no room there goes on.
func TestNobodyIsOvertaken(t *testing.T) {
	s := State{Parallel: 3, Busy: 1, Rooms: map[string]Room{
		"a": {FreeBytes: 40, ExtentBytes: extent, Holders: 1}, "b": {FreeBytes: 40, ExtentBytes: extent},
	}}
	big, small, other := Request{{"a", 80, 8}}, Request{{"a", 8, 8}}, Request{{"b", 8, 8}}
	got := s.Pass([]Request{big, small, other})
	if got[0].Admitted || got[0].WaitsFor != "a" || got[1].Admitted || !got[2].Admitted {
		t.Errorf("%+v", got)
	}
	got = s.Pass([]Request{{{}, {}, {}}, {{}}})
	if got[0].Admitted || got[1].Admitted {
		t.Errorf("a volume overtook the unit that waits for its turn: %+v", got)
	}
}

// What is free is shared in proportion where a unit wants more, with room left to extend one of its snapshots.
func TestAUnitShares(t *testing.T) {
	s := State{Parallel: 2, SpareFraction: 0.25, Rooms: map[string]Room{"a": {FreeBytes: 1000 * extent, ExtentBytes: extent}}}
	d := s.Pass([]Request{{{"a", 3000 * extent, 4}, {"a", 1000 * extent, 4}}})[0]
	if !d.Admitted || d.Bytes[0] < 590*extent || d.Bytes[0] > 610*extent || d.Bytes[1] < 190*extent || d.Bytes[1] > 210*extent {
		t.Errorf("%+v, want three parts and one of four fifths", d)
	}
}

// fakeSpace is a volume group, in which what was taken stays taken until it is released.
type fakeSpace struct {
	mu         sync.Mutex
	free, used int64
}

func (f *fakeSpace) Room(context.Context, string) (Room, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Room{FreeBytes: f.free - f.used, ExtentBytes: extent}, nil
}

type taken struct {
	f     *fakeSpace
	bytes int64
}

func (f *fakeSpace) Take(_ context.Context, _ string, bytes, _ int64) (Taken, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.used+bytes > f.free {
		return nil, fmt.Errorf("%d of %d are used", f.used, f.free)
	}
	f.used += bytes
	return taken{f, bytes}, nil
}

func (t taken) Release() {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	t.f.used -= t.bytes
}

// Five volumes of which the room holds less than one each get all of it, one after the other.
func TestQueueWaitsForRoom(t *testing.T) {
	space := &fakeSpace{free: 296}
	q := New(space, 2, 0.2)
	var tickets []*Ticket
	for range 5 {
		tickets = append(tickets, q.Join(t.Context(), Request{{"vg", 404, 64}}))
	}
	for i, ticket := range tickets {
		grant, err := ticket.Wait()
		if err != nil || grant[0].Err != nil || grant[0].Bytes != 296 {
			t.Fatalf("volume %d: %+v, %v", i, grant, err)
		}
		grant.Release()
		grant.Release()
	}
	if space.used != 0 || q.state.Busy != 0 || q.holders["vg"] != 0 {
		t.Errorf("at the end %d bytes are taken, %d at work, %v hold", space.used, q.state.Busy, q.holders)
	}
}

// Who needs no space begins, however many wait for some before it.
func TestQueueLooksBehindThoseWhoWait(t *testing.T) {
	q := New(&fakeSpace{free: 100}, 4, 0)
	first, err := q.Join(t.Context(), Request{{"vg", 80, 4}}).Wait()
	if err != nil {
		t.Fatal(err)
	}
	var waiting []*Ticket
	for range 3 * lookAhead {
		waiting = append(waiting, q.Join(t.Context(), Request{{"vg", 80, 4}}))
	}
	thin, err := q.Join(t.Context(), Request{{}}).Wait()
	if err != nil {
		t.Fatal(err)
	}
	thin.Release()
	first.Release()
	for _, ticket := range waiting {
		grant, err := ticket.Wait()
		if err != nil {
			t.Fatal(err)
		}
		grant.Release()
	}
}

// Who gives up makes way for those behind.
func TestQueueLetsGo(t *testing.T) {
	q := New(&fakeSpace{free: 100}, 4, 0)
	first, err := q.Join(t.Context(), Request{{"vg", 60, 4}}).Wait()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	waits := q.Join(ctx, Request{{"vg", 80, 4}})
	behind := q.Join(t.Context(), Request{{"vg", 40, 4}})
	stop := errors.New("stopped")
	cancel(stop)
	if _, err := waits.Wait(); !errors.Is(err, stop) {
		t.Errorf("%v, want that it was stopped", err)
	}
	second, err := behind.Wait()
	if err != nil || second[0].Bytes != 40 {
		t.Errorf("%+v, %v", second, err)
	}
	first.Release()
	second.Release()
}

func TestQueueUnderLoad(t *testing.T) {
	space := &fakeSpace{free: 400}
	q := New(space, 3, 0.2)
	var all sync.WaitGroup
	for i := range 200 {
		rng := rand.New(rand.NewPCG(uint64(i), 2))
		request := randomRequest(rng)
		for j := range request {
			if request[j].WantBytes > 0 {
				request[j].Group = "vg"
			}
		}
		all.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%7 == 0 {
				cancel()
			}
			grant, err := q.Join(ctx, request).Wait()
			if err != nil && i%7 != 0 {
				t.Error(err)
			}
			for _, share := range grant {
				all.Go(share.Release)
			}
		})
	}
	all.Wait()
	if space.used != 0 || q.state.Busy != 0 || q.holders["vg"] != 0 {
		t.Errorf("at the end %d bytes are taken, %d at work, %v hold", space.used, q.state.Busy, q.holders)
	}
}
