package catalog

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"voltar/internal/store"
)

// sharing is a store in which archives lie where a test says.
type sharing struct {
	store.Store
	no     bool // objects share nothing
	pieces map[string][]store.Piece
	fails  error
}

func (s *sharing) Unwrap() store.Store { return s.Store }

func (s *sharing) Shares(context.Context) bool { return !s.no }

func (s *sharing) Pieces(_ context.Context, key string) ([]store.Piece, error) {
	return s.pieces[key], s.fails
}

// put has the archive of a backup lie in pieces.
func (s *sharing) put(e Entry, pieces ...store.Piece) {
	s.pieces[e.Path()+"/"+NamesOf(e.ID.Ref, false).Archive("")] = pieces
}

// What a removal frees is what nothing else has; what several that go have alone goes with the last of them.
func TestWhatRemovalsFree(t *testing.T) {
	s := &sharing{Store: newStore(t), pieces: map[string][]store.Piece{}}
	var e []Entry
	for i := range 4 {
		e = append(e, EntryOf(add(t, s, volume("v"), night.AddDate(0, 0, i))))
	}
	alone := func(at, length int64) store.Piece { return store.Piece{AtBytes: at, LengthBytes: length} }
	both := func(at, length int64) store.Piece {
		return store.Piece{AtBytes: at, LengthBytes: length, IsShared: true}
	}
	// 0 to 100 is of the first three, 100 to 150 of the first two, 200 to 300 of the last two; the rest is of one alone.
	s.put(e[0], alone(1000, 7), both(100, 50), both(0, 100))
	s.put(e[1], both(0, 60), both(60, 40), both(100, 50), alone(2000, 20))
	s.put(e[2], both(0, 100), both(200, 100))
	s.put(e[3], both(200, 100), both(-1, 1000), alone(3000, 300))
	for _, c := range []struct {
		going []int
		want  []int64
	}{
		{[]int{0}, []int64{7}}, {[]int{1}, []int64{20}}, {[]int{2}, []int64{0}},
		{[]int{0, 1}, []int64{7, 20 + 50}}, {[]int{1, 0}, []int64{20, 7 + 50}}, {[]int{0, 2}, []int64{7, 0}},
		{[]int{0, 1, 2}, []int64{7, 70, 100}}, {[]int{2, 3}, []int64{0, 400}},
		{[]int{0, 1, 2, 3}, []int64{7, 70, 100, 400}}, // nobody can tell of what has no place
	} {
		var going, staying []Entry
		for _, i := range c.going {
			going = append(going, e[i])
		}
		for i := range e {
			if !slices.Contains(c.going, i) {
				staying = append(staying, e[i])
			}
		}
		freed, ok, err := FreedBytes(t.Context(), s, going, staying)
		if err != nil || !ok || !slices.Equal(freed, c.want) {
			t.Errorf("%v frees %v, %t, %v; it should be %v", c.going, freed, ok, err, c.want)
		}
	}
	if own, err := OwnBytes(t.Context(), s, e[1]); err != nil || own != 20 {
		t.Errorf("%d, %v is the second's own", own, err)
	}
	s.fails = errors.New("a bad sector")
	if _, ok, err := FreedBytes(t.Context(), s, e[:2], e[2:]); !ok || err == nil || !strings.Contains(err.Error(), e[0].ID.String()) {
		t.Errorf("%t, %v where it cannot be told", ok, err)
	}
	s.no = true
	if freed, ok, err := FreedBytes(t.Context(), s, e[:1], e[1:]); ok || err != nil || freed != nil {
		t.Errorf("%v, %t, %v where nothing is shared", freed, ok, err)
	}
	if own, err := OwnBytes(t.Context(), s, e[1]); err != nil || own != e[1].SizeBytes {
		t.Errorf("%d, %v of %d is the second's own where nothing is shared", own, err, e[1].SizeBytes)
	}
}
