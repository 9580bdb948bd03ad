package catalog

import (
	"context"
	"errors"
	"time"

	"voltar/internal/clock"
	"voltar/internal/store"
)

// Line is one backup in a list for people and programs.
type Line struct {
	Host        string    `json:"host,omitempty"` // in lists of several hosts
	Backup      string    `json:"backup"`
	Time        time.Time `json:"time"`
	Destination string    `json:"destination"`
	Path        string    `json:"path"`
	Status      string    `json:"status"` // complete, damaged, ahead, unreadable, untrusted, unfinished
	SizeBytes   int64     `json:"size"`
	OwnBytes    *int64    `json:"own,omitempty"` // see OwnBytes; nil where it was not asked for, or is all of it
	Entries     int64     `json:"entries"`
	Encrypted   bool      `json:"encrypted,omitempty"`
	Ahead       bool      `json:"ahead,omitempty"` // dated ahead of this host's clock: it is the newest for nobody
	Note        string    `json:"note,omitempty"`
	Guest       *Guest    `json:"guest,omitempty"` // whose disk the volume was then
}

// statusAhead is that of a complete backup that is dated ahead (package clock).
const statusAhead = "ahead"

// NoteOwn adds to the lines of backups what of each is its own, where backups share their place in the store. Others than those that
// are chosen are not looked at.
func (l *Listing) NoteOwn(ctx context.Context, s store.Store, lines []Line, chosen func(Line) bool) error {
	if _, shares := store.SharingOf(ctx, s); !shares {
		return nil
	}
	for i := range l.Backups { // whose lines come first
		if !chosen(lines[i]) {
			continue
		}
		own, err := OwnBytes(ctx, s, l.Backups[i])
		if err != nil {
			return err
		}
		lines[i].OwnBytes = &own
	}
	return nil
}

// Lines returns a line for each backup of a listing, those included that cannot be read or have no manifest.
func (l *Listing) Lines(destination string) []Line {
	var lines []Line
	add := func(id ID, line Line) {
		line.Backup, line.Time, line.Destination = id.String(), id.Time, destination
		line.noteAhead(l.Now)
		lines = append(lines, line)
	}
	for _, b := range l.Backups {
		line := Line{Path: b.Path(), Status: string(b.Status), SizeBytes: b.SizeBytes, Entries: b.Entries, Encrypted: b.Encryption != nil}
		if !b.Guest.IsZero() {
			line.Guest = &b.Guest
		}
		if b.Damage != "" {
			line.Status = string(StatusDamaged)
			line.note(b.Damage)
		}
		add(b.ID, line)
	}
	for _, u := range l.Unreadable {
		line := Line{Path: u.Path, Status: "unreadable", Note: u.Err.Error()}
		if errors.Is(u.Err, ErrUntrusted) {
			line.Status = "untrusted"
		}
		add(u.ID, line)
	}
	for _, u := range l.Unfinished {
		add(u.ID, Line{Path: u.Path, Status: "unfinished", Note: "no manifest: it is being written, or a run died over it"})
	}
	return lines
}

func (l *Line) noteAhead(now time.Time) {
	if !clock.IsAhead(l.Time, now) {
		return
	}
	l.Ahead = true
	if l.Status == string(StatusComplete) {
		l.Status = statusAhead
	}
	l.note("dated ahead of this host's clock: it does not count, and is taken only where its time is named")
}

// note adds to what there is to say of a backup.
func (l *Line) note(text string) {
	if l.Note != "" {
		l.Note += "; "
	}
	l.Note += text
}
