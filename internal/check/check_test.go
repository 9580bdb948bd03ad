package check

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"voltar/internal/backup"
	"voltar/internal/deliver"
	"voltar/internal/hostcmd"
	"voltar/internal/setup"
	"voltar/internal/store"
	"voltar/lvm"
)

// newChecker checks a configuration on a host that has some commands and no others. WORK in the text is a folder of the test's own.
func newChecker(t *testing.T, text string, commands ...string) (c *checker, dir string) {
	t.Helper()
	dir = t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range commands {
		if err := os.WriteFile(filepath.Join(bin, name), nil, 0o755); err != nil { //nolint:gosec // a command can be run
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "voltar.toml")
	text = "host = \"volume-host\"\nstate_dir = \"WORK/state\"\nrun_dir = \"WORK/run\"\n" + text
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "WORK", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := setup.New("", setup.Options{
		Config: file, Now: time.Now, AtEnd: func(end func() error) { t.Cleanup(func() { _ = end() }) },
		Log: func(string) (*slog.Logger, error) { return slog.New(slog.DiscardHandler), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Runner = hostcmd.New(hostcmd.Options{SearchPath: []string{bin}})
	return &checker{s, &deliver.Delivery{Config: s.Config, Host: s.Host, Runner: s.Runner, Log: s.Log, Now: s.Now}}, dir
}

// wantFinding wants one of the findings to have a beginning and, of what to do, a part; "" wants nothing to be done.
func wantFinding(t *testing.T, findings []Finding, ok bool, detail, hint string) {
	t.Helper()
	for _, f := range findings {
		if f.OK == ok && strings.HasPrefix(f.Detail, detail) && strings.Contains(f.Hint, hint) && (hint != "" || f.Hint == "") {
			return
		}
	}
	t.Errorf("%+v, want %v, %q and %q to do", findings, ok, detail, hint)
}

func disk(name, path string) string {
	return "[[destination]]\nname = \"" + name + "\"\ntype = \"disk\"\npath = \"" + path + "\"\n"
}

const anywhere = "require_mount = \"none\"\n"

func TestDestinations(t *testing.T) {
	c, dir := newChecker(t, disk("there", "WORK/bin")+anywhere+disk("new", "WORK/new/folder")+anywhere+disk("twin", "WORK/new/folder")+anywhere+
		disk("away", "WORK/mnt")+disk("odd", "WORK/voltar.toml")+anywhere+
		"[[destination]]\nname = \"far\"\ntype = \"s3\"\nendpoint = \"https://s3.example.org\"\nbucket = \"backups\"\naccess_key = \"a\"\n"+
		"secret_key = { file = \"WORK/none\" }\n")
	findings := c.destinations(t.Context())
	for _, want := range []struct {
		ok           bool
		detail, hint string
	}{
		{true, "there (WORK/bin) has ", ""},
		{true, "new (WORK/new/folder) has ", ""},
		{true, "new: the folder WORK/new/folder is not there yet: the first run makes it", ""},
		{false, "twin (WORK/new/folder): it is the same place as destination new (WORK/new/folder)", "a place of its own"},
		{false, "away (WORK/mnt): WORK/mnt is not mounted", "mount its disk"},
		{false, "odd (WORK/voltar.toml): WORK/voltar.toml is no folder", "move it out of the way"},
		{false, "far (s3://s3.example.org/backups): read secret_key: ", "install -m 600 /dev/null WORK/none"},
	} {
		wantFinding(t, findings, want.ok, strings.ReplaceAll(want.detail, "WORK", dir), strings.ReplaceAll(want.hint, "WORK", dir))
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("to look has made a folder: %v", err)
	}
	none, _ := newChecker(t, "")
	wantFinding(t, none.destinations(t.Context()), false, "there is none", "[[destination]]")
}

func TestHost(t *testing.T) {
	all := []string{}
	for _, tool := range tools {
		all = append(all, tool.name)
	}
	for _, c := range []struct {
		name, text   string
		commands     []string
		ok           bool
		detail, hint string
	}{
		{"all tools", "", all, true, fmt.Sprintf("all %d are there", len(tools)), ""},
		{"one that spares work is missing", "", all, true, "no thin_dump (thin-provisioning-tools", ""},
		{"one is missing", "", all[:len(all)-1], false, "missing: mkswap (restoring swap)", "install the package util-linux"},
		{"no lvm2", "", nil, false, "missing: lvs (volumes), vgs (volumes)", "install the package lvm2"},
		{"no lvm2, and directories", "[[directory]]\nname = \"tree\"\npath = \"WORK\"\n", nil, true, "no lvm2: only directories and dumps", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			checker, dir := newChecker(t, c.text, c.commands...)
			findings := checker.host()
			wantFinding(t, findings, c.ok, c.detail, c.hint)
			wantFinding(t, findings, true, filepath.Join(dir, "voltar.toml"), "")
			if os.Geteuid() != 0 {
				wantFinding(t, findings, false, "not running as root", asRoot)
			}
		})
	}
}

// A host whose volumes are all left out is not well, whatever else is backed up.
func TestSelection(t *testing.T) {
	for _, c := range []struct {
		selected, volumes, sources int
		ok                         bool
		detail, hint               string
	}{
		{1, 2, 0, true, "1 of 2 are selected", ""},
		{0, 2, 0, false, "0 of 2 are selected", "which rule"},
		{0, 2, 1, false, "0 of 2 are selected", "which rule"},
		{0, 0, 1, true, "there is no logical volume on this host", ""},
		{0, 0, 0, false, "there is no logical volume on this host", "[[directory]]"},
	} {
		wantFinding(t, []Finding{checkSelection(c.selected, c.volumes, c.sources)}, c.ok, c.detail, c.hint)
	}
}

// A name that nothing has is told on a host without any volume, too.
func TestPatternsWithoutVolumes(t *testing.T) {
	c, dir := newChecker(t, "[select]\nvolume_groups = [\"nova-volume\"]\n[[directory]]\nname = \"tree\"\npath = \"WORK\"\n")
	if err := os.WriteFile(filepath.Join(dir, "bin", "lvm"), []byte("#!/bin/sh\necho '{\"report\": []}'\n"), 0o755); err != nil { //nolint:gosec // a command can be run
		t.Fatal(err)
	}
	findings := c.volumes(t.Context())
	wantFinding(t, findings, true, "there is no logical volume on this host", "")
	wantFinding(t, findings, false, `the configuration's select.volume_groups with "nova-volume" matches no volume`, "correct the pattern")
}

// What could not be looked at is not well.
func TestKernel(t *testing.T) {
	denied := &fs.PathError{Op: "open", Path: "/dev/mapper/control", Err: fs.ErrPermission}
	for _, c := range []struct {
		release      string
		control      error
		ok           bool
		detail, hint string
	}{
		{"6.1.0-18-amd64", nil, true, "Linux 6.1.0-18-amd64 with the device-mapper", ""},
		{"5.2", nil, true, "Linux 5.2 with", ""},
		{"5.1.21", nil, false, "Linux 5.1.21", "5.2 or newer"},
		{"odd", nil, false, "Linux odd", "5.2 or newer"},
		{"6.1.0", fs.ErrNotExist, false, "Linux 6.1.0 without a device-mapper", "modprobe"},
		{"6.1.0", denied, false, "Linux 6.1.0; whether it has the device-mapper could not be looked at", asRoot},
	} {
		wantFinding(t, []Finding{checkKernel(c.release, c.control)}, c.ok, c.detail, c.hint)
	}
}

func TestSources(t *testing.T) {
	for _, c := range []struct {
		source       backup.PreviewSource
		ok           bool
		detail, hint string
	}{
		{backup.PreviewSource{Name: "@directory/srv", Path: "/srv"}, true, "@directory/srv reads /srv", ""},
		{backup.PreviewSource{Name: "@directory/srv", Path: "/srv", Note: "without /srv/b: it is"}, true, "@directory/srv reads /srv, without /srv/b: it is", ""},
		{backup.PreviewSource{Name: "@dump/db"}, true, "@dump/db is made by a command, which is not tried", ""},
		{backup.PreviewSource{Name: "@directory/srv", Path: "/srv", Problem: "gone"}, false, "@directory/srv: gone", "correct it in the configuration"},
		{backup.PreviewSource{Name: "@directory/srv", Path: "/srv", Problem: "denied", Hint: "as root"}, false, "@directory/srv: denied", "as root"},
	} {
		wantFinding(t, []Finding{checkSource(c.source)}, c.ok, c.detail, c.hint)
	}
}

func TestMail(t *testing.T) {
	for _, c := range []struct {
		text         string
		ok           bool
		detail, hint string
	}{
		{"", false, "nobody gets the report", "mail.to"},
		{"[mail]\nto = [\"op@example.org\"]\nsendmail = \"WORK/voltar.toml\"\n", true, "through WORK/voltar.toml", ""},
		{"[mail]\nto = [\"op@example.org\"]\nsendmail = \"WORK/none\"\n", false, "stat WORK/none: no such file", "mail.server"},
		{"[mail]\nto = [\"op@example.org\"]\nserver = \"127.0.0.1\"\nport = 1\ntls = \"none\"\n", false, "cannot open a session with mail server 127.0.0.1:1: ", "is 1 its port"},
		{"[mail]\nto = [\"op@example.org\"]\nserver = \"mail.invalid\"\n", false, "cannot open a session with mail server mail.invalid:587: ", "cannot look that name up"},
	} {
		checker, dir := newChecker(t, c.text)
		wantFinding(t, checker.mailServer(t.Context(), false), c.ok, strings.ReplaceAll(c.detail, "WORK", dir), c.hint)
	}
}

// A filesystem that has room and no inode takes no backup.
func TestDestinationsWithoutInodes(t *testing.T) {
	full := setup.Destination{Folder: "/full"}
	full.Store = store.Unavailable("/full", nil)
	for usage, want := range map[store.Usage]bool{
		{}: false, {Inodes: 1000, FreeInodes: 10}: false, {Inodes: 1000, FreeInodes: 9}: true, {Inodes: 16}: true,
	} {
		if f, found := checkInodes(full, usage); found != want || found && (f.OK || f.Hint == "") {
			t.Errorf("%+v: %+v", usage, f)
		}
	}
}

// Of each guest there is a line, of many the first ones, and one of what is of no guest. None is a failure.
func TestGuestsAreTold(t *testing.T) {
	notes := make([]backup.GuestNote, shownGuests+2)
	notes[0] = backup.GuestNote{Guest: "web1", Does: "vda, vdb, at one moment", NotHere: []string{"vdc (/srv/x.qcow2)"}}
	findings := checkGuests(notes, []lvm.Volume{{VG: "vg", Name: "old"}})
	if len(findings) != shownGuests+2 {
		t.Errorf("%d findings", len(findings))
	}
	wantFinding(t, findings, true, "web1: vda, vdb, at one moment; in no backup, as they are no volumes of this host: vdc (/srv/x.qcow2)", "")
	wantFinding(t, findings, true, "and 2 more guests likewise", "")
	wantFinding(t, findings, true, "of no guest: vg/old", "")
	if findings := checkGuests(nil, nil); len(findings) > 0 {
		t.Errorf("a host without guests: %+v", findings)
	}
}
