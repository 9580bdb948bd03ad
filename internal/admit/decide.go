// Package admit decides when volumes may begin: so many at a time in all, and each when the space that its snapshot needs is
// free in its volume group. Who comes first is served first; who waits for space in one group holds up nobody that needs
// none there. Only what does not fit while nothing else of the run holds space in the group fails.
//
// Pass decides, and is pure: the queue of a run and the preview of one both ask it.
package admit

import (
	"fmt"
	"slices"

	"voltar/internal/say"
)

// Want is what one volume needs: space in a group for its snapshot, or none for a thin one (WantBytes 0).
type Want struct {
	Group                 string
	WantBytes, FloorBytes int64 // whole extents
}

// Request is what volumes need that begin at one moment.
type Request []Want

// Room is the free space of one volume group.
type Room struct {
	FreeBytes, ExtentBytes int64
	Holders                int // volumes of this run that hold space in the group
}

// State is what there is to give.
type State struct {
	Parallel int // volumes at a time
	Busy     int // volumes at work, at most Parallel of a unit
	Rooms    map[string]Room
	// SpareFraction of what volumes of a unit get, when they must share less than they want, is left for whichever of their
	// snapshots has to be extended.
	SpareFraction float64
}

// Decision is what a request is told.
type Decision struct {
	Admitted bool
	WaitsFor string // the group whose space is waited for; "" when it is for other volumes to end
	Bytes    []int64
	Errs     []error // of volumes that can never fit; the others begin without them
}

// slots is how many volumes at a time a request counts for. A unit of more than Parallel volumes takes its snapshots at one
// moment all the same, and has every place: its volumes are then read so many at a time.
func (s *State) slots(r Request) int { return min(len(r), s.Parallel) }

// Pass decides on requests in the order of their arrival, and takes what it gives from s. Requests are admitted whole, so
// that no two of them can each hold what the other waits for.
func (s *State) Pass(requests []Request) []Decision {
	decisions := make([]Decision, len(requests))
	closed := map[string]bool{} // groups whose space an earlier request waits for
	for i, r := range requests {
		if s.Busy+s.slots(r) > s.Parallel {
			break // and nobody overtakes, so that a large unit begins at last
		}
		d := s.decide(r, closed)
		decisions[i] = d
		if !d.Admitted {
			for _, w := range r {
				closed[w.Group] = closed[w.Group] || w.WantBytes > 0
			}
			continue
		}
		s.Busy += s.slots(r)
		for j, w := range r {
			if d.Bytes[j] > 0 {
				room := s.Rooms[w.Group]
				room.FreeBytes -= d.Bytes[j]
				room.Holders++
				s.Rooms[w.Group] = room
			}
		}
	}
	return decisions
}

func (s *State) decide(r Request, closed map[string]bool) Decision {
	d := Decision{Admitted: true, Bytes: make([]int64, len(r)), Errs: make([]error, len(r))}
	var done []string
	for _, w := range r {
		if w.WantBytes == 0 || slices.Contains(done, w.Group) {
			continue
		}
		done = append(done, w.Group)
		if closed[w.Group] || !s.divide(w.Group, r, d) {
			return Decision{WaitsFor: w.Group}
		}
	}
	return d
}

// divide shares out the space of one group among the volumes of a request. It reports false where they should wait for more:
// while others hold room there and not everybody gets what is wanted.
func (s *State) divide(group string, r Request, d Decision) bool {
	room := s.Rooms[group]
	free := max(roundDown(room.FreeBytes, room.ExtentBytes), 0)
	var members []int
	var want int64
	for i, w := range r {
		if w.Group == group && w.WantBytes > 0 {
			members = append(members, i)
			want += w.WantBytes
		}
	}
	if want <= free {
		for _, i := range members {
			d.Bytes[i] = r[i].WantBytes
		}
		return true
	}
	if room.Holders > 0 {
		return false
	}
	usable := free
	var fit []int
	var floors int64
	for _, i := range members {
		floor := max(r[i].FloorBytes, room.ExtentBytes, 1)
		if floors+floor > free {
			d.Errs[i] = say.WithHint(fmt.Errorf("too little free space in the volume group %s: %s are free, at least %s are needed", group,
				say.Size(free-floors), say.Size(floor)), "extend the volume group, or lower the size or floor of snapshots")
			continue
		}
		d.Bytes[i] = floor
		floors += floor
		fit = append(fit, i)
	}
	if len(fit) > 1 {
		usable = max(int64(float64(free)/(1+s.SpareFraction)), floors)
	}
	share(usable-floors, room.ExtentBytes, r, fit, d.Bytes)
	return true
}

// share adds to what volumes have what they want beyond it, in proportion and in whole extents.
func share(rest, extent int64, r Request, members []int, bytes []int64) {
	var missing int64
	for _, i := range members {
		missing += max(r[i].WantBytes-bytes[i], 0)
	}
	if missing <= 0 || rest <= 0 {
		return
	}
	part := min(float64(rest)/float64(missing), 1)
	for _, i := range members {
		more := max(r[i].WantBytes-bytes[i], 0)
		bytes[i] += roundDown(int64(float64(more)*part), extent)
	}
}

func roundDown(n, to int64) int64 {
	if to <= 0 {
		return n
	}
	return n - n%to
}
