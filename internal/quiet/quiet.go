// Package quiet makes the volumes of a unit quiet around their snapshots: it knows which freezes and locks are wanted by which
// volume, arms all of them before the first is held, lets everything go on after the last snapshot, and tells each volume what
// that proved. Package quiesce holds and frees each one.
package quiet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/owned"
	"voltar/internal/quiesce"
	"voltar/internal/say"
	"voltar/internal/store/patient"
	"voltar/lvm"
	"voltar/report"
)

// FreezeHere as the name of a freeze stands for the filesystems of the volume that this host itself has mounted.
const FreezeHere = "local"

// Levels of consistency, as the manifest has them.
const (
	levelCrash       = "crash-consistent"
	levelFilesystem  = "filesystem-consistent"
	levelApplication = "application-consistent"
)

// Host is what the freezes of a run are made with.
type Host struct {
	*owned.Owner
	Quieter *quiesce.Quieter
	Now     func() time.Time
	Needed  []Needed
	Warn    func(error) // of what concerns no volume alone
}

// Needed is a place of this host that must not be frozen, as it is written to meanwhile.
type Needed struct {
	Path, Why string
	// Devices finds what the place lies on, where looking may hang; nil for a place of the host's own.
	Devices func(context.Context) ([]lvm.Dev, error)
}

// Volume is a volume of a unit.
type Volume struct {
	LV    lvm.Volume
	Group string           // the consistency group that the unit is; "" for none
	Wants []quiesce.Freeze // its own and its group's
	// Tell is told of what was wanted and did not happen, of one thing at a time. Must fails the volume.
	Tell func(err error, must bool)
	// Failed tells whether the volume is out of the unit, for whatever reason.
	Failed func() bool

	mu     sync.Mutex // several freezes for one volume go in parallel
	result quiesced
}

// Miss records that something which was wanted did not happen, and tells of it: the volume is only crash-consistent, or fails.
func (v *Volume) Miss(err error, must bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !must {
		v.result.notes = append(v.result.notes, report.ProblemOf(err).Message)
		v.result.level = levelCrash
	}
	v.Tell(err, must)
}

// String is for the report.
func (v *Volume) String() string { return v.result.text(v.Group) }

// Facts are those of the manifest.
func (v *Volume) Facts() *catalog.Quiesce { return v.result.facts(v.Group) }

// quiesced is how quiet it was around a volume's snapshot.
type quiesced struct {
	level     string // "" is levelCrash
	method    string
	frozen    time.Duration     // the longest of what was frozen
	notes     []string          // why it is less than wanted
	databases map[string]string // what each said of itself
}

func (q quiesced) text(group string) string {
	text := levelCrash
	switch q.level {
	case levelFilesystem:
		text = fmt.Sprintf("frozen %.1f s", q.frozen.Seconds())
	case levelApplication:
		text = fmt.Sprintf("%s, held %.1f s", levelApplication, q.frozen.Seconds())
	}
	if group != "" {
		text += ", group " + group
	}
	return text
}

func (q quiesced) facts(group string) *catalog.Quiesce {
	f := &catalog.Quiesce{Level: q.level, Method: q.method, FrozenMillis: q.frozen.Milliseconds(), Group: group}
	if f.Level == "" {
		f.Level = levelCrash
	}
	f.Note, f.Databases = strings.Join(q.notes, "; "), q.databases
	return f
}

// hold is one thing that is quiet for some volumes of a unit.
type hold struct {
	quiesce.Freeze
	volumes []*Volume
	session *quiesce.Session
	over    owned.Undo // ends its place in the journal, once it is held
	held    bool
	lost    error // why it is known not to have lasted
}

// Unit is what is quiet around the snapshots of a unit.
type Unit struct {
	host  *Host
	holds []*hold // in the order in which they were made quiet
}

// Still arms everything that is to be made quiet for a unit, and then freezes it: nothing is frozen while something else still
// connects. What fails, fails the volumes that it is for, or leaves them crash-consistent.
func (host *Host) Still(ctx context.Context, volumes []*Volume) *Unit {
	q := &Unit{host: host}
	wanted := host.wantedHolds(volumes)
	q.each(wanted, func(h *hold) { h.problem(host.arm(ctx, h)) })
	for _, stage := range stagesOf(wanted) {
		stage = slices.DeleteFunc(stage, func(h *hold) bool { return h.session == nil || !h.needed() })
		q.holds = append(q.holds, stage...)
		q.each(stage, func(h *hold) { h.problem(host.freeze(ctx, h)) })
	}
	for _, h := range wanted {
		if h.session != nil && !slices.Contains(q.holds, h) {
			q.holds = append(q.holds, h) // armed for nothing
		}
	}
	return q
}

// each does something for all holds at once. The volumes' records are touched by one at a time.
func (q *Unit) each(holds []*hold, do func(*hold)) {
	var wait sync.WaitGroup
	for _, h := range holds {
		wait.Go(func() { do(h) })
	}
	wait.Wait()
}

func stagesOf(holds []*hold) [][]*hold {
	var databases, filesystems []*hold
	for _, h := range holds {
		if h.Method.IsDatabase() {
			databases = append(databases, h)
		} else {
			filesystems = append(filesystems, h)
		}
	}
	return [][]*hold{databases, filesystems}
}

// needed tells whether a volume still wants it.
func (h *hold) needed() bool {
	return slices.ContainsFunc(h.volumes, func(v *Volume) bool { return !v.Failed() })
}

// problem tells the volumes that it was not as quiet as they wanted.
func (h *hold) problem(err error) {
	if err == nil {
		return
	}
	for _, v := range h.volumes {
		v.Miss(err, h.Must)
	}
}

// wantedHolds are the freezes of the volumes and of their groups, each once.
func (host *Host) wantedHolds(volumes []*Volume) []*hold {
	w := wanted{host: host, volumes: volumes, canNest: quiesce.CanNest()}
	for _, v := range volumes {
		if v.Failed() {
			continue
		}
		for _, f := range v.Wants {
			if err := w.add(f, v); err != nil {
				v.Miss(fmt.Errorf("freeze %s: %w", v.LV, err), f.Must)
			}
		}
	}
	return w.list
}

// wanted collects holds.
type wanted struct {
	host    *Host
	volumes []*Volume
	canNest bool
	list    []*hold
}

// add enters a freeze that a volume wants. Filesystems of this host are sorted by how they can be frozen: one that is
// mounted on a volume of the unit itself is frozen by LVM's own suspending, where the kernel does not bear both.
func (w *wanted) add(f quiesce.Freeze, v *Volume) (err error) {
	if f.Method != quiesce.MethodLocal {
		w.hold(f, v)
		return nil
	}
	if f.Name == FreezeHere && len(f.Mountpoints) == 0 {
		if f.Mountpoints, err = w.host.mountpointsOf(v.LV); err != nil {
			return err
		}
		if len(f.Mountpoints) == 0 {
			return errors.New("no filesystem of it is mounted on this host")
		}
	}
	direct := f
	direct.Method, direct.Mountpoints, direct.Devices = quiesce.MethodSuspend, nil, nil
	frozen := f
	frozen.Mountpoints = nil
	for _, point := range f.Mountpoints {
		on, err := w.mountedOn(point)
		switch {
		case err != nil:
			return err
		case on == nil || w.canNest:
			frozen.Mountpoints = append(frozen.Mountpoints, point)
		case !on.LV.IsThin():
			direct.Devices = append(direct.Devices, lvm.DMName(on.LV.VG, on.LV.Name))
			direct.Mountpoints = append(direct.Mountpoints, point)
		case len(w.volumes) > 1:
			return fmt.Errorf("%s is mounted on the thin volume %s: together with others it can be frozen from Linux 6.8 on only",
				point, on.LV)
		default:
			v.result.level, v.result.method = levelFilesystem, "LVM, while it makes the snapshot"
		}
	}
	if len(frozen.Mountpoints) > 0 {
		w.hold(frozen, v)
	}
	if len(direct.Devices) > 0 {
		w.hold(direct, v)
	}
	return nil
}

// hold enters a freeze for a volume.
func (w *wanted) hold(f quiesce.Freeze, v *Volume) {
	same := func(h *hold) bool {
		return h.Name == f.Name && h.Method == f.Method && h.Domain == f.Domain && h.Socket == f.Socket &&
			slices.Equal(h.Mountpoints, f.Mountpoints) && slices.Equal(h.Devices, f.Devices)
	}
	if i := slices.IndexFunc(w.list, same); i >= 0 {
		w.list[i].volumes = append(w.list[i].volumes, v)
		return
	}
	w.list = append(w.list, &hold{Freeze: f, volumes: []*Volume{v}})
}

// mountedOn returns the volume of the unit on whose device itself a filesystem lies, or nil.
func (w *wanted) mountedOn(point string) (*Volume, error) {
	devices, err := w.host.LVM.DevicesOfPath(point)
	if err != nil {
		return nil, err
	}
	for _, v := range w.volumes {
		if dev, active := v.LV.Dev(); active && slices.Contains(devices, dev) {
			return v, nil
		}
	}
	return nil, nil
}

// mountpointsOf are where filesystems of a volume are mounted on this host, one for each filesystem.
func (host *Host) mountpointsOf(volume lvm.Volume) ([]string, error) {
	dev, active := volume.Dev()
	if !active {
		return nil, nil
	}
	return host.LVM.MountsOn(dev)
}

// StillSuspended makes sure that a volume that was suspended has been so up to its snapshot: LVM, which resumes it then,
// would not tell.
func (q *Unit) StillSuspended(v *Volume) {
	name := lvm.DMName(v.LV.VG, v.LV.Name)
	for _, h := range q.holds {
		if !h.held || !slices.Contains(h.Devices, name) {
			continue
		}
		suspended, err := q.host.LVM.IsSuspended(v.LV)
		if err == nil && !suspended {
			err = quiesce.ErrNotHeld
		}
		if err != nil {
			h.lost = fmt.Errorf("freeze %s: %s: %w", h.Freeze, v.LV, err)
		}
	}
}

// arm opens the session of a hold, once it is known to freeze nothing that is needed meanwhile.
func (host *Host) arm(ctx context.Context, h *hold) error {
	if len(h.Mountpoints) > 0 && (h.Method == quiesce.MethodLocal || h.Method == quiesce.MethodSuspend) {
		if err := host.refuseFreeze(ctx, h.Mountpoints); err != nil {
			return fmt.Errorf("freeze %s: %w", h.Freeze, err)
		}
	}
	return quiesce.Retry(ctx, h.Retries, func() (err error) {
		h.session, err = host.Quieter.Arm(ctx, h.Freeze)
		return err
	})
}

// freeze journals a freeze and makes it. A try that failed has ended its session, so that each further one arms anew.
func (host *Host) freeze(ctx context.Context, h *hold) error {
	deadline := h.Deadline
	if deadline == 0 {
		deadline = quiesce.DefaultDeadline
	}
	first := true
	return quiesce.Retry(ctx, h.Retries, func() (err error) {
		if !first {
			if h.session, err = host.Quieter.Arm(ctx, h.Freeze); err != nil {
				return err
			}
		}
		first = false
		h.over, err = host.Freeze(h.Freeze, host.Now().UTC().Add(deadline), func() error { return h.session.Hold(ctx) })
		if err != nil {
			return errors.Join(err, h.close())
		}
		h.held = true
		return nil
	})
}

func (h *hold) close() error {
	if h.session == nil {
		return nil
	}
	session := h.session
	h.session = nil
	return session.Close()
}

// Thaw lets everything go on, the last made quiet first, and records for each volume what that proved.
func (q *Unit) Thaw(ctx context.Context) {
	for _, stage := range slices.Backward(stagesOf(q.holds)) {
		q.each(stage, func(h *hold) { q.host.thawHold(ctx, h) })
	}
}

func (host *Host) thawHold(ctx context.Context, h *hold) {
	if h.session == nil {
		return
	}
	if !h.held {
		if err := h.close(); err != nil {
			host.Warn(err)
		}
		return
	}
	took, err := h.session.Thaw(ctx)
	err = errors.Join(err, h.lost)
	detail := h.session.Detail()
	for _, v := range h.volumes {
		v.mu.Lock()
		if err == nil {
			v.result.add(h, took, detail)
		}
		v.mu.Unlock()
	}
	h.problem(err)
	// Closed, it lets go whatever became of the thaw.
	if closeErr := h.close(); closeErr != nil {
		host.Warn(say.WithHint(closeErr, "look at the guest with `fsfreeze`: writing there must work again"))
		return // stays in the journal
	}
	if err := h.over(ctx); err != nil {
		host.Warn(err)
	}
}

// add takes a hold that was proven to have lasted into account.
func (q *quiesced) add(h *hold, took time.Duration, detail string) {
	q.frozen = max(q.frozen, took)
	method := h.String()
	if q.method != "" {
		method = q.method + ", " + method
	}
	q.method = method
	if detail != "" {
		if q.databases == nil {
			q.databases = map[string]string{}
		}
		q.databases[h.Name] = detail
	}
	switch {
	case q.level == levelCrash: // something else failed
	case h.Method.IsDatabase():
		q.level = levelApplication
	case q.level == "":
		q.level = levelFilesystem
	}
}

// refuseFreeze refuses to freeze a filesystem that this host or this run has to write to meanwhile: both would stand
// still until the deadline.
func (host *Host) refuseFreeze(ctx context.Context, mountpoints []string) error {
	for _, point := range mountpoints {
		frozen, err := patient.Within(ctx, patient.Default, func() ([]lvm.Dev, error) { return host.LVM.DevicesOfPath(point) })
		if err != nil {
			return fmt.Errorf("find what holds %s: %w", point, err)
		}
		if len(frozen) == 0 {
			return fmt.Errorf("%s lies on no block device of this host: it cannot be frozen here", point)
		}
		for _, n := range host.Needed {
			find := n.Devices
			if find == nil {
				find = func(context.Context) ([]lvm.Dev, error) { return host.LVM.DevicesUnderPath(n.Path) }
			}
			devices, err := find(ctx)
			if err != nil {
				return fmt.Errorf("find what holds %s: %w", n.Path, err)
			}
			if slices.ContainsFunc(devices, func(d lvm.Dev) bool { return slices.Contains(frozen, d) }) {
				return say.WithHint(fmt.Errorf("%s is not frozen: %s (%s)", point, n.Why, n.Path),
					"leave it out, or freeze it from a guest's own hook")
			}
		}
	}
	return nil
}
