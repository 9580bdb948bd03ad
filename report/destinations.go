package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"voltar/internal/say"
)

type destinationView struct {
	Name, Where string
	Room        string // how much is free, and when it will be full; "" where nothing is known
	UsedPercent int    // of the room, for a bar; -1 where nothing is known
	Lines       []string
}

func newDestinationView(run Run, d Destination, points []Point, loc *time.Location) destinationView {
	out := destinationView{Name: d.Name, Where: d.Where, UsedPercent: -1}
	if d.Error != nil {
		out.Lines = append(out.Lines, "FAILED: see above")
	}
	if d.BackupBytes >= 0 {
		text := "Total backups size: " + say.Size(d.BackupBytes)
		if _, shared := tonight(run, d.Name); shared > 0 {
			text += ", with what they share counted each time"
		}
		out.Lines = append(out.Lines, text)
	}
	if d.TotalBytes > 0 && d.FreeBytes >= 0 {
		used := float64(d.TotalBytes-d.FreeBytes) / float64(d.TotalBytes) * 100
		out.UsedPercent = int(min(max(used, 0), 100))
		out.Room = fmt.Sprintf("%s of %s free", say.Size(d.FreeBytes), say.Size(d.TotalBytes))
		out.Lines = append(out.Lines, join(". ", fmt.Sprintf("Used space: %s; %s", FormatPercent(used), out.Room),
			Forecast(points, d.Name, loc)))
	}
	out.Lines = append(out.Lines, shared(run, d.Name)...)
	out.Lines = append(out.Lines, removed(run, d.Name)...)
	if folder := commonFolder(run, d.Name); folder != "" && strings.HasPrefix(folder, d.Where+"/") {
		out.Lines = append(out.Lines, "Newest backups: "+folder)
	}
	repaired := slices.DeleteFunc(slices.Clone(d.CaughtUp), func(c CaughtUp) bool { return len(c.Repaired) == 0 })
	lacked := slices.DeleteFunc(slices.Clone(d.CaughtUp), func(c CaughtUp) bool { return len(c.Repaired) > 0 })
	out.Lines = append(out.Lines, caughtUp("Copied from other destinations", lacked)...)
	out.Lines = append(out.Lines, caughtUp("Repaired from other destinations", repaired)...)
	for i, note := range d.Notes {
		if i == shownNotes {
			out.Lines = append(out.Lines, fmt.Sprintf("and %s: `voltar report --json` has them",
				say.Counted(int64(len(d.Notes)-i), "more note")))
			break
		}
		out.Lines = append(out.Lines, note)
	}
	return out
}

// shownNotes bounds the notes of a destination.
const shownNotes = 20

// tonight is how much tonight's backups are on a destination, and what of that takes no room of its own.
func tonight(run Run, destination string) (stored, shared int64) {
	for _, v := range run.Volumes {
		for _, c := range v.Copies {
			if c.Destination == destination && c.Error == nil && c.Path != "" {
				stored += v.StoredBytes
				shared += c.SharedBytes
			}
		}
	}
	return stored, shared
}

// shared tells how much of tonight's backups is new on a destination where the rest takes no room of its own.
func shared(run Run, destination string) []string {
	stored, shared := tonight(run, destination)
	if shared == 0 {
		return nil
	}
	return []string{
		fmt.Sprintf("Tonight: %s of %s new, the rest is shared with the backups before", say.Size(stored-shared), say.Size(stored)),
	}
}

// removed sums up what retention removed on a destination, why, and how many backups there are now.
func removed(run Run, destination string) []string {
	var count, freedBytes, kept int64
	reasons := map[string]int64{}
	for _, v := range run.Volumes {
		for _, c := range v.Copies {
			if c.Destination != destination {
				continue
			}
			kept += int64(c.Kept)
			for _, r := range c.Removed {
				count++
				freedBytes += r.FreedBytes
				reasons[r.Reason]++
			}
		}
	}
	if count == 0 && (kept == 0 || !run.makesBackups()) {
		return nil
	}
	text := "no old backups removed"
	if count > 0 {
		text = say.Counted(count, "old backup") + " removed"
		if freedBytes > 0 {
			text += ", " + say.Size(freedBytes) + " freed"
		}
		if words := reasonWords(reasons); words != "" {
			text += " (" + words + ")"
		}
	}
	return []string{fmt.Sprintf("%s; %s kept", text, say.Count(kept))}
}

// reasonWords gives the reasons where they are few.
func reasonWords(reasons map[string]int64) string {
	const few = 3
	if len(reasons) > few {
		return "the reasons are in `voltar report --json`"
	}
	var words []string
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		if reason == "" {
			continue
		}
		if len(reasons) == 1 {
			return reason
		}
		words = append(words, fmt.Sprintf("%s: %s", say.Count(reasons[reason]), reason))
	}
	return strings.Join(words, "; ")
}

// commonFolder is the folder below which all of tonight's backups on a destination lie: the path of each follows from it
// and from the volume's name.
func commonFolder(run Run, destination string) string {
	common := ""
	for _, v := range run.Volumes {
		for _, c := range v.Copies {
			if c.Destination != destination || c.Path == "" || c.Error != nil || !run.makesBackups() {
				continue
			}
			if common == "" {
				common = c.Path
			}
			for common != "" && common != c.Path && !strings.HasPrefix(c.Path, common+"/") {
				common = common[:max(0, strings.LastIndexByte(common, '/'))]
			}
		}
	}
	return common
}

// shownCaughtUp is how many backups that were made up are named.
const shownCaughtUp = 5

// caughtUp tells what a destination got from others.
func caughtUp(what string, list []CaughtUp) []string {
	if len(list) == 0 {
		return nil
	}
	var bytes, shared int64
	var names []string
	for _, c := range list {
		bytes, shared = bytes+c.SizeBytes, shared+c.SharedBytes
		if len(names) < shownCaughtUp {
			names = append(names, c.Backup+" from "+c.From)
		}
	}
	if more := len(list) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	size := say.Size(bytes)
	if shared > 0 {
		size = say.Size(bytes-shared) + " of " + size + " new"
	}
	return []string{fmt.Sprintf("%s: %s, %s: %s", what, say.Counted(int64(len(list)), "backup"), size,
		strings.Join(names, ", "))}
}
