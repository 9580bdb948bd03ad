package main

import (
	"errors"
	"path"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"voltar/internal/catalog"
	"voltar/internal/durable"
	"voltar/internal/store"
	"voltar/internal/verify"
)

// notes are what is known of damaged backups.
func (s *setup) notes() *verify.Notes {
	return verify.NewNotes(filepath.Join(s.config.StateDir, "damage"), durable.Host(nil))
}

// damage is what `voltar verify` found wrong with backups, as in catalog.Filter.
func (s *setup) damage() map[string]string {
	if s.config.Path() == "" {
		return nil // without a configuration there is no state either
	}
	notes, err := s.notes().All()
	if err != nil {
		s.log.Warn("backups that verify found damaged may count as good", "err", err)
	}
	damage := map[string]string{}
	for backup, note := range notes {
		damage[backup] = note.String()
	}
	return damage
}

// noteDamage keeps what was found for the commands that come after, and forgets backups that are there no more.
func (s *setup) noteDamage(c *cli.Context, list []verification, level verify.Level) {
	if s.config.Path() == "" {
		return
	}
	notes, host := s.notes(), s.hostOf(c)
	known, err := notes.All()
	var failed []error
	if err != nil {
		failed = append(failed, err)
	}
	for _, v := range list {
		if v.err != nil {
			continue // nothing is known
		}
		note := verify.Note{Backup: catalog.Place(v.on.store, v.backup.Path()), Found: v.ended.UTC(), Level: level}
		if !v.result.Good() {
			note.What = join(v.result.Findings[0])
		}
		failed = append(failed, notes.Enter(note))
		delete(known, note.Backup)
	}
	for backup := range known {
		for _, d := range s.stores {
			folder, ours := strings.CutPrefix(backup, catalog.Place(d.store, host)+"/")
			if !ours {
				continue
			}
			_, err := d.store.Stat(c.Context, path.Join(host, folder, catalog.ManifestName))
			if errors.Is(err, store.ErrNotExist) {
				failed = append(failed, notes.Forget(backup))
			}
		}
	}
	if err := errors.Join(failed...); err != nil {
		s.log.Warn("what is known of damaged backups is not up to date", "err", err)
	}
}

// tellDamage enters what verify found into the line.
func tellDamage(line *backupLine, damage string) {
	if damage == "" {
		return
	}
	line.Status = string(catalog.StatusDamaged)
	line.note("verify found " + damage)
}
