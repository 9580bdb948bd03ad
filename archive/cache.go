package archive

import (
	"container/list"
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

const (
	// cacheLoadBytes bounds what all loads of a Cache hold at a time, stored and inflated, beside what it keeps.
	cacheLoadBytes = 64 << 20
	// cacheAhead is how many loads may be under way that nobody waits for.
	cacheAhead = 2
)

// Cache keeps members and blocks of indexes inflated, of all that is read through it, those that were used last, within a bound of
// bytes. It is safe for concurrent use: what several ask for is read once.
type Cache struct {
	ctx        context.Context
	cancel     context.CancelFunc
	limitBytes int64
	budget     *semaphore.Weighted
	ahead      *semaphore.Weighted
	loads      sync.WaitGroup

	mu    sync.Mutex
	items map[cacheKey]*list.Element
	order *list.List // of *cacheItem, the last used first
	held  int64      // bytes of the items that are there
}

// cacheKey is a place in something that is read through the cache, which a pointer tells from all else.
type cacheKey struct {
	of     any
	offset int64
}

type cacheItem struct {
	key  cacheKey
	done chan struct{} // closed when data and err are final
	data []byte
	err  error
}

// NewCache returns a cache that keeps at most limitBytes. It reads as long as ctx lasts. The caller closes it.
func NewCache(ctx context.Context, limitBytes int64) *Cache {
	c := &Cache{limitBytes: limitBytes, budget: semaphore.NewWeighted(cacheLoadBytes), ahead: semaphore.NewWeighted(cacheAhead),
		items: map[cacheKey]*list.Element{}, order: list.New()}
	c.ctx, c.cancel = context.WithCancel(ctx)
	return c
}

// Close ends what is being read, and waits for it.
func (c *Cache) Close() {
	c.cancel()
	c.mu.Lock()
	c.limitBytes = -1 // nothing is begun any more
	c.mu.Unlock()
	c.loads.Wait()
}

// get returns what lies at a place, by load where it is not there. costBytes is what a load holds, stored and inflated. Nobody may
// change what it returns. An error is not kept.
func (c *Cache) get(key cacheKey, costBytes int64, load func(context.Context) ([]byte, error)) ([]byte, error) {
	item := c.find(key)
	if item == nil {
		if item = c.begin(key, costBytes, load, func() {}); item == nil {
			return nil, context.Canceled
		}
	}
	<-item.done
	return item.data, item.err
}

// prefetch begins to read what will be asked for next, if it is not there and few others are.
func (c *Cache) prefetch(key cacheKey, costBytes int64, load func(context.Context) ([]byte, error)) {
	if c.has(key) || !c.ahead.TryAcquire(1) {
		return
	}
	if c.begin(key, costBytes, load, func() { c.ahead.Release(1) }) == nil {
		c.ahead.Release(1)
	}
}

func (c *Cache) has(key cacheKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.items[key]
	return ok
}

func (c *Cache) find(key cacheKey) *cacheItem {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[key]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cacheItem)
}

// begin begins a load, or finds the one that another began meanwhile; nil when the cache is closed. after is called when a load of
// its own has ended.
func (c *Cache) begin(key cacheKey, costBytes int64, load func(context.Context) ([]byte, error), after func()) *cacheItem {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[key]; ok {
		after()
		return e.Value.(*cacheItem)
	}
	if c.limitBytes < 0 {
		return nil
	}
	item := &cacheItem{key: key, done: make(chan struct{})}
	c.items[key] = c.order.PushFront(item)
	c.loads.Go(func() {
		defer after()
		c.load(item, min(costBytes, cacheLoadBytes), load)
	})
	return item
}

func (c *Cache) load(item *cacheItem, costBytes int64, load func(context.Context) ([]byte, error)) {
	if item.err = c.budget.Acquire(c.ctx, costBytes); item.err == nil {
		item.data, item.err = load(c.ctx)
		c.budget.Release(costBytes)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	close(item.done)
	e, ok := c.items[item.key]
	switch {
	case !ok || e.Value != item: // it was dropped meanwhile
	case item.err != nil:
		c.remove(e)
	default:
		c.held += int64(len(item.data))
		c.evict()
	}
}

// evict removes what was not used for longest, until the rest is within the bound.
func (c *Cache) evict() {
	for e := c.order.Back(); e != nil && c.held > c.limitBytes; {
		last := e
		e = e.Prev()
		if last.Value.(*cacheItem).isDone() {
			c.held -= int64(len(last.Value.(*cacheItem).data))
			c.remove(last)
		}
	}
}

func (i *cacheItem) isDone() bool {
	select {
	case <-i.done:
		return true
	default:
		return false
	}
}

func (c *Cache) remove(e *list.Element) {
	delete(c.items, e.Value.(*cacheItem).key)
	c.order.Remove(e)
}

// drop removes all of something that will be asked for no more, and waits for what is being read of it.
func (c *Cache) drop(of any) {
	c.mu.Lock()
	var loading []*cacheItem
	for e := c.order.Front(); e != nil; {
		item := e.Value.(*cacheItem)
		next := e.Next()
		if item.key.of == of {
			if item.isDone() {
				c.held -= int64(len(item.data))
			} else {
				loading = append(loading, item)
			}
			c.remove(e)
		}
		e = next
	}
	c.mu.Unlock()
	for _, item := range loading {
		<-item.done
	}
}
