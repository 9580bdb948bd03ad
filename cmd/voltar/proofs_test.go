package main

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/history"
	"voltar/internal/say"
	"voltar/report"
)

// proofs asks for what drills and restores have proven.
func (s site) proofs(t *testing.T) history.Proofs {
	t.Helper()
	code, out, errs := voltar(t, "report", "--proofs", "--json", "--config", s.config)
	var all history.Proofs
	if err := json.Unmarshal([]byte(out), &all); code != 0 || err != nil {
		t.Fatalf("%d, %v\n%s\n%s", code, err, errs, out)
	}
	return all
}

// A restore leaves a record, a whole one that of a proof; the report, the next night's mail, the fleet and spreadsheets tell of it.
func TestRestoresAreProofs(t *testing.T) {
	s := newSite(t, directories(t, 2))
	s.run(t, exitDone)
	to := t.TempDir()
	for _, args := range [][]string{{"--dry-run"}, {"--verify", "none"}, {"--path", "*"}, {}} {
		code, _, errs := voltar(t, append([]string{"restore", "d0", "--to-dir", filepath.Join(to, "x"+strings.ReplaceAll(strings.Join(args, ""), "*", "")), "--config", s.config}, args...)...)
		if code != exitDone {
			t.Fatalf("%q: %d\n%s", args, code, errs)
		}
	}
	all := s.proofs(t)
	var got []string
	for _, p := range all.Proofs {
		got = append(got, string(p.Verdict)+" "+p.To+" "+strings.Join(p.Checked, ","))
	}
	if want := "proven folder sums;partly folder sums;partly folder "; strings.Join(got, ";") != want {
		t.Errorf("%q, want %q", strings.Join(got, ";"), want)
	}
	if all.Never != 1 || len(all.Volumes) != 2 || all.Volumes[1].Volume != "@directory/d0" || all.Volumes[1].Proofs != 1 {
		t.Errorf("%+v", all)
	}
	text := report.Text(s.run(t, exitDone), report.Options{})
	for _, want := range []string{"d0                               0 h, 0.", "d1                               never"} {
		if !strings.Contains(strings.Join(strings.Split(text, "\n   "), ""), want) {
			t.Errorf("the night does not tell %q\n%s", want, text)
		}
	}
	for command, want := range map[string][]string{
		"report --fleet":                   {"The oldest proof is that of @directory/d0", " ago.\n"},
		"report --proofs":                  {"@directory/d1  never", "restore to folder", "3 drills and restores", "of 2 volumes; 1 never restored"},
		"report --proofs --since 1h --csv": {"time,command,volume", ",restore,@directory/d0,,@directory/d0@"},
		"report --html -":                  {"oldest proof: @directory/d0"},
	} {
		code, out, errs := voltar(t, append(strings.Fields(command), "--config", s.config)...)
		for _, text := range want {
			if code != exitDone || !strings.Contains(out, text) {
				t.Errorf("%s: %d, without %q\n%s\n%s", command, code, text, errs, out)
			}
		}
	}
	code, _, errs := voltar(t, "restore", "d1", "--to-dir", to, "--config", s.config, "--from", s.backups+"/", "--host", "another")
	if code == exitDone || len(s.proofs(t).Proofs) != 3 {
		t.Errorf("of another host: %d\n%s", code, errs)
	}
}

// A damaged backup that was to be restored is told as damaged.
func TestDamageThatARestoreFinds(t *testing.T) {
	s := newSite(t, directories(t, 1))
	s.run(t, exitDone)
	archives, err := filepath.Glob(filepath.Join(s.backups, "*", "@directory", "d0", "*", "*.tar.gz"))
	if err != nil || len(archives) != 1 {
		t.Fatal(archives, err)
	}
	data, err := os.ReadFile(archives[0])
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(archives[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, _ := voltar(t, "restore", "d0", "--to-dir", t.TempDir()+"/new", "--config", s.config); code == exitDone {
		t.Error("it was restored")
	}
	if all := s.proofs(t); len(all.Proofs) != 1 || all.Proofs[0].Verdict != history.Damaged || !strings.Contains(all.Proofs[0].Error, filepath.Base(archives[0])) {
		t.Errorf("%+v", all.Proofs)
	}
}

// A name that a spreadsheet would take for a formula does nothing there.
func TestProofsInSpreadsheets(t *testing.T) {
	var out strings.Builder
	a := &app{stdout: say.NewWriter(&out)}
	if err := a.writeProofsCSV([]history.Proof{{Guest: "=HYPERLINK(\"x\")", Volume: "vg/a", Error: "one\ntwo\x1b, three"}}); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(out.String())).ReadAll()
	if err != nil || len(rows) != 2 || rows[1][3] != "'=HYPERLINK(\"x\")" || rows[1][13] != "one; two\\x1b, three" {
		t.Errorf("%q, %v", rows, err)
	}
}
