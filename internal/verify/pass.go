package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"voltar/internal/agefile"
	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/report"
)

// shownLost is how many lost files the report of a verification names.
const shownLost = 20

// Destination is a store whose backups are checked.
type Destination struct {
	catalog.Destination
	Recipients *agefile.Recipients // for whom what is written there is encrypted; nil for nobody
	Unfit      error               // why nothing may be written there: for whom, or whose it is, cannot be told
}

// Pass checks many backups on some destinations.
type Pass struct {
	Host        string
	On          []Destination
	Options     Options
	RepairIndex bool
	RunDir      string // of the locks that keep runs from removing what is repaired
	Log         *slog.Logger
	Now         func() time.Time
	Written     *catalog.Written // by which a destination is known whose folder is gone; nil where nothing is kept
}

// Checked is one backup on one destination and what was found.
type Checked struct {
	On       *Destination
	Backup   catalog.Backup // without a manifest when that cannot be read, or before Check
	Repaired []string       // files that were written again
	Result   Result
	Err      error // why nothing is known
	Ended    time.Time

	chosen *catalog.Entry // of which Check is to read the manifest; nil for one that cannot be read
}

// chosenOn is a backup that is to be checked. Manifests are read one by one, as they are checked.
func chosenOn(d *Destination, e catalog.Entry) Checked {
	return Checked{On: d, Backup: catalog.Backup{Host: e.Host, ID: e.ID, SizeBytes: e.SizeBytes, Damage: e.Damage}, chosen: &e}
}

// Good reports whether the backup was checked and nothing is wrong with it.
func (c *Checked) Good() bool { return c.Err == nil && c.Result.Good() }

// Choose lists the backups to check: those that are named, or all, or the newest of each volume. It describes each destination for
// the report. A named backup must be on one destination at least: the error is of those that are on none, beside the list of the others.
func (p *Pass) Choose(ctx context.Context, names []string, all bool) ([]Checked, []report.Destination, error) {
	var list []Checked
	var described []report.Destination
	missing := map[string][]error{} // by name, of each destination
	type answer struct {
		chosen  []Checked
		lacking map[string]error // by name
		err     error
	}
	var on []*Destination
	for i := range p.On {
		on = append(on, &p.On[i])
	}
	answers := catalog.AskAll(on, func(d *Destination) (a answer) {
		if a.err = p.Written.Vanished(ctx, d.Destination); a.err != nil {
			return a
		}
		if len(names) > 0 {
			a.chosen, a.lacking, a.err = p.named(ctx, d, names)
		} else {
			a.chosen, a.err = p.unnamed(ctx, d, all)
		}
		return a
	})
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	for i, a := range answers {
		d := on[i]
		where := report.Destination{Name: d.Name, Where: d.Store.String(), BackupBytes: -1, TotalBytes: -1, FreeBytes: -1}
		if a.err != nil {
			where.Error = report.ProblemOf(a.err)
			where.Error.Message = store.Whole(a.err).Error()
			say.Log(p.Log.Error, catalog.At(d.Name, a.err))
		}
		for name, err := range a.lacking {
			missing[name] = append(missing[name], err)
		}
		list = append(list, a.chosen...)
		described = append(described, where)
	}
	var unfound []error
	for _, name := range names {
		if len(missing[name]) == len(on) || len(list) == 0 {
			unfound = append(unfound, missing[name]...)
			delete(missing, name)
		}
	}
	return list, described, errors.Join(unfound...)
}

// named lists the backups of some names on one destination. lacking is of those that it does not have; another may.
func (p *Pass) named(ctx context.Context, d *Destination, names []string) (
	list []Checked, lacking map[string]error, err error,
) {
	lacking = map[string]error{}
	for _, text := range names {
		listing, err := catalog.ListNamed(ctx, d.Store, p.Host, text, catalog.Filter{Now: p.Now()})
		if err != nil {
			return list, lacking, err
		}
		b, err := catalog.ResolveIn(ctx, d.Store, listing, text)
		u := slices.IndexFunc(listing.Unreadable, func(u catalog.Unreadable) bool { return errors.Is(err, u.Err) })
		switch {
		case err == nil:
			list = append(list, chosenOn(d, b))
		case u >= 0:
			list = append(list, unreadable(d, listing.Host, listing.Unreadable[u]))
		case !errors.Is(err, catalog.ErrNotFound):
			return list, lacking, err
		default:
			lacking[text] = catalog.At(d.Name, err)
		}
	}
	return list, lacking, nil
}

// unnamed lists all backups of one destination, or the newest of each volume.
func (p *Pass) unnamed(ctx context.Context, d *Destination, all bool) ([]Checked, error) {
	filter := catalog.Filter{Newest: 1, Now: p.Now()}
	if all {
		filter.Newest = 0
	}
	listing, err := catalog.List(ctx, d.Store, p.Host, filter)
	if err != nil {
		return nil, err
	}
	var list []Checked
	for _, b := range listing.Backups {
		list = append(list, chosenOn(d, b))
	}
	for _, u := range listing.Unreadable {
		list = append(list, unreadable(d, listing.Host, u))
	}
	if len(list) == 0 { // and not only none of what this user may read
		_, err = catalog.Hosts(ctx, d.Store)
	}
	return list, err
}

// unreadable is the result for a backup whose manifest cannot be used, which is all that there is to say of it. Of a
// stranger's nothing is known: it may be whole.
func unreadable(d *Destination, host string, u catalog.Unreadable) Checked {
	c := Checked{On: d, Backup: catalog.Backup{Host: host, ID: u.ID}, Ended: time.Now().UTC()}
	if errors.Is(u.Err, catalog.ErrUntrusted) {
		c.Err = u.Err
		return c
	}
	c.Result.Findings = []Finding{{File: catalog.ManifestName, Message: u.Err.Error()}}
	return c
}

// SizeBytes is about how much Check will read of some backups: less where a level reads only parts.
func (p *Pass) SizeBytes(list []Checked) (total int64) {
	for _, c := range list {
		total += c.Backup.SizeBytes
	}
	switch p.Options.Level {
	case Quick:
		return 0
	case Sample:
		return total * int64(p.Options.SamplePercent) / 100
	}
	return total
}

// Check checks one backup, and once more after its indexes were repaired, where that is asked for and needed.
func (p *Pass) Check(ctx context.Context, c *Checked) {
	if c.chosen == nil {
		return
	}
	defer func() { c.Ended = time.Now().UTC() }()
	b, err := c.chosen.Load(ctx, c.On.Store)
	if err != nil {
		*c = c.unread(err)
		return
	}
	c.Backup = b
	c.Result, c.Err = Backup(ctx, c.On.Store, c.Backup, p.Options)
	if c.Err != nil || !c.Result.Repair || !p.RepairIndex {
		return
	}
	written, amended, err := p.repair(ctx, c)
	c.Repaired = written
	if err != nil {
		c.Result.Notes = append(c.Result.Notes, "the index was not repaired: "+err.Error())
	}
	if len(written) > 0 && err == nil {
		c.Backup = amended
		c.Result, c.Err = Backup(ctx, c.On.Store, amended, p.Options)
	}
}

// unread is the result for a backup whose manifest could be read when it was listed, and no more.
func (c *Checked) unread(err error) Checked {
	if !catalog.IsVerdict(err) {
		return Checked{On: c.On, Backup: c.Backup, Err: err}
	}
	return unreadable(c.On, c.Backup.Host, catalog.Unreadable{ID: c.Backup.ID, Path: c.Backup.Path(), Err: err})
}

// repair repairs the indexes of one backup under the locks that keep runs from removing it meanwhile.
func (p *Pass) repair(ctx context.Context, c *Checked) (written []string, amended catalog.Backup, err error) {
	if c.On.Unfit != nil {
		return nil, c.Backup, c.On.Unfit
	}
	unlock, err := journal.LockBackup(ctx, p.RunDir, "voltar verify", c.Backup.ID.Ref.String(), c.On.Store.String())
	if err != nil {
		return nil, c.Backup, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return RepairIndexes(ctx, c.On.Store, c.Backup, Keys{Decrypt: p.Options.Decrypt, Recipients: c.On.Recipients})
}

// Remember notes what was found for the commands that come after, and forgets backups that are no longer there.
func (p *Pass) Remember(ctx context.Context, notes *Notes, list []Checked) error {
	known, err := notes.All()
	var failed []error
	if err != nil {
		failed = append(failed, err)
	}
	for _, c := range list {
		if c.Err != nil {
			continue // nothing is known
		}
		note := Note{Backup: catalog.Place(c.On.Store, c.Backup.Path()), Found: c.Ended.UTC(), Level: p.Options.Level}
		if !c.Result.Good() {
			note.What = c.Result.Findings[0].String()
		}
		failed = append(failed, notes.Enter(note))
		delete(known, note.Backup)
	}
	for backup := range known {
		for _, d := range p.On {
			folder, ours := strings.CutPrefix(backup, catalog.Place(d.Store, p.Host)+"/")
			if !ours {
				continue
			}
			_, err := d.Store.Stat(ctx, path.Join(p.Host, folder, catalog.ManifestName))
			if errors.Is(err, store.ErrNotExist) {
				failed = append(failed, notes.Forget(backup))
			}
		}
	}
	return errors.Join(failed...)
}

// Describe enters what was found into the report: one line for each volume, with all its backups that were checked.
func Describe(run *report.Run, list []Checked) {
	volumes := map[string]*report.Volume{}
	started := run.Started
	for _, c := range list {
		name := c.Backup.ID.Ref.String()
		volume := volumes[name]
		if volume == nil {
			volume = &report.Volume{Name: name, Status: report.VolumeOK, Started: started}
			volumes[name] = volume
		}
		volume.Ended, started = c.Ended, c.Ended
		volume.Backup = c.Backup.ID.String()
		volume.ReadBytes += c.Result.ReadBytes
		volume.StoredBytes += c.Backup.SizeBytes
		volume.PreviousStoredBytes = volume.StoredBytes
		if c.Backup.Manifest != nil {
			volume.SizeBytes = c.Backup.Manifest.Source.SizeBytes
			for _, x := range c.Backup.Manifest.Extents {
				volume.Entries += x.Entries
			}
		}
		volume.Copies = append(volume.Copies, c.copy())
		c.noteLost(volume)
		if !c.Good() {
			volume.Status = report.VolumeDamaged
		} else if volume.Status == report.VolumeOK {
			volume.LastVerified = c.Ended
		}
	}
	for _, volume := range volumes {
		run.Volumes = append(run.Volumes, *volume)
	}
	slices.SortFunc(run.Volumes, func(a, b report.Volume) int { return strings.Compare(a.Name, b.Name) })
	run.PlannedVolumes = len(run.Volumes)
}

// copy describes the backup on its destination.
func (c *Checked) copy() report.Copy {
	copied := report.Copy{Destination: c.On.Name, Path: catalog.Place(c.On.Store, c.Backup.Path())}
	if c.Err != nil {
		copied.Error = report.ProblemOf(fmt.Errorf("%s: %w", c.Backup.ID, c.Err))
		var whole *store.WholeError
		if errors.As(c.Err, &whole) {
			copied.Error.Destinations = []string{c.On.Name}
		}
		return copied
	}
	if c.Result.Good() {
		return copied
	}
	message := fmt.Sprintf("%s: %s", c.Backup.ID, c.Result.Findings[0])
	switch more := len(c.Result.Findings) - 1; {
	case more == 1:
		message += ", and 1 more finding"
	case more > 1:
		message += fmt.Sprintf(", and %d more findings", more)
	}
	hint := "take an older backup for what is lost here, and check the destination's disk\n" +
		"the next run repairs it from another destination that has it whole, or `voltar copy` does"
	if c.Result.Repair {
		hint = "`voltar verify --repair-index` makes an index again from its archive"
	}
	copied.Error = &report.Problem{Message: message, Hint: hint}
	return copied
}

func (c *Checked) noteLost(volume *report.Volume) {
	volume.DamagedCount += int64(len(c.Result.Lost)) + c.Result.Omitted
	for _, l := range c.Result.Lost {
		if len(volume.DamagedFiles) == shownLost {
			return
		}
		volume.DamagedFiles = append(volume.DamagedFiles, l.String())
	}
}

// String is for people: "FILE: what is wrong".
func (f Finding) String() string {
	if f.File == "" {
		return f.Message
	}
	return f.File + ": " + f.Message
}

// String is the path of a lost file for people: "p1:/etc/fstab".
func (l Lost) String() string {
	name := "/" + l.Path
	switch l.Path {
	case "":
		name = "(its name is lost too)"
	case ".":
		name = "/"
	}
	if l.Extent != "" {
		name = l.Extent + ":" + name
	}
	return name
}
