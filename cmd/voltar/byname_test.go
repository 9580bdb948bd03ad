package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/keep"
)

// Backups are found by the names of their guests, which the store alone tells.
func TestBackupsByGuest(t *testing.T) {
	s, store, _ := newStocked(t, "")
	machineID, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(s.backups, browsetest.Host, catalog.MarkerName),
		[]byte(`{"format":"voltar/1","host":"volume-host","machine_id":"`+strings.TrimSpace(string(machineID))+`"}`))
	name := "web1"
	browsetest.Make(t, store, browsetest.Spec{LV: "other", Edit: func(m *catalog.Manifest) {
		m.Source.Guest = &catalog.Guest{ID: "4712", Name: "red\x1b[31m", Disk: "vda"}
	}})
	for i, disk := range []string{"vda", "vdb"} {
		browsetest.Make(t, store, browsetest.Spec{LV: "disk-" + disk, Whole: true, Time: browsetest.Night.AddDate(0, 0, i), Edit: func(m *catalog.Manifest) {
			m.Source.Guest = &catalog.Guest{ID: "4711", Name: name, Kind: "libvirt", Disk: disk, Alias: "instance-0000002a"}
		}})
	}
	for args, want := range map[string]struct {
		code  int
		names string
	}{
		name:                       {0, "disk-vda disk-vdb"},
		"4711":                     {0, "disk-vda disk-vdb"},
		name + ":vdb":              {0, "disk-vdb"},
		name + "@2026-11-21":       {0, "disk-vdb"},
		"4711 4711:vda":            {0, "disk-vda disk-vdb"},
		"4711:vda disk-vda":        {0, "disk-vda"},
		"instance-0000002a":        {0, "disk-vda disk-vdb"},
		"instance-0000002a:vda":    {0, "disk-vda"},
		"4711 plain":               {0, "plain plain disk-vda disk-vdb"},
		"4711 nosuch":              {3, "disk-vda disk-vdb"},
		"4711:vdx":                 {1, ""},
		"4711 --all-hosts":         {0, "disk-vda disk-vdb"},
		"4711:vda --all-hosts":     {0, "disk-vda"},
		"@guest/4711 --all-hosts":  {0, "disk-vda disk-vdb"},
		"plain disk-vdb:nosuch -v": {2, ""},
	} {
		code, out, errs := voltar(t, append([]string{"list", "--json", "--config", s.config}, strings.Fields(args)...)...)
		var lines []catalog.Line
		if err := json.Unmarshal([]byte(out), &lines); code != 2 && err != nil {
			t.Errorf("%s: %v in %s", args, err, out)
		}
		var names []string
		for _, l := range lines {
			volume, _, _ := strings.Cut(l.Backup, "@")
			names = append(names, strings.TrimPrefix(volume, "vg/"))
		}
		if got := strings.Join(names, " "); code != want.code || got != want.names {
			t.Errorf("list %s: exit code %d and %q, want %d and %q: %s", args, code, got, want.code, want.names, errs)
		}
	}
	_, out, _ := voltar(t, "list", "--config", s.config)
	if !strings.Contains(out, `red\x1b[31m:vda`) || !strings.Contains(out, "web1:vdb") || !strings.Contains(out, "GUEST") || strings.Contains(out, "\x1b") {
		t.Errorf("listed as\n%s", out)
	}
	if code, out, errs := voltar(t, "verify", "web1:vdb", "--config", s.config); code != 0 {
		t.Errorf("verify: %d %s %s", code, out, errs)
	}
	stock := func() *catalog.Stock {
		x, err := catalog.ReadStock(t.Context(), store, browsetest.Host, catalog.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		return x
	}()
	if fit, err := fitting(stock, "web1", map[string]bool{}); err != nil || len(fit) != 2 {
		t.Errorf("to copy: %d, %v", len(fit), err)
	}
	if code, out, errs := voltar(t, "ls", "4711:vda", "/usr/lib", "--config", s.config); code != 0 || !strings.Contains(out, "os-release") {
		t.Errorf("ls: %d %s %s", code, out, errs)
	}
	if _, out, _ := voltar(t, "report", "--fleet", "--older-than", "1h", "--config", s.config); !strings.Contains(out, "disk-vdb (web1:vdb)") {
		t.Errorf("the fleet:\n%s", out)
	}
	for args, want := range map[string]struct {
		code  int
		names string
	}{
		"prune --dry-run web1":                     {0, "disk-vda disk-vdb"},
		"prune --dry-run @guest/web1 plain":        {0, "disk-vda disk-vdb plain plain"},
		"prune --dry-run instance-0000002a:vdb":    {0, "disk-vdb"},
		"prune --dry-run nosuch":                   {2, ""},
		"forget --dry-run --force web1@2026-11-20": {0, "disk-vda disk-vdb"}, // of one run
		"forget --dry-run --force 4711:vda@2026":   {0, "disk-vda"},
		"forget --dry-run web1@2027":               {1, ""},
	} {
		code, out, errs := voltar(t, append(strings.Fields(args), "--json", "--config", s.config)...)
		var lines []keep.Line
		if err := json.Unmarshal([]byte(out), &lines); out != "" && err != nil {
			t.Errorf("%s: %v in %s", args, err, out)
		}
		var names []string
		for _, l := range lines {
			volume, _, _ := strings.Cut(l.Backup, "@")
			names = append(names, strings.TrimPrefix(volume, "vg/"))
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); code != want.code || got != want.names {
			t.Errorf("%s: exit code %d and %q, want %d and %q: %s", args, code, got, want.code, want.names, errs)
		}
	}
	code, _, errs := voltar(t, "ls", "4711", "--config", s.config)
	if code == 0 || !strings.Contains(errs, "a guest with several disks") || !strings.Contains(errs, "vda (vg/disk-vda)") {
		t.Errorf("ls of two disks: %d %s", code, errs)
	}
	if _, out, _ := voltar(t, "complete", "--", "--config", s.config, "forget", "web1@2026-11-2"); strings.Count(out, "web1@2026-11-2") != 2 {
		t.Errorf("times completed by\n%s", out)
	}
	_, out, _ = voltar(t, "complete", "--", "--config", s.config, "ls", "w")
	if !strings.Contains(out, "web1:vdb\tvg/disk-vdb") || strings.Contains(out, "\x1b") {
		t.Errorf("completed by\n%s", out)
	}
}
