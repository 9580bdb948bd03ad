package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"voltar/internal/say"
)

// problemView is one box: a cause, what it befell, what there is to fall back on and what to do.
type problemView struct {
	Names    []string // of the volumes or the destination; none for the run
	Message  string   // may have several lines
	Hint     string   // one line for each thing that can be done
	None     []string // volumes that have no good backup at all
	Good     string   // how old the newest good backup is, or ""
	Commands []string // to type

	newest []newestGood // of those that have one
}

// newestGood is what a volume has to fall back on.
type newestGood struct {
	at     time.Time
	unseen bool // known from an earlier report alone
}

// shownNames is how many of the volumes of one cause are named.
const shownNames = 8

// shownProblems is how many causes a rendering has boxes for; the others are named.
const shownProblems = 40

// moreProblems names what there is no box for.
func moreProblems(list []problemView) string {
	var names []string
	for _, p := range list[shownProblems:] {
		names = append(names, p.Names...)
	}
	return join(": ", fmt.Sprintf("and %s more, which `voltar report --json` has", say.Count(int64(len(list)-shownProblems))),
		say.Listed(names, 3*shownNames))
}

// Name is what the box is about, for people.
func (p problemView) Name() string { return say.Listed(p.Names, shownNames) }

// First is the first line of the message.
func (p problemView) First() string { return firstLine(p.Message) }

// Rest are its other lines.
func (p problemView) Rest() []string {
	return strings.Split(p.Message, "\n")[1:]
}

// Hints are the lines of the hint: each cause may have its own.
func (p problemView) Hints() []string {
	return strings.FieldsFunc(p.Hint, func(r rune) bool { return r == '\n' })
}

// NoGood is the worst sentence that there is, or "".
func (p problemView) NoGood() string {
	if len(p.None) == 0 {
		return ""
	}
	return "THERE IS NO GOOD BACKUP OF " + say.Listed(p.None, shownNames)
}

// failures are what went wrong, each cause once; those first that leave volumes without any good backup.
func failures(run Run, loc *time.Location) []problemView {
	var list []problemView
	for _, p := range run.Errors {
		if !run.tellsOf(p.Destinations) {
			list = append(list, problemView{Message: p.Message, Hint: p.Hint, Commands: run.retry(p)})
		}
	}
	for _, d := range run.Destinations {
		if d.Error != nil {
			list = append(list, run.destinationFailure(d))
		}
	}
	for _, v := range run.notGood() {
		list = append(list, volumeFailures(v, run)...)
	}
	if missing := run.missing(); missing > 0 && run.ExitCode != interruptedCode && !run.hasNowhere() {
		p := problemView{Message: say.Counted(int64(missing), "planned volume") + " without a result"}
		p.fallBackOn(run)
		list = append(list, p)
	}
	if len(list) == 0 && run.Verdict() == VerdictFailed {
		list = append(list, problemView{Message: fmt.Sprintf("the run ended with exit code %d", run.ExitCode), Hint: "see the journal"})
	}
	list = merge(list, alike, (*problemView).add)
	for i := range list {
		list[i].finish(run, loc)
	}
	slices.SortStableFunc(list, func(a, b problemView) int { return min(len(b.None), 1) - min(len(a.None), 1) })
	return list
}

// retry is the command that does again what the run as a whole failed at.
func (r Run) retry(p Problem) []string {
	switch {
	case r.ExitCode == interruptedCode && r.makesBackups():
		return []string{"voltar run"}
	case p.Hint == "":
		return []string{"voltar check"}
	}
	return nil
}

// tellsOf says that the failures of all these destinations are told.
func (r Run) tellsOf(names []string) bool {
	for _, name := range names {
		if !slices.ContainsFunc(r.Destinations, func(d Destination) bool { return d.Name == name && d.Error != nil }) {
			return false
		}
	}
	return len(names) > 0
}

// hasNowhere says that every destination failed, which is why volumes have no result.
func (r Run) hasNowhere() bool {
	return len(r.Destinations) > 0 && !slices.ContainsFunc(r.Destinations, func(d Destination) bool { return d.Error == nil })
}

// befalls says that a copy is not there because its destination failed as a whole.
func (d Destination) befalls(c Copy) bool {
	return d.Error != nil && c.Error != nil && c.Destination == d.Name && slices.Contains(c.Error.Destinations, d.Name)
}

// destinationFailure is a destination that failed as a whole, with the volumes that are not there for that reason.
func (r Run) destinationFailure(d Destination) problemView {
	p := problemView{
		Names: []string{"destination " + d.Name}, Message: join("\n", d.Error.Message, r.absent(d)), Hint: d.Error.Hint,
		Commands: []string{"voltar check"},
	}
	for _, v := range r.Volumes {
		if slices.ContainsFunc(v.Copies, d.befalls) && !v.stands() {
			p.fallBack(v)
		}
	}
	if r.hasNowhere() && r.missing() > 0 {
		p.fallBackOn(r)
	}
	return p
}

// stands says that the volume has tonight's backup somewhere.
func (v Volume) stands() bool {
	return v.Error == nil && slices.ContainsFunc(v.Copies, func(c Copy) bool { return c.Error == nil && c.Path != "" })
}

// absent says of a destination that failed how many volumes are not there for that reason, and where they are instead.
func (r Run) absent(d Destination) string {
	var lacking, elsewhere int64
	var on map[string]bool // destinations that have all of them
	for _, v := range r.Volumes {
		if !slices.ContainsFunc(v.Copies, d.befalls) {
			continue
		}
		has := map[string]bool{}
		for _, c := range v.Copies {
			if c.Error == nil && c.Path != "" && (on == nil || on[c.Destination]) {
				has[c.Destination] = v.Error == nil
			}
		}
		lacking++
		if v.stands() {
			elsewhere++
		}
		on = has
	}
	if r.hasNowhere() {
		lacking += int64(r.missing())
	}
	switch names := slices.Sorted(maps.Keys(on)); {
	case lacking == 0:
		return ""
	case elsewhere == lacking && len(names) > 0:
		return fmt.Sprintf("missing: %s; good on %s", say.Counted(lacking, r.noun()), strings.Join(names, ", "))
	case elsewhere == 0:
		return fmt.Sprintf("missing: %s", say.Counted(lacking, r.noun()))
	default:
		return fmt.Sprintf("missing: %s, %s of them good on another destination", say.Counted(lacking, r.noun()), say.Count(elsewhere))
	}
}

// volumeFailures are the causes of a volume's own: what befell a whole destination is told with that.
func volumeFailures(v Volume, run Run) []problemView {
	var list []problemView
	told := false
	add := func(message, hint, commandLine string) {
		p := problemView{Names: []string{v.Name + v.ofGuest()}, Message: message, Hint: hint}
		if commandLine != "" && !strings.Contains(hint, commandLine) {
			p.Commands = []string{commandLine}
		}
		p.fallBack(v)
		list = append(list, p)
	}
	again := ""
	if run.makesBackups() {
		again = command("voltar run", v.Name)
	}
	if v.Error != nil && !v.tellsOf(v.Error.Destinations) {
		add(v.Error.Message, v.Error.Hint, again)
	}
	for _, c := range v.Copies {
		switch {
		case c.Error == nil:
		case v.Error != nil && strings.Contains(c.Error.Message, v.Error.Message): // what ended the volume ended the copy
		case run.tellsOf(c.Error.Destinations):
			told = true
		case run.makesBackups():
			add("destination "+c.Destination+": "+c.Error.Message, c.Error.Hint, again)
		default:
			add("destination "+c.Destination+": "+c.Error.Message, c.Error.Hint, command("voltar list", v.Name))
		}
	}
	if v.DamagedCount > 0 || len(v.DamagedFiles) > 0 {
		message, hint := damaged(v, run.makesBackups())
		add(message, hint, command("voltar list", v.Name))
	}
	switch {
	case told || len(list) > 0:
	case v.Status == VolumeSkipped && len(run.Errors) > 0: // which have the command
		add("not done: the run ended before its turn", "", "")
	case v.Status == VolumeSkipped:
		add("not done: the run ended before its turn", "", again)
	default:
		add(string(v.Status), "", again)
	}
	return list
}

// tellsOf says that the copies on all these destinations have the cause.
func (v Volume) tellsOf(names []string) bool {
	for _, name := range names {
		if !slices.ContainsFunc(v.Copies, func(c Copy) bool { return c.Destination == name && c.Error != nil }) {
			return false
		}
	}
	return len(names) > 0
}

// damaged lists files that a backup lacks: of one that was just made those that its volume did not give, else those that
// are lost where it is stored.
func damaged(v Volume, justMade bool) (message, hint string) {
	count := max(v.DamagedCount, int64(len(v.DamagedFiles)))
	lines := []string{"there is a backup, but " + say.Counted(count, "file") + " could not be read completely:"}
	hint = "check the disk under the volume; older backups have the missing data"
	if !justMade {
		lines[0] = say.Counted(count, "file") + " of the stored backup cannot be read back:"
		hint = "older backups have the missing data"
	}
	for _, name := range v.DamagedFiles {
		lines = append(lines, shorten(name, 200))
	}
	if more := count - int64(len(v.DamagedFiles)); more > 0 {
		lines = append(lines, fmt.Sprintf("and %s more", say.Count(more)))
	}
	return strings.Join(lines, "\n"), hint
}

// fallBack notes what a volume has to fall back on.
func (p *problemView) fallBack(v Volume) {
	switch {
	case v.LastGood == nil:
	case v.LastGood.IsZero():
		p.None = append(p.None, v.Name)
	default:
		p.newest = append(p.newest, newestGood{*v.LastGood, v.LastGoodUnseen})
	}
}

// fallBackOn notes what the volumes have to fall back on to which a run did not come.
func (p *problemView) fallBackOn(run Run) {
	if run.LastGood != nil {
		p.newest = append(p.newest, newestGood{*run.LastGood, true})
	}
}

func alike(a, b problemView) bool {
	return len(a.Names) > 0 && len(b.Names) > 0 && a.Message == b.Message && a.Hint == b.Hint
}

// add takes in another that has the same cause.
func (p *problemView) add(other problemView) {
	p.Names = append(p.Names, other.Names...)
	p.None = append(p.None, other.None...)
	p.newest = append(p.newest, other.newest...)
	p.Commands = append(p.Commands, other.Commands...)
}

// shownCommands is how many commands of one cause are shown, one for each volume, before one for all takes their place.
const shownCommands = 3

// finish puts into words what was gathered.
func (p *problemView) finish(run Run, loc *time.Location) {
	if len(p.Commands) > shownCommands {
		p.Commands = p.Commands[:0]
		if run.makesBackups() {
			p.Commands = append(p.Commands, "voltar run")
		}
	}
	if len(p.newest) == 0 {
		return
	}
	oldest := slices.MinFunc(p.newest, func(a, b newestGood) int { return a.at.Compare(b.at) })
	label := "newest good backup: "
	switch {
	case slices.ContainsFunc(p.newest, func(g newestGood) bool { return oldest.at.Before(g.at.Add(-time.Hour)) }):
		label = "newest good backups: the oldest of them is of "
	case len(p.newest) > 1:
		label = "newest good backups: "
	}
	p.Good = label + goodWords(oldest, run, loc)
}

func goodWords(g newestGood, run Run, loc *time.Location) string {
	text := fmt.Sprintf("%s (%s)", g.at.In(loc).Format("2006-01-02 15:04"), formatAge(run.Ended, g.at))
	switch {
	case g.unseen && run.hasNowhere():
		text += ", by an earlier report: no destination could be asked"
	case g.unseen:
		text += ", by an earlier report: this run did not look for it"
	}
	return text
}

// warnings are what should be looked at, each cause once.
func warnings(run Run) []problemView {
	var list []problemView
	for _, p := range run.Warnings {
		list = append(list, problemView{Message: p.Message, Hint: p.Hint})
	}
	for _, v := range run.Volumes {
		for _, p := range v.Warnings {
			list = append(list, problemView{Names: []string{v.Name + v.ofGuest()}, Message: p.Message, Hint: p.Hint})
		}
	}
	if len(list) == 0 && run.ExitCode == undeliveredCode {
		list = append(list, problemView{
			Message: "the report of this run could not be sent to everybody", Commands: []string{"voltar check --send-test-mail"},
		})
	}
	return merge(list, alike, (*problemView).add)
}
