package backup

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
	"voltar/internal/store"
	"voltar/lvm"
	"voltar/report"
)

// Group is a consistency group: its members are made quiet together and snapshotted back to back.
type Group struct {
	Name   string
	Freeze []quiesce.Freeze // beside what the members have of their own
	// GoOn lets the rest go on when one member fails before its snapshot stands. Otherwise all fail: a set of volumes with
	// a part from another night is of no use to a database.
	GoOn bool
}

// FreezeHere as the name of a freeze stands for the filesystems of the volume that this host itself has mounted.
const FreezeHere = "local"

// Levels of consistency, as the manifest has them.
const (
	levelCrash       = "crash-consistent"
	levelFilesystem  = "filesystem-consistent"
	levelApplication = "application-consistent"
)

// quiesced is how quiet it was around a volume's snapshot.
type quiesced struct {
	level     string // "" is levelCrash
	method    string
	frozen    time.Duration // the longest of what was frozen
	group     string
	notes     []string          // why it is less than wanted
	databases map[string]string // what each said of itself
}

// String is for the report.
func (q quiesced) String() string {
	text := levelCrash
	switch q.level {
	case levelFilesystem:
		text = fmt.Sprintf("frozen %.1f s", q.frozen.Seconds())
	case levelApplication:
		text = fmt.Sprintf("%s, held %.1f s", levelApplication, q.frozen.Seconds())
	}
	if q.group != "" {
		text += ", group " + q.group
	}
	return text
}

// facts are those of the manifest.
func (q quiesced) facts() *catalog.Quiesce {
	f := &catalog.Quiesce{Level: q.level, Method: q.method, FrozenMillis: q.frozen.Milliseconds(), Group: q.group}
	if f.Level == "" {
		f.Level = levelCrash
	}
	f.Note, f.Databases = strings.Join(q.notes, "; "), q.databases
	return f
}

// degrade records that something which was wanted did not happen. Must fails the volume.
func (v *volumeRun) degrade(err error, must bool) {
	if must {
		v.fail(err)
		return
	}
	problem := report.ProblemOf(err)
	v.quiesced.notes = append(v.quiesced.notes, problem.Message)
	v.quiesced.level = levelCrash
	hint := problem.Hint
	if hint == "" {
		hint = "the backup is only crash-consistent: what ran then has to recover from it as from a power cut"
	}
	v.warn(problem.Message, hint)
}

// units are the selected volumes, each by itself or with its group. A group's place is that of its first member.
func (r *run) units(plan *Plan) []unit {
	var list []unit
	for _, volume := range plan.Selected() {
		v := r.newVolume(plan, volume)
		name := v.settings.Group
		at := slices.IndexFunc(list, func(u unit) bool { return name != "" && u.group == name })
		if at < 0 {
			list = append(list, unit{group: name})
			at = len(list) - 1
		}
		v.quiesced.group = name
		list[at].members = append(list[at].members, v)
	}
	return list
}

// groupOptions are those of a group; a name that only a tag gives has none.
func (e *Engine) groupOptions(name string) Group {
	for _, g := range e.opts.Groups {
		if g.Name == name {
			return g
		}
	}
	return Group{Name: name}
}

// alive are the members that have not failed.
func (u unit) alive() []*volumeRun {
	return slices.DeleteFunc(slices.Clone(u.members), func(v *volumeRun) bool { return v.failure != nil })
}

// failTogether fails the whole group when one member has failed, unless its policy lets the rest go on.
func (r *run) failTogether(u unit) {
	if u.group == "" || r.groupOptions(u.group).GoOn {
		return
	}
	for _, failed := range u.members {
		if failed.failure == nil {
			continue
		}
		for _, v := range u.members {
			v.fail(say.WithHint(fmt.Errorf("group %s is backed up as a whole or not at all, and %s failed: %w",
				u.group, failed.name(), forOthers(failed.failure)),
				"on_failure = \"go-on\" of the group lets the rest go on"))
		}
		return
	}
}

// snapshotUnit makes a unit quiet, snapshots its members, and lets everything go on.
func (r *run) snapshotUnit(ctx context.Context, u unit) {
	r.failTogether(u)
	for _, v := range u.alive() {
		v.fail(v.runHooks(ctx, quiesce.PhaseSnapshotBefore))
	}
	r.failTogether(u)
	quiet := r.quiet(ctx, u)
	r.failTogether(u)
	for _, v := range u.alive() {
		quiet.stillSuspended(v)
		v.fail(v.takeSnapshot(v.within(ctx)))
	}
	quiet.thaw(ctx)
	r.failTogether(u)
	for _, v := range u.members {
		if v.snapshot.Name != "" {
			v.fail(v.runHooks(ctx, quiesce.PhaseSnapshotAfter))
		}
	}
}

// hold is one thing that is quiet for some members of a unit.
type hold struct {
	quiesce.Freeze
	members []*volumeRun
	session *quiesce.Session
	over    owned.Undo // ends its place in the journal, once it is held
	held    bool
	lost    error // why it is known not to have lasted
}

// quietUnit is what is quiet around the snapshots of a unit.
type quietUnit struct {
	run   *run
	holds []*hold // in the order in which they were made quiet
}

// quiet arms everything that is to be made quiet for a unit, and then freezes it: nothing is frozen while something
// else still connects. What fails, fails the members that it is for, or leaves them crash-consistent.
func (r *run) quiet(ctx context.Context, u unit) *quietUnit {
	q := &quietUnit{run: r}
	wanted := r.wantedHolds(u)
	q.each(wanted, func(h *hold) { h.problem(r.arm(ctx, h)) })
	for _, stage := range stagesOf(wanted) {
		stage = slices.DeleteFunc(stage, func(h *hold) bool { return h.session == nil || !h.needed() })
		q.holds = append(q.holds, stage...)
		q.each(stage, func(h *hold) { h.problem(r.freeze(ctx, h)) })
	}
	for _, h := range wanted {
		if h.session != nil && !slices.Contains(q.holds, h) {
			q.holds = append(q.holds, h) // armed for nothing
		}
	}
	return q
}

// each does something for all holds at once. The members' records are touched by one at a time.
func (q *quietUnit) each(holds []*hold, do func(*hold)) {
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

// needed tells whether a member still wants it.
func (h *hold) needed() bool {
	return slices.ContainsFunc(h.members, func(v *volumeRun) bool { return v.failure == nil })
}

// problem tells the members that it was not as quiet as they wanted.
func (h *hold) problem(err error) {
	if err == nil {
		return
	}
	for _, v := range h.members {
		v.quietMu.Lock()
		v.degrade(err, h.Must)
		v.quietMu.Unlock()
	}
}

// wantedHolds are the freezes of the members and of their groups, each once.
func (r *run) wantedHolds(u unit) []*hold {
	w := wanted{run: r, unit: u, canNest: quiesce.CanNest()}
	for _, v := range u.alive() {
		for _, f := range slices.Concat(v.settings.Freeze, r.groupOptions(v.settings.Group).Freeze) {
			if err := w.add(f, v); err != nil {
				v.degrade(fmt.Errorf("freeze %s: %w", v.name(), err), f.Must)
			}
		}
	}
	return w.list
}

// wanted collects holds.
type wanted struct {
	run     *run
	unit    unit
	canNest bool
	list    []*hold
}

// add enters a freeze that a member wants. Filesystems of this host are sorted by how they can be frozen: one that is
// mounted on a volume of the unit itself is frozen by LVM's own suspending, where the kernel does not bear both.
func (w *wanted) add(f quiesce.Freeze, v *volumeRun) (err error) {
	if f.Method != quiesce.MethodLocal {
		w.hold(f, v)
		return nil
	}
	if f.Name == FreezeHere && len(f.Mountpoints) == 0 {
		if f.Mountpoints, err = w.run.mountpointsOf(v.volume); err != nil {
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
		member, err := w.mountedOn(point)
		switch {
		case err != nil:
			return err
		case member == nil || w.canNest:
			frozen.Mountpoints = append(frozen.Mountpoints, point)
		case !member.volume.IsThin():
			direct.Devices = append(direct.Devices, lvm.DMName(member.volume.VG, member.volume.Name))
			direct.Mountpoints = append(direct.Mountpoints, point)
		case len(w.unit.members) > 1:
			return fmt.Errorf("%s is mounted on the thin volume %s: together with others it can be frozen from Linux 6.8 on only",
				point, member.name())
		default:
			v.quiesced.level, v.quiesced.method = levelFilesystem, "LVM, while it makes the snapshot"
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

// hold enters a freeze for a member.
func (w *wanted) hold(f quiesce.Freeze, v *volumeRun) {
	same := func(h *hold) bool {
		return h.Name == f.Name && h.Method == f.Method && slices.Equal(h.Mountpoints, f.Mountpoints) && slices.Equal(h.Devices, f.Devices)
	}
	if i := slices.IndexFunc(w.list, same); i >= 0 {
		w.list[i].members = append(w.list[i].members, v)
		return
	}
	w.list = append(w.list, &hold{Freeze: f, members: []*volumeRun{v}})
}

// mountedOn returns the member of the unit on whose device itself a filesystem lies, or nil.
func (w *wanted) mountedOn(point string) (*volumeRun, error) {
	devices, err := w.run.LVM.DevicesOfPath(point)
	if err != nil {
		return nil, err
	}
	for _, v := range w.unit.members {
		if dev, active := v.volume.Dev(); active && slices.Contains(devices, dev) {
			return v, nil
		}
	}
	return nil, nil
}

// mountpointsOf are where filesystems of a volume are mounted on this host, one for each filesystem.
func (r *run) mountpointsOf(volume lvm.Volume) ([]string, error) {
	dev, active := volume.Dev()
	if !active {
		return nil, nil
	}
	return r.LVM.MountsOn(dev)
}

// stillSuspended makes sure that a volume that was suspended has been so up to its snapshot: LVM, which resumes it then,
// would not tell.
func (q *quietUnit) stillSuspended(v *volumeRun) {
	name := lvm.DMName(v.volume.VG, v.volume.Name)
	for _, h := range q.holds {
		if !h.held || !slices.Contains(h.Devices, name) {
			continue
		}
		suspended, err := q.run.LVM.IsSuspended(v.volume)
		if err == nil && !suspended {
			err = quiesce.ErrNotHeld
		}
		if err != nil {
			h.lost = fmt.Errorf("freeze %s: %s: %w", h.Freeze, v.name(), err)
		}
	}
}

// arm opens the session of a hold, once it is known to freeze nothing that is needed meanwhile.
func (r *run) arm(ctx context.Context, h *hold) error {
	if len(h.Mountpoints) > 0 && (h.Method == quiesce.MethodLocal || h.Method == quiesce.MethodSuspend) {
		if err := r.refuseFreeze(h.Mountpoints); err != nil {
			return fmt.Errorf("freeze %s: %w", h.Freeze, err)
		}
	}
	return quiesce.Retry(ctx, h.Retries, func() (err error) {
		h.session, err = r.Quieter.Arm(ctx, h.Freeze)
		return err
	})
}

// freeze journals a freeze and makes it. A try that failed has ended its session, so that each further one arms anew.
func (r *run) freeze(ctx context.Context, h *hold) error {
	deadline := h.Deadline
	if deadline == 0 {
		deadline = quiesce.DefaultDeadline
	}
	first := true
	return quiesce.Retry(ctx, h.Retries, func() (err error) {
		if !first {
			if h.session, err = r.Quieter.Arm(ctx, h.Freeze); err != nil {
				return err
			}
		}
		first = false
		h.over, err = r.owner.Freeze(h.Freeze, r.Now().UTC().Add(deadline), func() error { return h.session.Hold(ctx) })
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

// thaw lets everything go on, the last made quiet first, and records for each member what that proved.
func (q *quietUnit) thaw(ctx context.Context) {
	var databases, filesystems []*hold
	for _, h := range q.holds {
		if h.Method.IsDatabase() {
			databases = append(databases, h)
		} else {
			filesystems = append(filesystems, h)
		}
	}
	q.each(filesystems, func(h *hold) { q.run.thawHold(ctx, h) })
	q.each(databases, func(h *hold) { q.run.thawHold(ctx, h) })
}

func (r *run) thawHold(ctx context.Context, h *hold) {
	if h.session == nil {
		return
	}
	if !h.held {
		if err := h.close(); err != nil {
			r.warnOf(err)
		}
		return
	}
	took, err := h.session.Thaw(ctx)
	err = errors.Join(err, h.lost)
	detail := h.session.Detail()
	for _, v := range h.members {
		v.quietMu.Lock()
		if err == nil {
			v.quiesced.add(h, took, detail)
		}
		v.quietMu.Unlock()
	}
	h.problem(err)
	// Closed, it lets go whatever became of the thaw.
	if closeErr := h.close(); closeErr != nil {
		r.warnOf(say.WithHint(closeErr, "look at the guest with `fsfreeze`: writing there must work again"))
		return // stays in the journal
	}
	if err := h.over(ctx); err != nil {
		r.warnOf(err)
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
func (r *run) refuseFreeze(mountpoints []string) error {
	needed := []struct{ path, why string }{
		{"/", "it is this host's root"}, {"/etc/lvm", "LVM keeps its records there"}, {"/run", "LVM and this program keep locks there"},
		{"/var/log", "the logs lie there"}, {r.StateDir, "this program keeps its journal there"},
		{r.opts.RunDir, "this program keeps its locks there"},
	}
	for _, d := range r.opts.Destinations {
		if place, ok := store.As[located](d.Store); ok {
			needed = append(needed, struct{ path, why string }{place.Folder(), fmt.Sprintf("destination %s lies there", d.Name)})
		}
	}
	for _, point := range mountpoints {
		frozen, err := r.LVM.DevicesOfPath(point)
		if err != nil {
			return err
		}
		if len(frozen) == 0 {
			return fmt.Errorf("%s lies on no block device of this host: it cannot be frozen here", point)
		}
		for _, n := range needed {
			devices, err := r.LVM.DevicesOfPath(n.path)
			if err == nil {
				devices, err = r.LVM.DevicesUnder(devices...) // a loop device's file may lie there
			}
			if err != nil {
				return fmt.Errorf("find what holds %s: %w", n.path, err)
			}
			if slices.ContainsFunc(devices, func(d lvm.Dev) bool { return slices.Contains(frozen, d) }) {
				return say.WithHint(fmt.Errorf("%s is not frozen: %s (%s)", point, n.why, n.path),
					"leave it out, or freeze it from a guest's own hook")
			}
		}
	}
	return nil
}

// runHooks runs the hooks of a phase up to the snapshot for one volume, in the order of the configuration, until one
// fails it.
func (v *volumeRun) runHooks(ctx context.Context, phase quiesce.Phase) error {
	for _, h := range v.settings.Hooks {
		if h.Phase != phase {
			continue
		}
		if err := v.run.Quieter.RunHook(ctx, h, v.hookEnv(phase, "")); err != nil {
			if h.Must {
				return err
			}
			v.degrade(err, false)
		}
	}
	return nil
}

// runLastHooks runs the hooks for a volume that is done, whatever became of it: what those before it began may have to
// be ended. Their failures are warnings, as the backup stands or has failed already.
func (v *volumeRun) runLastHooks(ctx context.Context) {
	status := v.status(ctx)
	ctx = context.WithoutCancel(ctx)
	for _, h := range v.settings.Hooks {
		if h.Phase != quiesce.PhaseAfter && (h.Phase != quiesce.PhaseOnError || v.failure == nil) {
			continue
		}
		if err := v.run.Quieter.RunHook(ctx, h, v.hookEnv(h.Phase, status)); err != nil {
			v.warnOf(err)
		}
	}
}

// hookEnv tells a hook what it runs for.
func (v *volumeRun) hookEnv(phase quiesce.Phase, status report.VolumeStatus) []string {
	env := append(v.run.hookEnv(phase), "VOLTAR_VOLUME="+v.name(), "VOLTAR_GROUP="+v.settings.Group,
		"VOLTAR_BACKUP="+v.result.Backup, "VOLTAR_STATUS="+string(status))
	if v.snapshot.Name != "" {
		env = append(env, "VOLTAR_SNAPSHOT="+v.snapshot.DMPath)
	}
	if v.failure != nil {
		env = append(env, "VOLTAR_ERROR="+report.ProblemOf(v.failure).Message)
	}
	return env
}

func (r *run) hookEnv(phase quiesce.Phase) []string {
	return []string{"VOLTAR_PHASE=" + string(phase), "VOLTAR_RUN=" + r.id, "VOLTAR_HOST=" + r.opts.Host, "VOLTAR_CONFIG=" + r.opts.ConfigPath}
}

// runHooks runs the hooks of the run as a whole. The error says that the run must not go on.
func (r *run) runHooks(ctx context.Context, phase quiesce.Phase) error {
	failed := r.failedVolumes()
	for _, h := range r.opts.Hooks {
		if h.Phase != phase || (phase == quiesce.PhaseOnError && len(failed) == 0) {
			continue
		}
		if err := r.Quieter.RunHook(ctx, h, append(r.hookEnv(phase), "VOLTAR_FAILED="+strings.Join(failed, " "))); err != nil {
			if h.Must && phase == quiesce.PhaseBefore {
				return err
			}
			r.warnOf(err)
		}
	}
	return nil
}

// endHooks runs the last hooks of the run, also when it was stopped.
func (r *run) endHooks(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	_ = r.runHooks(ctx, quiesce.PhaseOnError) // of these phases nothing fails the run
	_ = r.runHooks(ctx, quiesce.PhaseAfter)
}

func (r *run) failedVolumes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for _, v := range r.report.Volumes {
		if v.Status != report.VolumeOK {
			names = append(names, v.Name)
		}
	}
	return names
}
