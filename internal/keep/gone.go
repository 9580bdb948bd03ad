package keep

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/clock"
	"voltar/internal/durable"
	"voltar/internal/say"
	"voltar/report"
)

// Vanished says when the backups of volumes that are gone end.
type Vanished struct {
	// Keep is for how long they outlive their volume; 0 keeps them. It is counted in days on which a run saw that the
	// volume is gone, and no clock that jumps makes more of them.
	Keep     time.Duration
	StateDir string // of the host; the days are remembered there
}

// days is how many distinct days a run must have seen it. The first of them is the night after the last backup, when
// nothing of the time is over yet.
func (v Vanished) days() int {
	const day = 24 * time.Hour
	return int((v.Keep+day-1)/day) + 1
}

// isOver tells whether the backups of a volume that was seen to be gone have come to their end.
func (v Vanished) isOver(s sighting) bool { return v.Keep > 0 && s.Days >= v.days() }

// Gone reports the volumes of which a destination has backups and the host no more, and ends those backups where Vanished
// gives them an end. A volume is seen to be gone only when its group is here, and whole: a disk that is missing tonight may
// be back tomorrow.
func (k *Keeper) Gone(ctx context.Context, d Destination, present Present, v Vanished) (gone []report.Gone, warnings []report.Problem) {
	seen, err := v.read(d)
	if err != nil {
		warnings = append(warnings, report.Problem{
			Message: fmt.Sprintf("for how long volumes are gone that have backups on %s is counted anew: %v", d.Name, err)})
	}
	counted := sightings{}
	for _, h := range d.Stock.Histories(nil) {
		if _, isLive := present.Volumes[h.Identity]; isLive || h.Ref.Kind != catalog.SourceVolume {
			continue
		}
		line := report.Gone{Name: h.Ref.String(), Backups: len(h.Entries), Note: "on " + d.Name}
		if newest, ok := h.Newest(k.Now()); ok {
			line.Newest = newest.ID.Time
		}
		if present.names(h.Ref.String()) {
			line.Note += ", of the volume that had this name before; it was made anew since"
		}
		if v.Keep > 0 {
			s := seen[h.Identity]
			whole, isHere := present.Groups[h.Identity.VGUUID()]
			if whole {
				s = s.on(k.Now())
			}
			if v.isOver(s) {
				removed, held, err := k.end(ctx, d, h)
				if err != nil {
					err = say.WithHint(fmt.Errorf("backups of %s, which is gone, on %s: %w", h.Ref, d.Name, err), "`voltar forget` tries again")
					warnings = append(warnings, *report.ProblemOf(err))
				}
				line.Note += fmt.Sprintf("; %d removed, as vanished_keep is over", removed)
				if held > 0 {
					line.Note += fmt.Sprintf(", and %d held by object lock", held)
				}
			} else if s.Days > 0 {
				line.Note += fmt.Sprintf("; seen to be gone on %s, and removed on day %d", say.Counted(s.Days, "day"), v.days())
			}
			switch {
			case v.isOver(s) || whole:
			case isHere:
				line.Note += "; today does not count, as its volume group lacks disks, or lvm2 could not read everything"
			default:
				line.Note += "; today does not count, as its volume group is not on this host"
			}
			if s.Days > 0 && len(d.Stock.History(h.Identity)) > 0 {
				counted[h.Identity] = s
			}
		}
		gone = append(gone, line)
	}
	if err := v.write(d, seen, counted); err != nil {
		warnings = append(warnings, report.Problem{
			Message: fmt.Sprintf("for how long volumes are gone that have backups on %s could not be noted: %v", d.Name, err),
			Hint:    "their backups stay for longer",
		})
	}
	return gone, warnings
}

// end removes all backups of a volume.
func (k *Keeper) end(ctx context.Context, d Destination, h catalog.History) (removed, held int, err error) {
	var all []Verdict
	for _, e := range h.Entries {
		all = append(all, Verdict{Entry: e, Reason: "its volume is gone, and vanished_keep is over"})
	}
	outcomes, err := k.remove(ctx, d, Verdicts{List: all}.Condemned())
	for _, o := range outcomes {
		if o.removed != nil {
			removed++
		}
		if o.held != nil {
			held++
		}
	}
	return removed, held, err
}

// sighting is on how many days runs have seen that a volume is gone.
type sighting struct {
	Days int    `json:"days"`
	Last string `json:"last"` // the last of them, as dayLayout writes it
}

const dayLayout = time.DateOnly

// on counts the day of a run. A day counts once. One that comes before the last, or long after it, may be a clock that was
// wrong or is: it does not count, and the next is counted from there.
func (s sighting) on(now time.Time) sighting {
	today := now.Local().Format(dayLayout)
	if today == s.Last {
		return s
	}
	last, err := time.ParseInLocation(dayLayout, s.Last, time.Local)
	since := clock.Day(now, time.Local) - clock.Day(last, time.Local)
	if s.Days == 0 || err != nil {
		return sighting{Days: 1, Last: today}
	}
	s.Last = today
	if since > 0 && since <= clock.LongGapDays {
		s.Days++
	}
	return s
}

// sightings are those of the volumes of one destination.
type sightings map[catalog.Identity]sighting

// Bounds of what is remembered of one destination. Who may write to the store can make up volumes.
const (
	maxSightings     = 100_000
	maxIdentityBytes = 200
	maxSeenBytes     = 64 << 20
)

// vanishedFolder, in the state folder, has one file for each destination. JSON: where the destination is, and the sightings
// by the identities of the volumes.
const vanishedFolder = "vanished"

type seenFile struct {
	Destination string    `json:"destination"`
	Volumes     sightings `json:"volumes"`
}

func (v Vanished) file(d Destination) string {
	sum := sha256.Sum256([]byte(d.Store.String()))
	return filepath.Join(v.StateDir, vanishedFolder, hex.EncodeToString(sum[:8])+".json")
}

func (v Vanished) read(d Destination) (sightings, error) {
	if v.Keep == 0 {
		return nil, nil
	}
	name := v.file(d)
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > maxSeenBytes {
		err = fmt.Errorf("%s has %s", name, say.Size(info.Size()))
	}
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(name)
	var file seenFile
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err == nil && file.Destination != d.Store.String() {
		err = fmt.Errorf("%s is about %s", name, file.Destination)
	}
	if err != nil {
		return nil, err
	}
	return file.Volumes, nil
}

// write remembers the sightings, where they are others than before.
func (v Vanished) write(d Destination, before, now sightings) error {
	if v.Keep == 0 || maps.Equal(before, now) {
		return nil
	}
	file := seenFile{Destination: d.Store.String(), Volumes: sightings{}}
	for identity, s := range now {
		if len(identity) <= maxIdentityBytes && len(file.Volumes) < maxSightings {
			file.Volumes[identity] = s
		}
	}
	text, err := json.Marshal(file)
	if err != nil {
		return err
	}
	if err := durable.Host(nil).MkdirAll(filepath.Join(v.StateDir, vanishedFolder), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(v.file(d), append(text, '\n'), 0o600)
}
