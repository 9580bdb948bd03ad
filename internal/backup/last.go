package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"voltar/internal/extent"
	"voltar/internal/owned"
	"voltar/internal/say"
	"voltar/lvm"
)

// Snapshots of thin volumes that are set aside until the next night (snapshot.keep_last): the pool tells what differs in that night's
// snapshot, and the rest is not read. All that is known of one stands in a tag of it:
//
//	voltar.last.CONFIGURATION.SETTINGS.THIN-ID.KIB
//
// CONFIGURATION is whose run made it, SETTINGS what it was backed up with, THIN-ID its number in the pool, and KIB what it had mapped:
// when the guest writes all of that anew, it takes as much of the pool, and when it has another number of blocks, somebody wrote to it.
const tagLast = "voltar.last."

// last is a snapshot that was set aside.
type last struct {
	volume        lvm.Volume // it
	configuration string
	settings      string
	thinID        uint64
	mappedBytes   int64
}

func (l last) tag() string {
	return fmt.Sprintf("%s%s.%s.%d.%d", tagLast, l.configuration, l.settings, l.thinID, l.mappedBytes/kib)
}

const kib = 1 << 10 // blocks of thin pools are multiples of 64 KiB

// parseLast knows a snapshot that was set aside by its tag and its name. A tag that somebody changed is none, and a volume that somebody
// gave another name is his.
func parseLast(v lvm.Volume) (last, bool) {
	i := slices.IndexFunc(v.Tags, func(tag string) bool { return strings.HasPrefix(tag, tagLast) })
	if i < 0 || !v.HasTag(owned.TagOwn) {
		return last{}, false
	}
	words := strings.Split(strings.TrimPrefix(v.Tags[i], tagLast), ".")
	if len(words) != 4 {
		return last{}, false
	}
	l := last{volume: v, configuration: words[0], settings: words[1]}
	var idErr, sizeErr error
	l.thinID, idErr = strconv.ParseUint(words[2], 10, 24)
	l.mappedBytes, sizeErr = strconv.ParseInt(words[3], 10, 48)
	l.mappedBytes *= kib
	isNamed := l.run() != "" && strings.HasSuffix(v.Name, "-voltar-"+l.run())
	return l, isNamed && idErr == nil && sizeErr == nil && l.mappedBytes >= 0
}

// isPromoted tells whether a volume was a snapshot that is set aside, until somebody made a volume of it.
func isPromoted(v lvm.Volume) bool {
	_, isLast := parseLast(v)
	return !isLast && slices.ContainsFunc(v.Tags, func(tag string) bool { return strings.HasPrefix(tag, tagLast) })
}

// isAside tells whether it is still as it was set aside: nobody uses it.
func (l last) isAside() bool { return l.volume.ReadOnly && l.volume.ActivationSkip && !l.volume.Active }

// poolID is of the pool that a thin volume is in; a copy of a volume group has the same UUIDs within.
func poolID(v lvm.Volume) string { return v.VGUUID + v.PoolUUID }

// run is the run that made it.
func (l last) run() string {
	for _, tag := range l.volume.Tags {
		if run, found := strings.CutPrefix(tag, owned.TagRun); found {
			return run
		}
	}
	return ""
}

// digest is a short sum of words.
func digest(words ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(words, "\x00")))
	return hex.EncodeToString(sum[:6])
}

// madeBy is a digest of all that decides what a volume's backup holds, and of the metadata that its pool is known by: a pool that was
// repaired has others.
func (c *candidate) madeBy() string {
	words := []string{c.run.opts.Version, string(c.settings.As), strconv.Itoa(int(c.settings.Level)), c.poolMetadata}
	return digest(append(words, c.settings.Exclude...)...)
}

// poolMetadataOf is the UUID of the volume that holds the metadata of a thin volume's pool.
func poolMetadataOf(v lvm.Volume, inventory lvm.Inventory) string {
	i := slices.IndexFunc(inventory.Volumes, func(m lvm.Volume) bool {
		return m.Internal && m.VGUUID == v.VGUUID && m.Parent == v.Pool && strings.HasSuffix(m.Name, "_tmeta")
	})
	if !v.IsThin() || i < 0 {
		return ""
	}
	return inventory.Volumes[i].UUID
}

// lasts are the snapshots that are set aside on the host.
type lasts struct {
	mine []last // of this configuration

	mu      sync.Mutex
	mapped  map[string]int64 // by poolID: what all of them may come to take
	refused map[string]bool  // pools without room, of which was told
}

func (o *Options) lastsOf(inventory lvm.Inventory) *lasts {
	all := &lasts{mapped: map[string]int64{}, refused: map[string]bool{}}
	for _, v := range inventory.Volumes {
		l, isLast := parseLast(v)
		if !isLast {
			continue
		}
		all.mapped[poolID(v)] += l.mappedBytes
		if l.configuration == digest(o.ConfigPath) {
			all.mine = append(all.mine, l)
		}
	}
	return all
}

// of returns those of a volume.
func (all *lasts) of(v lvm.Volume) (found []last) {
	if all == nil { // not of a run
		return nil
	}
	for _, l := range all.mine {
		if l.volume.VGUUID == v.VGUUID && l.volume.OriginUUID == v.UUID {
			found = append(found, l)
		}
	}
	return found
}

// add counts a snapshot of so many mapped bytes, or one less, among those of a pool.
func (all *lasts) add(pool string, mappedBytes int64) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.mapped[pool] += mappedBytes
}

// reserve counts moreBytes to what is set aside in a pool, unless the pool would not stay below its limits when the guests write all of
// that anew.
func (all *lasts) reserve(id string, pool lvm.ThinPool, moreBytes int64, limits SnapshotOptions) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	room := int64(float64(pool.SizeBytes) * (limits.ThinDataPercent - pool.DataPercent) / 100)
	// Each mapping of the pool is there twice at most then.
	fits := all.mapped[id]+moreBytes <= room && 2*pool.MetadataPercent <= limits.ThinMetadataPercent
	if fits {
		all.mapped[id] += moreBytes
	}
	return fits
}

// tellOnce tells whether nobody has been told yet that a pool has no room.
func (all *lasts) tellOnce(pool string) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	told := all.refused[pool]
	all.refused[pool] = true
	return !told
}

// lastForReading is the snapshot of the volume that tonight's is compared with; nil for none.
func (a *admitted) lastForReading() *extent.Last {
	for _, l := range a.lasts {
		if a.settings.KeepLast && a.poolMetadata != "" && l.settings == a.madeBy() && poolID(l.volume) == poolID(a.volume) &&
			l.volume.SizeBytes == a.source.SizeBytes && l.isAside() {
			return &extent.Last{ThinID: l.thinID, Run: l.run(), MappedBytes: l.mappedBytes}
		}
	}
	return nil
}

// checkPool fails where the pool of a volume is too full for a snapshot. What was set aside of the volume goes before that.
func (a *admitted) checkPool(ctx context.Context) error {
	limits := a.run.opts.Snapshot
	pool, err := a.run.LVM.CheckPoolOf(ctx, a.volume, limits.ThinDataPercent, limits.ThinMetadataPercent)
	if len(a.lasts) == 0 || err == nil && a.run.lasts.reserve(poolID(a.volume), pool, 0, limits) {
		return err
	}
	a.dropLasts(ctx)
	_, err = a.run.LVM.CheckPoolOf(ctx, a.volume, limits.ThinDataPercent, limits.ThinMetadataPercent)
	return err
}

// dropLasts removes what was set aside of the volume before tonight.
func (c *candidate) dropLasts(ctx context.Context) {
	for _, l := range c.lasts {
		if err := c.run.dropLast(ctx, l); err != nil {
			c.warnOf(err)
		}
	}
	c.lasts = nil
}

func (r *run) dropLast(ctx context.Context, l last) error {
	err := errors.New("somebody has made it active, or to be written to")
	if l.isAside() {
		err = r.LVM.RemoveOwn(ctx, lvm.Snapshot{Volume: l.volume})
	}
	if err != nil {
		return say.WithHint(fmt.Errorf("%s, a snapshot of an earlier night, stays: %w", l.volume, err),
			"when nobody needs it, `lvremove "+l.volume.String()+"`; a volume that is to stay gets a name of its own (lvrename)")
	}
	r.lasts.add(poolID(l.volume), -l.mappedBytes)
	return nil
}

// dropOrphans removes what was set aside of volumes that are not backed up any more.
func (r *run) dropOrphans(ctx context.Context, plan *Plan) {
	selected := plan.Selected()
	for _, l := range r.lasts.mine {
		if slices.ContainsFunc(selected, func(v lvm.Volume) bool {
			return v.VGUUID == l.volume.VGUUID && v.UUID == l.volume.OriginUUID
		}) {
			continue // that volume's own way has seen to it
		}
		if err := r.dropLast(ctx, l); err != nil {
			r.warnOf(err)
		}
	}
}

// endSnapshot removes the snapshot that a volume was backed up from, or sets it aside in place of that of an earlier night. That one
// stays where there is no newer backup.
func (a *admitted) endSnapshot(ctx context.Context, s owned.Snapshot) error {
	if a.failure != nil {
		return s.Remove(ctx)
	}
	if a.settings.KeepLast && s.IsThin() && a.run.opts.Fresh > 0 && a.placed.Carries() {
		isAside, err := a.setAside(ctx, s)
		if err != nil {
			a.warnOf(say.WithHint(err, "all of the volume is read the next night"))
		}
		if isAside {
			a.dropLasts(ctx)
			return nil
		}
	}
	err := s.Remove(ctx)
	a.dropLasts(ctx)
	return err
}

// setAside sets the snapshot aside where its pool has room for that.
func (a *admitted) setAside(ctx context.Context, s owned.Snapshot) (done bool, err error) {
	limits := a.run.opts.Snapshot
	pool, err := a.run.LVM.CheckPoolOf(ctx, s.Volume, limits.ThinDataPercent, limits.ThinMetadataPercent)
	if err != nil {
		return false, err
	}
	thin, err := a.run.LVM.ThinDevice(ctx, s.Volume)
	if errors.Is(err, lvm.ErrNoMapping) {
		return false, nil // its pool cannot tell: it has an external origin
	}
	if err != nil {
		return false, err
	}
	l := last{
		configuration: digest(a.run.opts.ConfigPath), settings: a.madeBy(), thinID: thin.ID,
	}
	if l.mappedBytes, err = a.run.LVM.MappedBytes(s.Volume); err != nil {
		return false, err
	}
	before := int64(0)
	for _, old := range a.lasts {
		before += old.mappedBytes
	}
	if !a.run.lasts.reserve(poolID(s.Volume), pool, l.mappedBytes-before, limits) {
		if a.run.lasts.tellOnce(poolID(s.Volume)) {
			a.run.warn(fmt.Sprintf("no snapshot is kept in %s/%s until the next night that would not fit there if the guest wrote all of it anew: "+
				"data %.1f %% and metadata %.1f %% of it are in use, and all of such volumes is read", pool.VG, pool.Name,
				pool.DataPercent, pool.MetadataPercent),
				"extend the pool, or set keep_last = false for some of its volumes")
		}
		return false, nil
	}
	a.run.lasts.add(poolID(s.Volume), before) // until they are gone
	if err := s.SetAside(ctx, l.tag()); err != nil {
		a.run.lasts.add(poolID(s.Volume), -l.mappedBytes)
		return false, err
	}
	return true, nil
}
