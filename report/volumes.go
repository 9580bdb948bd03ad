package report

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"voltar/internal/say"
)

// volumesView are the volumes of a run: those that are not good with all that is known of them, then the good ones.
type volumesView struct {
	Column  string // what Word of a volume stands below
	NotGood []volumeView
	More    string      // what of them a rendering has no room for
	Groups  []groupView // the good ones, by volume group
}

// volumeView is one line, and details of a volume that is not good.
type volumeView struct {
	Name     string // of a good one without its group
	Word     string // status for people; of a good backup, how it is proven
	Duration string
	Size     string
	Change   string
	Newest   string // how old the newest good backup of one is that is not good
	None     bool   // it has none
	Details  []string

	changedBytes int64 // how much larger or smaller it is than the last one
}

// groupView are the good volumes of one volume group, or of what is no volume.
type groupView struct {
	Name    string // "nova-volumes", "@directory"
	Summary string
	Volumes []volumeView
}

func newVolumesView(run Run) volumesView {
	out := volumesView{Column: "RESULT"}
	if run.makesBackups() {
		out.Column = "PROVEN, BACK IN"
	}
	good := map[string][]Volume{}
	for _, v := range run.Volumes {
		if !v.Good() {
			shown := newVolumeView(v, run)
			if v.Error == nil || !v.tellsOf(v.Error.Destinations) { // else all that there is to say is told with the destinations
				shown.Details = details(v, run)
			}
			if v.LastGood != nil && v.LastGood.IsZero() {
				shown.Newest, shown.None = "no good backup", true
			} else if v.LastGood != nil {
				shown.Newest = "good " + formatAge(run.Ended, *v.LastGood)
			}
			out.NotGood = append(out.NotGood, shown)
			continue
		}
		group, _, _ := strings.Cut(v.Name, "/")
		good[group] = append(good[group], v)
	}
	slices.SortStableFunc(out.NotGood, func(a, b volumeView) int { // the worst first
		switch {
		case a.None == b.None:
			return 0
		case a.None:
			return -1
		}
		return 1
	})
	for _, name := range slices.Sorted(maps.Keys(good)) {
		group := groupView{Name: name, Summary: groupSummary(good[name], run.Ended, run.makesBackups())}
		for _, v := range good[name] {
			shown := newVolumeView(v, run)
			if _, lv, found := strings.Cut(v.Name, "/"); found {
				shown.Name = lv + v.ofGuest()
			}
			group.Volumes = append(group.Volumes, shown)
		}
		out.Groups = append(out.Groups, group)
	}
	return out
}

// groupSummary counts the volumes, what was stored of them, and when they were proven.
func groupSummary(volumes []Volume, now time.Time, justMade bool) string {
	var stored int64
	var carried Carried
	for _, v := range volumes {
		stored += v.StoredBytes
		if v.Carried != nil {
			carried.Bytes += v.Carried.Bytes
			carried.NewBytes += v.Carried.NewBytes
		}
	}
	last, unproven := oldestProof(volumes)
	oldest := last.LastProven()
	text := fmt.Sprintf("%s, %s", say.Counted(int64(len(volumes)), "good "+nounOf(namesOf(volumes))), say.Size(stored))
	if carried.Bytes > 0 {
		text += fmt.Sprintf(", %s of %s new", say.Size(carried.NewBytes), say.Size(carried.NewBytes+carried.Bytes))
	}
	if !justMade {
		return text
	}
	switch n := len(volumes); {
	case unproven == n:
		return text + ", never proven"
	case unproven > 0:
		return fmt.Sprintf("%s, %s never proven, the others within %s", text, say.Count(int64(unproven)),
			strings.TrimSuffix(formatAge(now, oldest.Add(-time.Hour)), " ago"))
	case n > 1:
		return text + ", each proven within " + strings.TrimSuffix(formatAge(now, oldest.Add(-time.Hour)), " ago")
	}
	return text + ", proven " + formatAge(now, oldest)
}

func newVolumeView(v Volume, run Run) volumeView {
	out := volumeView{Name: v.Name + v.ofGuest(), Word: statusWord(v), Duration: "-", Size: "-", Change: "-"}
	if run.makesBackups() && v.Good() {
		out.Word = v.proofWords(run.Ended)
	}
	if !v.Started.IsZero() && !v.Ended.IsZero() {
		out.Duration = FormatDuration(v.Ended.Sub(v.Started))
	}
	if stands := v.Backup != "" || v.StoredBytes > 0; stands {
		out.Size = say.Size(v.StoredBytes)
		if run.makesBackups() {
			out.Change = change(v.StoredBytes, v.PreviousStoredBytes)
			out.changedBytes = abs(v.StoredBytes - max(v.PreviousStoredBytes, 0))
		}
	}
	return out
}

func statusWord(v Volume) string {
	switch {
	case v.Status == VolumeOK && !v.Good():
		return "PARTIAL"
	case v.Status == VolumeOK:
		return "ok"
	case v.Status == VolumeSkipped:
		return "NOT DONE"
	default:
		return strings.ToUpper(string(v.Status))
	}
}

// change tells tonight's size against the last one's.
func change(now, before int64) string {
	switch {
	case before < 0:
		return "first"
	case now == before:
		return "same"
	case before == 0:
		return "was 0"
	}
	percent := (float64(now) - float64(before)) / float64(before) * 100
	switch {
	case percent >= 1000:
		return "> 999 %"
	case math.Abs(percent) < 0.1:
		return FormatPercent(math.Abs(percent)) // less than what is shown has no direction worth a sign
	case percent > 0:
		return "+" + FormatPercent(percent)
	}
	return FormatPercent(percent)
}

// details is everything about a volume that is worth a few words where it is not good.
func details(v Volume, run Run) []string {
	var list []string
	if v.Entries > 0 {
		list = append(list, say.Counted(v.Entries, "file"))
	}
	if v.Snapshot != nil {
		list = append(list, snapshotWords(*v.Snapshot))
	}
	if v.Quiesce != "" && v.Error == nil {
		list = append(list, v.Quiesce)
	}
	for _, c := range v.Copies {
		if c.Error == nil && c.Path != "" {
			list = append(list, "good on "+c.Destination+": "+c.Path)
		}
		if c.Error == nil && c.Kept > 0 && len(v.Copies) > 1 {
			list = append(list, fmt.Sprintf("%d kept on %s", c.Kept, c.Destination))
		} else if c.Error == nil && c.Kept > 0 {
			list = append(list, fmt.Sprintf("%d kept", c.Kept))
		}
	}
	damagedSince := v.LastDamaged.After(v.LastProven())
	none := v.LastGood != nil && v.LastGood.IsZero() // what was verified is gone
	if v.Status == VolumeSkipped || !run.makesBackups() || none && !damagedSince {
		return list
	}
	return append(list, proof(v, run.Ended))
}

// Long says that the name and the figures do not fit one line of a telephone.
func (v volumeView) Long() bool { return utf8.RuneCountInString(v.Name) > 22 }

// proof says when a backup of the volume was last read back, and how that ended.
func proof(v Volume, now time.Time) string {
	switch last := v.LastProven(); {
	case v.LastDamaged.After(last):
		return "verify found damage " + formatAge(now, v.LastDamaged)
	case last.IsZero():
		return "never proven"
	case v.LastRestored.Equal(last):
		return "restored " + formatAge(now, last)
	default:
		return "verified " + formatAge(now, last)
	}
}

func snapshotWords(s Snapshot) string {
	text := fmt.Sprintf("%s snapshot, peak %s", s.Kind, FormatPercent(s.PeakPercent))
	if s.SizeBytes > 0 {
		text += " of " + say.Size(s.SizeBytes)
	}
	if s.SuggestedBytes > 0 && s.PeakPercent >= nearlyFull {
		text += ", suggested " + say.Size(s.SuggestedBytes)
	}
	return join(", ", text, s.Note)
}

// nearlyFull is from what percentage on a snapshot that went well is told of, and a larger one suggested.
const nearlyFull = 60

// known is what is well and worth knowing all the same.
func known(run Run) []string {
	var list []string
	if changed := changedGuests(run); len(changed) > 0 {
		list = append(list, "the definition of "+say.Listed(changed, shownKnown)+" has changed since the last backup")
	}
	for _, v := range run.Volumes {
		if !v.Good() {
			continue
		}
		for _, x := range v.Extents {
			if x.ByHandBytes > 0 {
				list = append(list, fmt.Sprintf("%s: standard tools need %s to restore %s, voltar needs %s", v.Name, say.Size(x.ByHandBytes),
					cmp.Or(x.Name, "it"), say.Size(x.SizeBytes)))
			}
		}
		if s := v.Snapshot; s != nil && (s.PeakPercent >= nearlyFull || s.Note != "") {
			list = append(list, v.Name+": "+snapshotWords(*s))
		}
		if run.makesBackups() && v.LastDamaged.After(v.LastProven()) {
			list = append(list, fmt.Sprintf("%s: verify found one of its backups damaged %s", v.Name, formatAge(run.Ended, v.LastDamaged)))
		}
	}
	if more := len(list) - shownKnown; more > 0 {
		list = append(list[:shownKnown], fmt.Sprintf("and %s more of the kind: `voltar report --json` has them", say.Count(int64(more))))
	}
	return list
}

// changedGuests are the guests that are defined otherwise than at their last backup.
func changedGuests(run Run) []string {
	var list []string
	for _, v := range run.Volumes {
		if g := v.Guest; g != nil && g.DefinitionChanged && !slices.Contains(list, shorten(g.Name, guestNameLimit)) {
			list = append(list, shorten(g.Name, guestNameLimit))
		}
	}
	return list
}

// shownKnown bounds what is worth knowing.
const shownKnown = 12

// kind of what is not stored as files.
type kind struct {
	state, what, reason string
	noun                string // for whom the kind is of whole sources
}

// ledger lists what is not stored as files, by kind. Names are those of what is rare, has failed or was left out.
func ledger(run Run) []string {
	type found struct {
		sizeBytes int64
		names     []string
	}
	kinds := map[kind]*found{}
	var order []kind
	add := func(k kind, name string, sizeBytes int64) {
		if kinds[k] == nil {
			kinds[k] = &found{}
			order = append(order, k)
		}
		kinds[k].sizeBytes += sizeBytes
		kinds[k].names = append(kinds[k].names, name)
	}
	for _, v := range run.Volumes {
		if v.Error != nil {
			continue // nothing of it is stored, which the failures say
		}
		for _, x := range v.Extents {
			if x.State != "files" {
				add(kind{state: x.State, what: x.What, reason: x.Reason}, strings.TrimSpace(v.Name+" "+x.Name), x.SizeBytes)
			}
		}
		noun := nounOf([]string{v.Name})
		if v.Ledger.ExcludedBytes > 0 {
			add(kind{state: "patterns", noun: noun}, v.Name, v.Ledger.ExcludedBytes)
		}
		if v.Ledger.FailedBytes > 0 {
			add(kind{state: "unread", noun: noun}, v.Name, v.Ledger.FailedBytes)
		}
	}
	var lines []string
	for _, k := range order {
		f := kinds[k]
		text := join(": ", fmt.Sprintf("%s, %s", k.count(len(f.names)), say.Size(f.sizeBytes)), k.reason)
		if k.surprises() || len(f.names) <= shownRare {
			text += " (" + say.Listed(f.names, shownNames) + ")"
		}
		lines = append(lines, text)
	}
	if more := len(lines) - shownKinds; more > 0 {
		lines = append(lines[:shownKinds], fmt.Sprintf("and %s more kinds: `voltar report --json` has them", say.Count(int64(more))))
	}
	return lines
}

const (
	shownRare  = 2  // up to how many of a kind are named
	shownKinds = 30 // bounds the ledger
)

func (k kind) surprises() bool {
	return k.state == "failed" || k.state == "excluded" || k.state == "patterns" || k.state == "unread"
}

// count gives "60 swap areas", "3 images of ntfs".
func (k kind) count(n int) string {
	switch k.state {
	case "swap":
		return say.Counted(int64(n), "swap area")
	case "lvm":
		return say.Counted(int64(n), "physical volume")
	case "table":
		return say.Counted(int64(n), "partition table")
	case "patterns":
		return say.Counted(int64(n), k.noun) + " with files excluded by patterns"
	case "unread":
		return say.Counted(int64(n), k.noun) + " with data that could not be read"
	case "excluded", "failed":
		return say.Counted(int64(n), k.state+" extent") + k.of()
	}
	return say.Counted(int64(n), cmp.Or(k.state, "extent")) + k.of()
}

func (k kind) of() string {
	if k.what == "" || k.what == "unknown" || k.what == "unpartitioned" { // which the reason says
		return ""
	}
	return " of " + k.what
}

// changedMost is from how many bytes on the size of a good volume has changed as much as that of the first few.
func (v volumesView) changedMost(few int) int64 {
	var sizes []int64
	for _, g := range v.Groups {
		for _, volume := range g.Volumes {
			sizes = append(sizes, volume.changedBytes)
		}
	}
	slices.Sort(sizes)
	return max(1, sizes[max(0, len(sizes)-few)])
}
