package main

import (
	"path/filepath"

	"voltar/internal/durable"
	"voltar/internal/verify"
)

// damageNotes are what is known of damaged backups.
func (s *setup) damageNotes() *verify.Notes {
	return verify.NewNotes(filepath.Join(s.config.StateDir, "damage"), durable.Host(nil))
}

// damage is what `voltar verify` found wrong with backups, as in catalog.Filter.
func (s *setup) damage() map[string]string {
	if s.config.Path() == "" {
		return nil // without a configuration there is no state either
	}
	notes, err := s.damageNotes().All()
	if err != nil {
		s.log.Warn("backups that verify found damaged may count as good", "err", err)
	}
	damage := map[string]string{}
	for backup, note := range notes {
		damage[backup] = "verify found " + note.String()
	}
	return damage
}
