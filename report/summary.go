package report

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"voltar/internal/say"
)

// interruptedCode is the exit code of a run that was stopped and has cleaned up.
const interruptedCode = 130

// undeliveredCode is the exit code of a run whose backups are good but whose report could not be sent.
const undeliveredCode = 5

// subjectLimit is the longest subject in characters: what still fits one line of most mail programs, with some of a
// cause in it.
const subjectLimit = 120

// Verdict gives the outcome of the run. It is worked out from the results, so that no result can be at odds with it.
func (r Run) Verdict() Verdict {
	switch {
	case r.ExitCode == interruptedCode:
		return VerdictInterrupted
	case len(r.Errors) > 0 || len(r.notGood()) > 0 || r.missing() > 0 || r.failedDestination() != "":
		return VerdictFailed
	case r.ExitCode != 0 && r.ExitCode != undeliveredCode:
		return VerdictFailed
	case r.ExitCode == undeliveredCode || r.warningCount() > 0:
		return VerdictWarning
	default:
		return VerdictOK
	}
}

// makesBackups tells the runs that add to the backups from those that check or restore them.
func (r Run) makesBackups() bool { return r.Command == "run" || r.Command == "" }

// notGood gives the volumes that do not have a complete backup on every destination.
func (r Run) notGood() []Volume {
	var bad []Volume
	for _, v := range r.Volumes {
		if !v.Good() {
			bad = append(bad, v)
		}
	}
	return bad
}

// NotGood gives the names of the volumes that do not have a complete backup of this run on every destination.
func (r Run) NotGood() []string {
	var names []string
	for _, v := range r.notGood() {
		names = append(names, v.Name)
	}
	return names
}

// Good tells whether the volume has a complete backup of this run on every destination.
func (v Volume) Good() bool {
	if v.Status != VolumeOK || v.Error != nil {
		return false
	}
	for _, c := range v.Copies {
		if c.Error != nil {
			return false
		}
	}
	return true
}

// planned counts the volumes that the run was to do.
func (r Run) planned() int { return max(r.PlannedVolumes, len(r.Volumes)) }

// missing counts the volumes that were planned and of which there is no result.
func (r Run) missing() int { return r.planned() - len(r.Volumes) }

func (r Run) failedDestination() string {
	for _, d := range r.Destinations {
		if d.Error != nil {
			return d.Name
		}
	}
	return ""
}

func (r Run) warningCount() int {
	n := len(r.Warnings)
	for _, v := range r.Volumes {
		n += len(v.Warnings)
	}
	return n
}

// storedBytes is the size of tonight's backups on one destination.
func (r Run) storedBytes() int64 {
	var sum int64
	for _, v := range r.Volumes {
		sum += v.StoredBytes
	}
	return sum
}

// Bounds of names in the subject, so that there is room for the cause behind them.
const (
	hostLimit = 24 // characters
	nameLimit = 24
)

// Subject gives the run in one line, status first, as mails and lists of runs show it:
// "[voltar] host: FAILED 1 of 12: volume-00000019: cannot create …". The size is that of tonight's backups. Long names are
// cut in their middle before the cause is cut; of a long cause, the innermost stays.
func Subject(run Run) string {
	run = cleaned(run)
	host := run.Host
	if host == "" {
		host = "unknown host"
	}
	command := ""
	if run.Command != "" && run.Command != "run" {
		command = run.Command + " "
	}
	status, why := run.status()
	subject := fmt.Sprintf("[voltar] %s: %s%s", squeeze(host, hostLimit), command, status)
	if why != "" {
		subject += ": " + fitCause(why, subjectLimit-utf8.RuneCountInString(subject+": "))
	}
	return shorten(subject, subjectLimit)
}

// fitCause cuts a chain of causes to so many characters: its beginning and its innermost cause stay.
func fitCause(chain string, limit int) string {
	const between = "…: "
	if utf8.RuneCountInString(chain) <= limit {
		return chain
	}
	links := strings.Split(chain, ": ")
	inner := links[len(links)-1]
	for i := len(links) - 2; i > 0; i-- {
		longer := links[i] + ": " + inner
		if utf8.RuneCountInString(longer) > 2*limit/3 {
			break
		}
		inner = longer
	}
	head := limit - utf8.RuneCountInString(between+inner)
	if len(links) == 1 || head < limit/4 { // a long word, of which the beginning says most
		return shorten(chain, limit)
	}
	outer := string([]rune(chain)[:head])
	if at := strings.LastIndex(outer, ": "); len(outer)-at < 14 { // of a link that is cut to a few letters nothing is read
		return outer[:at+2] + between + inner
	}
	return strings.TrimRight(outer, " :") + between + inner
}

// status is the part of the subject after the host: the verdict, and what is to blame or "". The run is clean.
func (r Run) status() (verdict, why string) {
	volumes := ""
	if r.planned() > 0 { // a test mail is of none
		volumes = fmt.Sprintf(" %s, %s", say.Counted(int64(r.planned()), r.noun()), say.Size(r.storedBytes()))
	}
	bad := len(r.notGood()) + r.missing()
	switch r.Verdict() {
	case VerdictOK:
		return "OK" + volumes, ""
	case VerdictWarning:
		return "OK" + volumes, r.because()
	case VerdictInterrupted:
		return fmt.Sprintf("INTERRUPTED, %d of %s good", r.planned()-bad, say.Counted(int64(r.planned()), r.noun())), ""
	}
	if bad > 0 {
		return fmt.Sprintf("FAILED %d of %d", bad, r.planned()), r.because()
	}
	return "FAILED", r.because()
}

// because names what is to blame: the worst volume with its cause, or else the first problem of the
// run or of a destination.
func (r Run) because() string {
	bad := r.notGood()
	common := len(bad) == r.planned() && (len(r.Errors) > 0 || r.failedDestination() != "")
	switch {
	case common: // what befell all of them at once says more than their names
	case len(bad) > 0:
		worst := bad[0]
		if at := slices.IndexFunc(bad, func(v Volume) bool { return v.LastGood != nil && v.LastGood.IsZero() }); at >= 0 {
			worst = bad[at]
		}
		said := regexp.MustCompile(" of " + regexp.QuoteMeta(worst.Name) + "($|[ :;,])") // just before
		text := squeeze(r.shortName(worst.Name), nameLimit) + ": " + said.ReplaceAllString(worst.cause(), "$1")
		if more := len(bad) - 1; more > 0 {
			text += fmt.Sprintf(" (and %d more)", more)
		}
		return text
	}
	for _, p := range r.Errors {
		if !r.tellsOf(p.Destinations) {
			return firstLine(p.Message)
		}
	}
	for _, d := range r.Destinations {
		if d.Error != nil {
			return "destination " + squeeze(d.Name, nameLimit) + ": " + firstLine(d.Error.Message)
		}
	}
	if r.ExitCode == undeliveredCode && r.warningCount() == 0 {
		return "the report could not be sent to everybody"
	}
	for _, p := range r.Warnings {
		return firstLine(p.Message)
	}
	for _, v := range r.Volumes {
		for _, p := range v.Warnings {
			return squeeze(r.shortName(v.Name), nameLimit) + ": " + firstLine(p.Message)
		}
	}
	return ""
}

// cause is the first line of what went wrong with a volume: on its destinations, where they have the cause.
func (v Volume) cause() string {
	if v.Error != nil && !v.tellsOf(v.Error.Destinations) {
		return firstLine(v.Error.Message)
	}
	for _, c := range v.Copies {
		if c.Error != nil {
			return firstLine("destination " + c.Destination + ": " + c.Error.Message)
		}
	}
	if v.DamagedCount > 0 {
		return say.Counted(v.DamagedCount, "damaged file")
	}
	return string(v.Status)
}

// shortName leaves out the volume group where the volume's own name is enough to know it by.
func (r Run) shortName(name string) string {
	vg, lv, ok := strings.Cut(name, "/")
	if !ok || strings.HasPrefix(vg, "@") {
		return name
	}
	for _, v := range r.Volumes {
		if v.Name != name && strings.HasSuffix(v.Name, "/"+lv) {
			return name
		}
	}
	return lv
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// headline is the verdict in words. The run is clean.
func (r Run) headline() string {
	planned, bad := int64(r.planned()), int64(len(r.notGood())+r.missing())
	where, command := " on "+r.Host, ""
	if !r.makesBackups() {
		command = r.Command + " "
	}
	verdict := map[Verdict]string{VerdictOK: "OK", VerdictWarning: "OK, with something to look at"}[r.Verdict()]
	if verdict != "" && planned == 0 {
		return command + verdict + where
	}
	switch r.Verdict() {
	case VerdictOK, VerdictWarning:
		return command + fmt.Sprintf("%s: %s%s, %s", verdict, say.Counted(planned, r.noun()), where, say.Size(r.storedBytes()))
	case VerdictInterrupted:
		return command + fmt.Sprintf("INTERRUPTED: %d of %s%s good, the rest not done", planned-bad, say.Counted(planned, r.noun()), where)
	}
	if bad == 0 {
		return command + "FAILED" + where
	}
	text := command + fmt.Sprintf("FAILED: %d of %s%s", bad, say.Counted(planned, r.noun()), where)
	if elsewhere := r.goodElsewhere(); elsewhere > 0 {
		text += fmt.Sprintf(" (%d of them good on another destination)", elsewhere)
	}
	return text
}

// goodElsewhere counts the volumes that some destinations have a complete backup of, and others lack.
func (r Run) goodElsewhere() int {
	n := 0
	for _, v := range r.notGood() {
		if v.Error == nil && (v.Status == VolumeOK || v.Status == VolumePartial) &&
			slices.ContainsFunc(v.Copies, func(c Copy) bool { return c.Error == nil && c.Path != "" }) {
			n++
		}
	}
	return n
}
