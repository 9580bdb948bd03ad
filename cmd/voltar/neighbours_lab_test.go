//go:build slow

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"voltar/internal/lab"
	"voltar/report"
)

// Two configurations of one host share its state and its locks. A run of the one goes on while the other begins and ends:
// neither takes the other for dead, nor its volume, and a journal that is damaged is set aside with a word in the report.
func TestLabConfigurationsDoNotDisturbEachOther(t *testing.T) {
	s := crashSite(t)
	s.append(t, "[limits]\nread_rate = \"1MiB\"\n")
	other := s
	other.config = filepath.Join(s.dir, "other.toml")
	plain := strings.ReplaceAll(string(readFile(t, s.config)), s.backups, s.backups+"-other")
	other.backups = s.backups + "-other"
	writeFile(t, other.config, []byte(plain[:strings.Index(plain, "[limits]")]))
	before := hostState(t)

	slow := start(t, append(s.runArgs(), "vg/classic")...)
	if !slow.until("type=ext4") {
		t.Fatal(slow.wait(t), slow.stderr.String())
	}
	slow.signal(t, syscall.SIGSTOP) // so that it is slow enough whatever the others take
	snapshot := lab.Do(t, "lvs", "--noheadings", "-o", "lv_name,lv_uuid", "--select", "lv_tags=voltar", "vg")
	damaged := filepath.Join(s.dir, "state/journal/20261120T010001Z-3f9a0c.jsonl")
	writeFile(t, damaged, []byte(`{"crc32c":"00000000","record":{"op":"begin"}}`+"\n"))

	result := other.run(t, exitDone, "vg/thin")
	wantStatus(t, result, "vg/thin", report.VolumeOK)
	if len(result.Recovered) > 0 {
		t.Errorf("taken from the run beside it: %q", result.Recovered)
	}
	if now := lab.Do(t, "lvs", "--noheadings", "-o", "lv_name,lv_uuid", "--select", "lv_tags=voltar", "vg"); now != snapshot {
		t.Errorf("snapshots after the run beside it: %q, before: %q", now, snapshot)
	}
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0].Message, "damaged and was set aside as "+damaged) {
		t.Errorf("warnings: %+v", result.Warnings)
	}
	if _, err := os.Stat(damaged + ".damaged"); err != nil {
		t.Error(err)
	}
	result = other.run(t, exitNothing, "vg/classic")
	if v := volume(t, result, "vg/classic"); v.Error == nil || !strings.Contains(v.Error.Message, "in use by") {
		t.Errorf("the volume of the run beside it: %s %+v", v.Status, v.Error)
	}

	slow.signal(t, syscall.SIGCONT)
	result = parseRun(t, slow.wait(t), exitDone, slow.stdout.Bytes(), slow.stderr.String())
	wantStatus(t, result, "vg/classic", report.VolumeOK)
	if after := hostState(t); after != before {
		t.Errorf("after the runs:\n%s\nbefore:\n%s", after, before)
	}
	checkSums(t, append(s.backupsOf(t, "vg/classic"), other.backupsOf(t, "vg/thin")...)...)
}
