package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"voltar/internal/store"
)

// OwnBytes is what of a backup nothing else has a part in: what it takes while the others are there, and what its removal alone frees.
// That is all of it where backups do not share their place. It asks for where each of its files lies.
func OwnBytes(ctx context.Context, s store.Store, e Entry) (int64, error) {
	sharing, shares := store.SharingOf(ctx, s)
	if !shares {
		return e.SizeBytes, nil
	}
	l, err := lieOf(ctx, s, sharing, e)
	return l.ownBytes, err
}

// FreedBytes is what the removal of each of some backups frees, if they go in their order and others of their source stay. What
// several of them share goes free with the last of these. It errs on the low side, but for what shares with them and is no
// backup of the source. ok is false where backups do not share their place: then each frees its size.
func FreedBytes(ctx context.Context, s store.Store, going, staying []Entry) (freed []int64, ok bool, err error) {
	sharing, shares := store.SharingOf(ctx, s)
	if !shares || len(going) == 0 {
		return nil, false, nil
	}
	lies := make([]lie, len(going))
	freed = make([]int64, len(going))
	for i, e := range going {
		if lies[i], err = lieOf(ctx, s, sharing, e); err != nil {
			return nil, true, err
		}
		freed[i] = lies[i].ownBytes
	}
	if len(going) == 1 { // what it shares, it shares with what stays
		return freed, true, nil
	}
	var held []span
	for _, e := range staying {
		l, err := lieOf(ctx, s, sharing, e)
		if err != nil {
			return nil, true, err
		}
		held = union(held, l.shared)
	}
	for i, l := range slices.Backward(lies) {
		freed[i] -= lengthOf(held)
		held = union(held, l.shared)
		freed[i] += lengthOf(held)
	}
	return freed, true, nil
}

// lie is where a backup lies on its store.
type lie struct {
	ownBytes int64  // what nothing else has a part in
	shared   []span // what something else has, too, where that can be told; sorted and apart
}

// span is a part of a disk.
type span struct{ at, end int64 }

func lieOf(ctx context.Context, s store.Store, sharing store.Sharing, e Entry) (l lie, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("look what of %s is shared in %s: %w", e.ID, s, err)
		}
	}()
	files, err := s.List(ctx, e.Path())
	if err != nil {
		return l, err
	}
	for _, file := range files {
		pieces, err := sharing.Pieces(ctx, file.Key)
		if errors.Is(err, store.ErrNotExist) {
			continue // who removes it has begun
		}
		if err != nil {
			return l, err
		}
		for _, p := range pieces {
			switch {
			case !p.IsShared:
				l.ownBytes += p.LengthBytes
			case p.AtBytes >= 0:
				l.shared = append(l.shared, span{p.AtBytes, p.AtBytes + p.LengthBytes})
			}
		}
	}
	slices.SortFunc(l.shared, func(a, b span) int { return cmp.Compare(a.at, b.at) })
	l.shared = union(l.shared, nil)
	return l, nil
}

// union joins two lists that are sorted.
func union(a, b []span) (joined []span) {
	for len(a) > 0 || len(b) > 0 {
		if len(a) == 0 || len(b) > 0 && b[0].at < a[0].at {
			a, b = b, a
		}
		next := a[0]
		a = a[1:]
		if n := len(joined); n > 0 && next.at <= joined[n-1].end {
			joined[n-1].end = max(joined[n-1].end, next.end)
		} else {
			joined = append(joined, next)
		}
	}
	return joined
}

func lengthOf(list []span) (bytes int64) {
	for _, s := range list {
		bytes += s.end - s.at
	}
	return bytes
}
