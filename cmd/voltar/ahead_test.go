package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
)

// A backup dated twenty years ahead, by a clock that jumped or by whoever may write to the store, is shown as such, and is
// good news to nobody.
func TestBackupsThatAreDatedAhead(t *testing.T) {
	s := newSite(t, "")
	near := browsetest.Open(t, s.backups)
	fill := func(text string) func(string) {
		return func(dir string) {
			if err := os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o640); err != nil {
				t.Fatal(err)
			}
		}
	}
	ahead := browsetest.Night.AddDate(20, 0, 0)
	now := browsetest.Night.AddDate(0, 0, 3)
	browsetest.Make(t, near, browsetest.Spec{LV: "late", Whole: true, Fill: fill("real")})
	browsetest.Make(t, near, browsetest.Spec{LV: "late", Whole: true, Fill: fill("of the future"), Time: ahead})
	browsetest.Make(t, near, browsetest.Spec{LV: "only", Whole: true, Fill: fill("of the future"), Time: ahead})
	if err := catalog.Claim(t.Context(), near, catalog.Host{Name: browsetest.Host, MachineID: "machine"}, now); err != nil {
		t.Fatal(err)
	}
	at := func(args ...string) (int, string, string) {
		t.Helper()
		return voltarAt(t, now, append(args, "--config", s.config)...)
	}
	future := "@" + catalog.FormatTime(ahead)

	t.Run("list", func(t *testing.T) {
		code, out, errs := at("list", "--json")
		var lines []catalog.Line
		if err := json.Unmarshal([]byte(out), &lines); err != nil || code != exitDone {
			t.Fatalf("%d, %v\n%s", code, err, errs)
		}
		for _, l := range lines {
			if isAhead := strings.HasSuffix(l.Backup, future); l.Ahead != isAhead || (l.Status == "ahead") != isAhead {
				t.Errorf("%+v", l)
			}
		}
		if len(lines) != 3 {
			t.Errorf("%+v", lines)
		}
	})
	t.Run("fleet", func(t *testing.T) {
		code, out, errs := at("report", "--fleet", "--json")
		var lines []catalog.FleetLine
		if err := json.Unmarshal([]byte(out), &lines); err != nil || code != exitAttention {
			t.Fatalf("%d, %v\n%s", code, err, errs)
		}
		for _, l := range lines {
			if !l.Late || l.Good.After(now) || l.Newest.After(now) || !l.Ahead.Equal(ahead) {
				t.Errorf("%+v", l)
			}
		}
		if _, out, _ := at("report", "--fleet"); strings.Count(out, "is dated ahead of this host's clock") != 2 {
			t.Error(out)
		}
	})
	t.Run("newest of all hosts", func(t *testing.T) {
		code, out, _ := at("list", "--all-hosts")
		if code != exitDone || !strings.Contains(out, "late"+"@"+catalog.FormatTime(browsetest.Night)) {
			t.Errorf("%d: the real one is not listed\n%s", code, out)
		}
	})
	t.Run("the newest is a real one", func(t *testing.T) {
		code, out, errs := at("cat", "late", "/file")
		if code != exitDone || out != "real" || !strings.Contains(errs, "vg/late"+future+", dated ahead") {
			t.Errorf("%d %q\n%s", code, out, errs)
		}
		code, out, errs = at("restore", "late", "--dry-run", "--to-dir", t.TempDir())
		if code != exitDone || strings.Contains(out, future) || !strings.Contains(errs, "vg/late"+future) {
			t.Errorf("restore: %d\n%s\n%s", code, out, errs)
		}
	})
	t.Run("nothing else is there", func(t *testing.T) {
		if code, out, errs := at("cat", "only", "/file"); code == exitDone || out != "" || !strings.Contains(errs, "dated ahead") {
			t.Errorf("%d %q\n%s", code, out, errs)
		}
	})
	t.Run("named", func(t *testing.T) {
		code, out, errs := at("cat", "late"+future, "/file")
		if code != exitDone || out != "of the future" || !strings.Contains(errs, "is dated ahead") {
			t.Errorf("%d %q\n%s", code, out, errs)
		}
	})
	t.Run("once its time has come", func(t *testing.T) {
		code, out, _ := voltarAt(t, ahead.Add(-time.Minute), "cat", "late", "/file", "--config", s.config)
		if code != exitDone || out != "of the future" {
			t.Errorf("%d %q", code, out)
		}
	})
}
