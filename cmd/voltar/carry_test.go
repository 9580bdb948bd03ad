package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A backup in which a run finds rot counts as good no more for the commands that come after.
func TestRotThatARunFindsIsRemembered(t *testing.T) {
	dir := t.TempDir()
	data := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	writeFile(t, filepath.Join(dir, "file"), data)
	s := newSite(t, "\n[[directory]]\nname = \"d\"\npath = \""+dir+"\"\n")
	s.run(t, exitDone)
	archives, err := filepath.Glob(filepath.Join(s.backups, "*", "*", "*", "*", "d.tar.gz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("%q, %v", archives, err)
	}
	stored, err := os.ReadFile(archives[0])
	if err != nil {
		t.Fatal(err)
	}
	stored[len(stored)/2] ^= 1
	writeFile(t, archives[0], stored)

	result := s.run(t, exitDone)
	if v := result.Volumes[0]; v.Carried == nil || v.Carried.Members != 1 || len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0].Message, "is damaged") {
		t.Errorf("%+v, %+v", v.Carried, v.Warnings)
	}
	stored[len(stored)/2] ^= 1
	again, err := filepath.Glob(filepath.Join(s.backups, "*", "*", "*", "*", "d.tar.gz"))
	if err != nil || len(again) != 2 {
		t.Fatalf("%q, %v", again, err)
	}
	if tonight, err := os.ReadFile(again[1]); err != nil || !bytes.Equal(tonight, stored) {
		t.Errorf("tonight's archive is not the one that the first was before it rotted, %v", err)
	}
	_, out, errs := voltar(t, "list", "--config", s.config)
	if strings.Count(out, "damaged") != 1 {
		t.Errorf("list does not tell of one damaged backup: %s\n%s", out, errs)
	}
}

// So does one of which a file is missing.
func TestAMissingFileThatARunFindsIsRemembered(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "file"), []byte("data"))
	s := newSite(t, "\n[[directory]]\nname = \"d\"\npath = \""+dir+"\"\n")
	s.run(t, exitDone)
	archives, err := filepath.Glob(filepath.Join(s.backups, "*", "*", "*", "*", "d.tar.gz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("%q, %v", archives, err)
	}
	if err := os.Remove(archives[0]); err != nil {
		t.Fatal(err)
	}
	result := s.run(t, exitDone)
	if v := result.Volumes[0]; len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0].Message, "d.tar.gz is missing") {
		t.Errorf("%+v", v.Warnings)
	}
	_, out, errs := voltar(t, "list", "--config", s.config)
	if strings.Count(out, "damaged: verify found") != 1 {
		t.Errorf("list does not tell of one damaged backup: %s\n%s", out, errs)
	}
}
