package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/durable"
	"voltar/internal/history"
	"voltar/internal/store/disk"
	"voltar/report"
)

// newStocked returns a site with a partitioned and an unpartitioned volume in its backup folder, and the former.
func newStocked(t *testing.T, more string) (site, *disk.Store, catalog.Backup) {
	t.Helper()
	s := newSite(t, more)
	store := browsetest.Open(t, s.backups)
	fill := func(dir string) {
		for name, text := range map[string]string{"file": "text\n", "other\x1b[2J": "x"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
				t.Fatal(err)
			}
		}
		sub := filepath.Join(dir, "sub")
		if err := errors.Join(os.Mkdir(sub, 0o751), os.Chmod(sub, 0o751)); err != nil { // whatever the umask is
			t.Fatal(err)
		}
		if err := os.Link(filepath.Join(dir, "file"), filepath.Join(dir, "sub/link")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../file", filepath.Join(dir, "sub/symlink")); err != nil {
			t.Fatal(err)
		}
		at := time.Date(2026, 11, 19, 12, 0, 0, 0, time.Local)
		for _, name := range []string{"file", "sub"} {
			if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	b := browsetest.Make(t, store, browsetest.Spec{Fill: fill})
	browsetest.Make(t, store, browsetest.Spec{LV: "plain", Whole: true, Fill: fill})
	browsetest.Make(t, store, browsetest.Spec{LV: "plain", Whole: true, Time: browsetest.Night.Add(time.Hour), Fill: func(dir string) {
		fill(dir)
		if err := os.WriteFile(filepath.Join(dir, "new"), []byte("newer"), 0o600); err != nil {
			t.Fatal(err)
		}
	}})
	return s, store, b
}

func TestBrowseCommands(t *testing.T) {
	s, _, _ := newStocked(t, "")
	for _, c := range []struct {
		name string
		args []string
		code int
		out  string // of standard output; one that begins with "~" must be in it
		errs string // must be in standard error
	}{
		{"ls of an unpartitioned volume", []string{"ls", "plain"}, 0, "file\nnew\nother\\x1b[2J\nsub\n", ""},
		{"ls of a partition of none", []string{"ls", "plain", "p1:/sub"}, exitUsage, "", "has no partitions\nhint: say /sub\n"},
		{"ls of an older one", []string{"ls", "vg/plain@2026-11-20T010001Z", "/sub"}, 0, "link\nsymlink\n", ""},
		{"ls of everything", []string{"ls", "-R", "volume-00000001", "/"}, 0, "file\nother\\x1b[2J\nsub\nsub/link\nsub/symlink\n", ""},
		{"ls of a partition", []string{"ls", "volume-00000001", "p1:/sub", "--from", "disk"}, 0, "link\nsymlink\n", ""},
		{"ls of extents", []string{"ls", "volume-00000001"}, 0, "~p2      image", ""},
		{"ls in full", []string{"ls", "--long", "plain", "/file"}, 0, "~            5 2026-11-19 12:00:00 file\n", ""},
		{"ls in full of a hard link", []string{"ls", "-l", "plain", "/sub/link"}, 0, "~ link to file\n", ""},
		{"ls in full of a symbolic link", []string{"ls", "-l", "plain", "/sub/symlink"}, 0, "~ -> ../file\n", ""},
		{"ls of an image", []string{"ls", "volume-00000001", "p2"}, 2, "", "p2 is not stored as files"},
		{"ls of nothing", []string{"ls"}, 2, "", "name a backup"},
		{"ls of what is not there", []string{"ls", "plain", "/nothing"}, 1, "", "file does not exist"},
		{"cat", []string{"cat", "plain", "/new"}, 0, "newer", ""},
		{"cat through links", []string{"cat", "volume-00000001", "p1:/sub/symlink", "/sub/link"}, 0, "text\ntext\n", ""},
		{"cat of an image", []string{"cat", "volume-00000001", "p2"}, 0, string(browsetest.Image()), ""},
		{"cat of a folder", []string{"cat", "plain", "/sub"}, 2, "", "is a folder, not a file"},
		{"cat of nothing", []string{"cat", "plain"}, 2, "", "name a file as pN:/PATH"},
		{"cat of what is not there", []string{"cat", "plain", "/nothing"}, 1, "", "@2026-11-20T020001Z: find \"nothing\": file does not exist\nhint: `voltar ls`"},
		{"ls of a folder of backups", []string{"ls", "plain", "/sub", "--from", s.backups + "/"}, 0, "link\nsymlink\n", ""},
		{"ls of a folder that is not there", []string{"ls", "plain", "--from", s.backups + "/missing"}, 2, "", "no such folder"},
		{"ls of a host that has none", []string{"ls", "plain", "--host", "other"}, 1, "", "none of host other\nhint: there is none of any"},
		{"list of a host", []string{"list", "plain", "--host", "other"}, exitNothing, "", "no backup of host other for plain on disk ("},
		{"cat of a backup that is not there", []string{"cat", "missing", "/x"}, 1, "", "hint: there are backups of vg/plain, vg/volume-00000001"},
		{"cat from a destination that is not there", []string{"cat", "plain", "/x", "--from", "x"}, 2, "", "no destination"},
		{"extract to nowhere", []string{"extract", "plain"}, 2, "", "--to DIR"},
		{"extract with a wrong word", []string{"extract", "plain", "--to", filepath.Join(t.TempDir(), "x"), "--overwrite", "always"}, 2, "", "none of never"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := voltar(t, append(c.args, "--config", s.config)...)
			in, part := strings.CutPrefix(c.out, "~")
			if code != c.code || !strings.Contains(errs, c.errs) || (!part && out != c.out) || (part && !strings.Contains(out, in)) {
				t.Errorf("exit code %d, want %d\nstdout %.300q\nwant   %.300q\nstderr %s", code, c.code, out, c.out, errs)
			}
		})
	}
}

// A host that has a folder and no backup is none that a hint names.
func TestAHostWithoutBackupsIsNotNamed(t *testing.T) {
	s, store, _ := newStocked(t, "")
	for _, host := range []string{"another", "empty"} {
		if err := catalog.Claim(t.Context(), store, catalog.Host{Name: host, MachineID: "machine of " + host}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	code, _, errs := voltar(t, "ls", "plain", "--host", "empty", "--config", s.config)
	if code != exitNothing || !strings.Contains(errs, "hint: there are backups of another") || strings.Contains(errs, "of another, empty") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestBrowseListsAsJSON(t *testing.T) {
	s, _, _ := newStocked(t, "")
	code, out, errs := voltar(t, "ls", "plain@2026-11-20T010001Z", "/", "-R", "--json", "--config", s.config)
	var entries []entryLine
	if err := json.Unmarshal([]byte(out), &entries); code != 0 || err != nil {
		t.Fatalf("%d, %v: %s %s", code, err, out, errs)
	}
	var paths []string
	for _, e := range entries {
		paths = append(paths, e.Type+" "+e.Path+" "+e.Link)
	}
	if want := []string{"f file ", "f other\x1b[2J ", "d sub ", "h sub/link file", "l sub/symlink ../file"}; !slices.Equal(paths, want) {
		t.Errorf("%q, want %q", paths, want)
	}
}

func TestBrowseExtracts(t *testing.T) {
	s, store, b := newStocked(t, "")
	to := filepath.Join(t.TempDir(), "new", "folder")
	code, out, errs := voltar(t, "extract", "volume-00000001", "p1:/s*", "--to", to, "--config", s.config)
	if code != 0 {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	if text, err := os.ReadFile(filepath.Join(to, "p1/sub/symlink")); err == nil {
		t.Errorf("more than was asked for: %q", text)
	}
	text, err := os.ReadFile(filepath.Join(to, "p1/sub/link"))
	info, serr := os.Stat(filepath.Join(to, "p1/sub"))
	if err != nil || serr != nil || string(text) != "text\n" || info.Mode().Perm() != 0o751 || info.ModTime().Day() != 19 {
		t.Errorf("%q, %v, %v, %v", text, err, info, serr)
	}
	if code, _, errs = voltar(t, "extract", "volume-00000001", "--to", to, "--config", s.config); code != 1 || !strings.Contains(errs, "sub/link") {
		t.Errorf("over files in the way: %d %s", code, errs)
	}
	if code, _, errs = voltar(t, "extract", "volume-00000001", "--to", to, "--overwrite", "replace", "--config", s.config); code != 0 {
		t.Errorf("replacing: %d %s", code, errs)
	}
	browsetest.Spoil(t, store, b, b.Manifest.Extents[1].Archive, func(d []byte) []byte { d[60] ^= 1; return d })
	to = t.TempDir()
	if code, _, _ = voltar(t, "extract", "volume-00000001", "--to", to, "--config", s.config); code != 1 {
		t.Errorf("of a damaged archive: %d", code)
	}
	code, out, errs = voltar(t, "extract", "volume-00000001", "--to", to, "--keep-going", "--json", "--config", s.config)
	var lines []extractedLine
	if err := json.Unmarshal([]byte(out), &lines); code != 3 || err != nil || len(lines) != 1 {
		t.Fatalf("%d, %v: %s %s", code, err, out, errs)
	}
	var lost []string
	for _, l := range lines[0].Lost {
		lost = append(lost, l.Path)
	}
	if !slices.Contains(lost, "file") || !slices.Contains(lost, "sub/link") || len(lines[0].Damage) != 1 {
		t.Errorf("%+v", lines)
	}
}

// verified runs `voltar verify --json`.
func verified(t *testing.T, s site, code int, args ...string) []verifiedLine {
	t.Helper()
	got, out, errs := voltar(t, append([]string{"verify", "--json", "--config", s.config}, args...)...)
	var lines []verifiedLine
	if err := json.Unmarshal([]byte(out), &lines); got != code || err != nil {
		t.Fatalf("%q: exit code %d, want %d: %v\n%s\n%s", args, got, code, err, out, errs)
	}
	return lines
}

func (s site) pastRuns(t *testing.T) []report.Run {
	t.Helper()
	runs, err := history.New(filepath.Join(s.dir, "state/history"), durable.Host(nil), time.Now).List(0)
	if err != nil {
		t.Fatal(err)
	}
	return runs
}

func TestVerifyCommand(t *testing.T) {
	s, store, b := newStocked(t, "")
	backups := func(lines []verifiedLine) string {
		var names []string
		for _, l := range lines {
			names = append(names, strings.TrimPrefix(l.Backup, "vg/"))
		}
		return strings.Join(names, " ")
	}
	newest := "plain@2026-11-20T020001Z volume-00000001@2026-11-20T010001Z"
	if got := backups(verified(t, s, 0)); got != newest {
		t.Errorf("the newest of each: %s", got)
	}
	if got := backups(verified(t, s, 0, "--all", "--quick")); got != "plain@2026-11-20T010001Z "+newest {
		t.Errorf("all: %s", got)
	}
	if got := backups(verified(t, s, 0, "plain@2026-11-20T01", "--full")); got != "plain@2026-11-20T010001Z" {
		t.Errorf("one: %s", got)
	}
	next := report.Run{Command: "run", Volumes: []report.Volume{{Name: "vg/plain"}}}
	history.NoteProofs(&next, s.pastRuns(t))
	if last := next.Volumes[0].LastVerified; time.Since(last) > time.Hour {
		t.Errorf("last verified: %v", last)
	}
	for args, code := range map[string]int{"--quick --full": 2, "--sample 0%": 2, "--sample x": 2, "--all plain": 2, "missing": 1, "--from x": 2} {
		if got, _, errs := voltar(t, append([]string{"verify", "--config", s.config}, strings.Fields(args)...)...); got != code {
			t.Errorf("%s: exit code %d, want %d: %s", args, got, code, errs)
		}
	}
	browsetest.Spoil(t, store, b, b.Manifest.Extents[1].Archive, func(d []byte) []byte { d[60] ^= 1; return d })
	lines := verified(t, s, 3)
	if lines[0].Good != true || lines[1].Good || len(lines[1].Lost) == 0 || lines[1].Findings[0].File != b.Manifest.Extents[1].Archive {
		t.Errorf("%+v", lines)
	}
	code, out, _ := voltar(t, "verify", "volume-00000001", "--config", s.config)
	if code != 3 || !strings.Contains(out, "NOT GOOD") || !strings.Contains(out, "lost: p1:/: ") || !strings.Contains(out, "lost: p1:/file: ") ||
		!strings.Contains(out, "lost: p1:/sub/link: ") || !strings.Contains(out, "1 of 1 backup is not good.\nhint: `voltar run vg/volume-00000001` makes a new backup now") {
		t.Errorf("%d\n%s", code, out)
	}
	runs := s.pastRuns(t)
	run := runs[slices.IndexFunc(runs, func(r report.Run) bool { return r.ExitCode == 3 && len(r.Volumes) == 2 })]
	if run.Command != "verify" || run.Verdict() != report.VerdictFailed || run.Volumes[1].DamagedCount != 6 {
		t.Errorf("%+v", run)
	}
	if err := os.WriteFile(filepath.Join(s.backups, b.Path(), catalog.ManifestName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if lines := verified(t, s, 3); len(lines) != 2 || lines[1].Findings[0].File != catalog.ManifestName {
		t.Errorf("a damaged manifest: %+v", lines)
	}
}

func TestWhatVerifyFoundIsKnownAfterwards(t *testing.T) {
	second := t.TempDir()
	s, store, b := newStocked(t, "[[destination]]\nname = \"second\"\ntype = \"disk\"\npath = \""+second+"\"\nrequire_mount = \"none\"\n")
	if err := os.CopyFS(second, os.DirFS(s.backups)); err != nil {
		t.Fatal(err)
	}
	statuses := func() string {
		code, out, errs := voltar(t, "list", "volume-00000001", "--json", "--config", s.config)
		var lines []catalog.Line
		if err := json.Unmarshal([]byte(out), &lines); code != 0 || err != nil {
			t.Fatalf("%d, %v: %s %s", code, err, out, errs)
		}
		var list []string
		for _, l := range lines {
			list = append(list, l.Destination+" "+l.Status)
			found := "verify found on " + time.Now().Format(time.DateOnly) + ": " + b.Manifest.Extents[1].Archive + ": "
			if l.Status != "complete" && !strings.HasPrefix(l.Note, found) {
				t.Errorf("note %q, want %q", l.Note, found)
			}
		}
		slices.Sort(list)
		return strings.Join(list, ", ")
	}
	if got := statuses(); got != "disk complete, second complete" {
		t.Error("before:", got)
	}
	spoil := func(d []byte) []byte { d[60] ^= 1; return d }
	browsetest.Spoil(t, store, b, b.Manifest.Extents[1].Archive, spoil)
	verified(t, s, 3)
	if got := statuses(); got != "disk damaged, second complete" {
		t.Error("with a damaged one:", got)
	}
	cat := func() string {
		code, out, errs := voltar(t, "cat", "volume-00000001", "/file", "--config", s.config)
		return fmt.Sprint(code, " ", out, errs)
	}
	if got := cat(); got != "0 text\n" {
		t.Error("with a good one on another destination:", got)
	}
	browsetest.Spoil(t, browsetest.Open(t, second), b, b.Manifest.Extents[1].Archive, spoil)
	verified(t, s, 3)
	if got := cat(); !strings.HasPrefix(got, "1 ") || !strings.Contains(got, "vg/volume-00000001@2026-11-20T010001Z on disk is damaged: verify found on ") {
		t.Error("with no good one:", got)
	}
	browsetest.Spoil(t, store, b, b.Manifest.Extents[1].Archive, spoil) // once more, which mends it
	verified(t, s, 0, "--quick")
	if got := statuses(); got != "disk damaged, second damaged" {
		t.Error("after a look that is not as close:", got)
	}
	verified(t, s, 3)
	if got := statuses(); got != "disk complete, second damaged" {
		t.Error("mended:", got)
	}
	if err := os.RemoveAll(filepath.Join(second, b.Path())); err != nil {
		t.Fatal(err)
	}
	verified(t, s, 0)
	if left, err := os.ReadDir(filepath.Join(s.dir, "state/damage")); err != nil || len(left) != 0 {
		t.Errorf("of a backup that is gone something is known: %v, %v", left, err)
	}
}

// A server that holds the backups of others can check them.
func TestVerifyOfAnotherHost(t *testing.T) {
	s, store, b := newStocked(t, "")
	of := []string{"--host", b.Host}
	other := filepath.Join(s.dir, "other.toml")
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, bytes.Replace(text, []byte(`host = "`+b.Host+`"`), []byte(`host = "server"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	s.config = other
	if lines := verified(t, s, 1); len(lines) != 0 {
		t.Errorf("of this host, which has none: %+v", lines)
	}
	if lines := verified(t, s, 0, of...); len(lines) != 2 {
		t.Errorf("of the other: %+v", lines)
	}
	browsetest.Spoil(t, store, b, b.Manifest.Extents[1].Archive, func(d []byte) []byte { d[60] ^= 1; return d })
	if lines := verified(t, s, 3, append(of, "--from", s.backups+"/", "volume-00000001")...); len(lines) != 1 || lines[0].Good {
		t.Errorf("one of the other, by its folder: %+v", lines)
	}
	code, out, errs := voltar(t, append([]string{"list", "--config", s.config}, of...)...)
	if code != 0 || !strings.Contains(out, "damaged: verify found on ") {
		t.Errorf("list: %d %s %s", code, out, errs)
	}
	if runs := s.pastRuns(t); len(runs) != 1 || runs[0].Host != "server" {
		t.Errorf("the history of this host has %+v", runs)
	}
}

func TestVerifyRepairsAnIndex(t *testing.T) {
	s, _, b := newStocked(t, "")
	index := filepath.Join(s.backups, b.Path(), b.Manifest.Extents[1].Index.Name)
	if err := os.Remove(index); err != nil {
		t.Fatal(err)
	}
	code, _, errs := voltar(t, "cat", "volume-00000001", "/file", "--config", s.config)
	if code != 1 || !strings.Contains(errs, "hint: `voltar verify --repair-index vg/volume-00000001@2026-11-20T010001Z`") {
		t.Errorf("%d %s", code, errs)
	}
	verified(t, s, 3)
	lines := verified(t, s, 0, "--repair-index")
	if len(lines[0].Repaired) != 0 || !slices.Contains(lines[1].Repaired, filepath.Base(index)) {
		t.Errorf("%+v", lines)
	}
	if code, out, errs := voltar(t, "cat", "volume-00000001", "/file", "--config", s.config); code != 0 || out != "text\n" {
		t.Errorf("%d %q %s", code, out, errs)
	}
}

// What a manifest names is not to be trusted: others may be able to write to the destination.
func TestHostileManifestsLeadNowhere(t *testing.T) {
	for _, name := range []string{"../../../../secret", "/etc/passwd", "..", "-x", "a\\u0000b"} {
		t.Run(name, func(t *testing.T) {
			s, store, b := newStocked(t, "")
			archive := b.Manifest.Extents[1].Archive
			browsetest.Spoil(t, store, b, catalog.ManifestName, func(d []byte) []byte {
				return bytes.ReplaceAll(d, []byte(`"`+archive+`"`), []byte(`"`+name+`"`))
			})
			for _, args := range [][]string{{"cat", "volume-00000001", "p1:/file"}, {"ls", "volume-00000001"},
				{"extract", "volume-00000001", "--keep-going", "--to", t.TempDir()}, {"verify", "volume-00000001"}} {
				code, out, errs := voltar(t, append(args, "--config", s.config)...)
				if said := out + errs; code == 0 || !strings.Contains(said, "cannot take") && !strings.Contains(said, "not a valid key") {
					t.Errorf("%s: %d %q %s", args[0], code, out, errs)
				}
			}
		})
	}
}

// pastRun is a run as the history has it.
func pastRun(at time.Time, id string) report.Run {
	return report.Run{Schema: report.Schema, ID: id, Host: "volume-host", Command: "run", Started: at, Ended: at.Add(time.Minute),
		PlannedVolumes: 1, Volumes: []report.Volume{{Name: "vg/volume-00000001", Status: report.VolumeOK, StoredBytes: 1 << 30}}}
}

func TestReportCommand(t *testing.T) {
	sent := filepath.Join(t.TempDir(), "mail")
	sendmail := filepath.Join(t.TempDir(), "sendmail")
	if err := os.WriteFile(sendmail, []byte("#!/bin/sh\ncat >"+sent+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, "[mail]\nto = [\"operator@localhost\"]\nsendmail = \""+sendmail+"\"\n")
	if code, _, errs := voltar(t, "report", "--config", s.config); code != 1 || !strings.Contains(errs, "the history is empty\nhint: `voltar run` makes") {
		t.Errorf("%d %s", code, errs)
	}
	past := history.New(filepath.Join(s.dir, "state/history"), durable.Host(nil), time.Now)
	for i, id := range []string{"first", "second"} {
		if err := past.Save(pastRun(browsetest.Night.AddDate(0, 0, i), id)); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	page, picture := filepath.Join(dir, "page.html"), filepath.Join(dir, "trend.png")
	for _, c := range []struct {
		name string
		args []string
		code int
		out  string
		errs string
	}{
		{"the last", nil, 0, "run second", ""},
		{"by its name", []string{"first"}, 0, "run first", ""},
		{"the last by name", []string{"last"}, 0, "run second", ""},
		{"as JSON", []string{"--json"}, 0, `"id": "second"`, ""},
		{"the host as a page", []string{"--html", "-"}, 0, "Nights: the 30 nights", ""},
		{"the host as a page, by an age", []string{"--html", "-", "--older-than", "2d"}, 0, "data-limit=\"172800\"", ""},
		{"a run as a page", []string{"first", "--html", "-"}, 0, "Backup start time", ""},
		{"an age of nothing", []string{"--older-than", "2d"}, 2, "", "goes with --fleet"},
		{"into files", []string{"--html", page, "--trend", picture}, 0, "", ""},
		{"the history", []string{"--list"}, 0, "[voltar] volume-host: OK 1 volume", ""},
		{"unknown", []string{"third"}, 1, "", "no such run"},
		{"two", []string{"first", "second"}, 2, "", "name one run"},
		{"a trend of one run", []string{"first", "--trend", picture}, 1, "", "needs two runs"},
		{"by mail", []string{"--send"}, 0, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := voltar(t, append([]string{"report", "--config", s.config}, c.args...)...)
			if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.errs) || (c.out == "" && out != "") {
				t.Errorf("exit code %d, want %d\n%s\n%s", code, c.code, out, errs)
			}
		})
	}
	for file, begin := range map[string]string{page: "<!DOCTYPE html>", picture: "\x89PNG"} {
		if data, err := os.ReadFile(file); err != nil || !strings.EqualFold(string(data[:len(begin)]), begin) {
			t.Errorf("%s: %.20q, %v", file, data, err)
		}
	}
	if mail, err := os.ReadFile(sent); err != nil || !bytes.Contains(mail, []byte("Subject: [voltar] volume-host: OK 1 volume")) {
		t.Errorf("%v\n%s", err, mail)
	}
}

func TestVerifyIsInterruptible(t *testing.T) {
	s, _, _ := newStocked(t, "")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	var out, errs bytes.Buffer
	code := run(ctx, []string{"voltar", "verify", "--config", s.config}, strings.NewReader(""), &out, &errs)
	if code != exitInterrupted {
		t.Errorf("exit code %d\n%s\n%s", code, &out, &errs)
	}
}

// The root of a guest's filesystem may be open to all and hold set-user-id programs.
func TestWhatIsExtractedStaysClosed(t *testing.T) {
	s := newSite(t, "")
	store := browsetest.Open(t, s.backups)
	browsetest.Make(t, store, browsetest.Spec{LV: "open", Whole: true, Fill: func(dir string) {
		tool := filepath.Join(dir, "tool")
		if err := errors.Join(os.WriteFile(tool, nil, 0o600), os.Chmod(tool, 0o755|os.ModeSetuid), os.Chmod(dir, 0o777)); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			if err := os.Chown(dir, 1000, 1000); err != nil {
				t.Fatal(err)
			}
		}
	}})
	closed := func(to string, tool os.FileMode) {
		t.Helper()
		folder, err := os.Stat(to)
		if err != nil || folder.Mode().Perm() != 0o700 || folder.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
			t.Errorf("the folder is %v, %v", folder, err)
		}
		if info, err := os.Stat(filepath.Join(to, "tool")); err != nil || info.Mode() != tool {
			t.Errorf("the tool is %v, %v", info, err)
		}
	}
	for _, command := range [][]string{{"extract", "open", "--to"}, {"restore", "open", "--to-dir"}} {
		t.Run(command[0], func(t *testing.T) {
			to := filepath.Join(t.TempDir(), "back")
			code, out, errs := voltar(t, append(command, to, "--config", s.config)...)
			if code != 0 || !strings.Contains(out, "--privileges") {
				t.Errorf("%d %s %s", code, out, errs)
			}
			closed(to, 0o755)
			to = filepath.Join(t.TempDir(), "back")
			if code, out, errs := voltar(t, append(command, to, "--privileges", "--config", s.config)...); code != 0 {
				t.Errorf("%d %s %s", code, out, errs)
			}
			if os.Geteuid() == 0 { // files of others have no set-id bits here
				closed(to, 0o755|os.ModeSetuid)
			}

			shared := t.TempDir()
			if err := errors.Join(os.Chmod(filepath.Dir(shared), 0o755), os.Chmod(shared, 0o777)); err != nil {
				t.Fatal(err)
			}
			for _, to := range []string{shared, filepath.Join(shared, "new")} {
				if code, _, errs := voltar(t, append(command, to, "--config", s.config)...); code != 1 || !strings.Contains(errs, "exchange") {
					t.Errorf("into %s: %d %s", to, code, errs)
				}
			}
			if entries, err := os.ReadDir(shared); err != nil || len(entries) > 0 {
				t.Errorf("%v, %v", entries, err)
			}
		})
	}
	if code, _, errs := voltar(t, "restore", "open", "--privileges", "--dry-run", "--config", s.config); code != 2 {
		t.Errorf("%d %s", code, errs)
	}
}

// What to do about damage is something that works: the hint of a command never leads to one whose hint leads back.
func TestHintsOfDamageLeadOut(t *testing.T) {
	cut := func(d []byte) []byte { return d[:len(d)/2] }
	flip := func(d []byte) []byte { d[60] ^= 1; return d }
	for name, c := range map[string]struct {
		image, index bool // what is damaged, or else the archive
		damage       func([]byte) []byte
		hint         string
		left         string // how cat --keep-going ends
	}{
		"an archive":           {damage: flip, hint: "voltar list vg/volume-00000001`), or what is left of this one: --keep-going", left: "is cut: "},
		"an image":             {image: true, damage: flip, hint: "or what is left of this one: --keep-going", left: `"p2" is cut: `},
		"an image that is cut": {image: true, damage: cut, hint: "or what is left of this one: --keep-going", left: `"p2" is cut: `},
		"an index":             {index: true, damage: flip, hint: "`voltar verify --repair-index vg/volume-00000001@", left: "hint: `voltar verify --repair-index vg/volume-00000001@"},
		"an index that is cut": {index: true, damage: cut, hint: "`voltar verify --repair-index vg/volume-00000001@", left: "hint: `voltar verify --repair-index vg/volume-00000001@"},
	} {
		t.Run(name, func(t *testing.T) {
			s, store, b := newStocked(t, "")
			file, place := b.Manifest.Extents[1].Archive, "p1:/file"
			switch {
			case c.image:
				file, place = b.Manifest.Extents[2].Archive, "p2"
			case c.index:
				file = b.Manifest.Extents[1].Index.Name
			}
			browsetest.Spoil(t, store, b, file, c.damage)
			code, _, errs := voltar(t, "cat", "volume-00000001", place, "--config", s.config)
			if code != exitNothing || strings.Count(errs, "hint: ") != 1 || !strings.Contains(errs, c.hint) {
				t.Errorf("cat: %d %s", code, errs)
			}
			code, _, errs = voltar(t, "cat", "volume-00000001", place, "--keep-going", "--config", s.config)
			if !strings.Contains(errs, c.left) || (code == exitAttention) == c.index || strings.Contains(errs, "keep-going") {
				t.Errorf("cat --keep-going: %d %s", code, errs)
			}
		})
	}
	s, store, b := newStocked(t, "")
	if err := store.Delete(t.Context(), b.Path()+"/"+b.Manifest.Extents[1].Archive); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"--json=false", "--keep-going"} {
		code, _, errs := voltar(t, "extract", "volume-00000001", "--to", t.TempDir(), flag, "--config", s.config)
		if code == 0 || !strings.Contains(errs, "no such object") {
			t.Errorf("extract %s of an archive that is gone: %d %s", flag, code, errs)
		}
	}
	code, _, errs := voltar(t, "cat", "volume-00000001", "p1:/file", "--config", s.config)
	if code != exitNothing || !strings.Contains(errs, "hint: take another backup, or this one from another destination: `voltar list vg/volume-00000001`") {
		t.Errorf("cat of an archive that is gone: %d %s", code, errs)
	}
}

// A target that cannot be says what is wrong with it and what to name instead.
func TestTargetsThatCannotBe(t *testing.T) {
	s, _, _ := newStocked(t, "")
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	writeFile(t, file, []byte("x"))
	for _, c := range []struct {
		target     []string
		wrong, how string
	}{
		{[]string{"--to-device", "/dev/nosuch"}, "there is no device /dev/nosuch", "`lsblk` lists the block devices; --to-image FILE makes a file"},
		{[]string{"--to-device", "/dev/null"}, "/dev/null is no block device", "`lsblk` lists the block devices"},
		{[]string{"--to-device", file}, file + " is no block device", "--to-image FILE is for files"},
		{[]string{"--to-device", dir}, dir + " is no block device", "--to-dir DIR is for folders, and takes the files alone"},
		{[]string{"--to-image", dir}, dir + " is no ordinary file", "--to-device is for block devices"},
		{[]string{"--to-image", file + "2", "--size", "1MiB"}, "cannot make the partitions fit 1048576 bytes", "take a larger target: a volume or image that is not there yet is made as large as the volume was, without --size; `lvextend` makes a volume larger"},
		{[]string{"--to-lv", "web"}, `--to-lv: "web" is not VG/LV`, "name the volume group, too, as in --to-lv vg0/web; `vgs` lists the groups"},
	} {
		for _, flag := range []string{"--dry-run", "--force"} {
			code, _, errs := voltar(t, append([]string{"restore", "volume-00000001", flag, "--config", s.config}, c.target...)...)
			if code != exitUsage || !strings.Contains(errs, c.wrong) || !strings.Contains(errs, "\nhint: "+c.how+"\n") || strings.Count(errs, "hint: ") != 1 {
				t.Errorf("%s %s: %d %s", c.target, flag, code, errs)
			}
		}
	}
	for _, args := range [][]string{{"extract", "--to"}, {"restore", "--to-dir"}} {
		code, _, errs := voltar(t, args[0], "volume-00000001", args[1], file, "--config", s.config)
		if code == 0 || !strings.Contains(errs, "not a directory\nhint: name a folder, or one that is not there yet\n") {
			t.Errorf("%s into a file: %d %s", args[0], code, errs)
		}
	}
}
