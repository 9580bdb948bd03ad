package lvm

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func parseFile(t *testing.T, name string) Inventory {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inv, err := ParseReport(f)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// fullreport.json was recorded from lvm2 2.03.16: linear, striped, two segments, inactive, thin with a clone and a skipped
// snapshot, a classic snapshot with tags, raid1, mirror; groups that are empty, foreign and exported.
func TestParseReport(t *testing.T) {
	inv := parseFile(t, "fullreport.json")
	got, err := json.MarshalIndent(inv, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "fullreport.golden.json")
	if *update {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(want)) != string(got) {
		t.Errorf("differs from %s; see with -update and git diff", golden)
	}
}

// lvm.conf can turn lvm2's words into 0, 1 and -1.
func TestParseReportWithBinaryValues(t *testing.T) {
	if !reflect.DeepEqual(parseFile(t, "fullreport-binary.json"), parseFile(t, "fullreport.json")) {
		t.Error("the two forms of one report differ")
	}
}

func TestParseReportJSONStd(t *testing.T) {
	inv, err := ParseReport(strings.NewReader(`{"report":[{"lv":[{"lv_name":"a","vg_name":"v","lv_uuid":"u","lv_size":4194304,
		"lv_tags":["x","y"],"lv_layout":["thin","sparse"],"lv_role":["public"],"lv_kernel_major":254,"lv_kernel_minor":3,
		"data_percent":12.5,"metadata_percent":null,"lv_suspended":null,"lv_device_open":1}]}],"log":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	v := inv.Volumes[0]
	if v.SizeBytes != 4194304 || strings.Join(v.Tags, " ") != "x y" || v.Kind != KindThin || v.KernelMinor != 3 || !v.Active ||
		v.DataPercent != 12.5 || v.MetadataPercent != Unknown || v.Suspended || !v.Open {
		t.Errorf("%+v", v)
	}
}

func TestParseReportRefuses(t *testing.T) {
	lv := func(more string) string {
		return `{"report":[{"lv":[{"lv_name":"a","vg_name":"v","lv_uuid":"u"` + more + `}]}]}`
	}
	for name, tt := range map[string]struct{ in, want string }{
		"nothing":             {"", "there is none"},
		"no JSON":             {"  LV VG\n  a b\n", "there is none"},
		"cut off":             {`{"report":[{"lv":[`, "unexpected EOF"},
		"another document":    {`{"volumes":[]}`, "there is none"},
		"no list":             {`{"report":null}`, "no part named report"},
		"two documents":       {lv("") + lv(""), "another report"},
		"no name":             {`{"report":[{"lv":[{"vg_name":"v","lv_uuid":"u"}]}]}`, "lv_name is missing"},
		"no UUID":             {`{"report":[{"lv":[{"lv_name":"a","vg_name":"v"}]}]}`, "lv_uuid is missing"},
		"size with a unit":    {lv(`,"lv_size":"4.00m"`), "lv_size is no number"},
		"negative size":       {lv(`,"lv_size":"-4"`), "lv_size is no number"},
		"size beyond 64 bits": {lv(`,"lv_size":"99999999999999999999"`), "lv_size is no number"},
		"size a list":         {lv(`,"lv_size":["1"]`), "lv_size is a list"},
		"size an object":      {lv(`,"lv_size":{}`), "neither text, number nor list"},
		"percentage a comma":  {lv(`,"data_percent":"12,5"`), "data_percent is no percentage"},
		"percentage NaN":      {lv(`,"data_percent":"NaN"`), "data_percent is no percentage"},
		"device a word":       {lv(`,"lv_kernel_major":"x"`), "lv_kernel_major is no device number"},
		"tags of numbers":     {lv(`,"lv_tags":[1]`), "number"},
		"group without UUID":  {`{"report":[{"vg":[{"vg_name":"v"}]}]}`, `volume group "v": column vg_uuid`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseReport(strings.NewReader(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

// What lvm2 says besides its report is no part of it, wherever it stands.
func TestParseReportKeepsTextAroundIt(t *testing.T) {
	doc := "  {\n      \"report\": [\n {\"lv\": [{\"lv_name\":\"a\",\"vg_name\":\"v\",\"lv_uuid\":\"u\"}]}]\n  }\n"
	const prune = "Consider pruning vg0 VG archive with more then 8 MiB in 8403 files (check archiving is needed in lvm.conf)."
	for name, tt := range map[string]struct{ in, warnings string }{
		"nothing":       {doc, ""},
		"before":        {"  " + prune + "\n  " + prune + "\n" + doc, prune},
		"after":         {doc + "  late\n", "late"},
		"with a brace":  {"  odd { \"report\": thing\n" + doc, `odd { "report": thing`},
		"on its line":   {"WARNING" + doc, "WARNING"},
		"two sentences": {"  one\n  two\n" + doc + "three", "one\ntwo\nthree"},
	} {
		inv, err := ParseReport(strings.NewReader(tt.in))
		if err != nil || len(inv.Volumes) != 1 || inv.Warnings != tt.warnings {
			t.Errorf("%s: %d volumes, warnings %q, %v, want %q", name, len(inv.Volumes), inv.Warnings, err, tt.warnings)
		}
	}
	inv, err := ParseReport(strings.NewReader(strings.Repeat("a\n", 1000) + doc))
	if err != nil || inv.Warnings != "a" {
		t.Errorf("%q, %v, want each line once", inv.Warnings, err)
	}
}

// With log/verbose in lvm.conf lvm2 2.03.16 writes this to standard error of each report, before and after our settings hold.
func TestChatterOfLvm2IsNoWarning(t *testing.T) {
	const chatter = "  log/journal contains a value which is not a string.  Ignoring.\n  Logging initialised at Mon Nov 30 12:09:23 2026\n" +
		"  Set umask from 0022 to 0077\n"
	const debug = "12:10:53.560230 none[12148] config/config.c:1501  log/journal not found in config: defaulting to journal = [ ]\n" +
		"12:10:53.560428 none[12148] commands/toolcontext.c:445  Logging initialised at Mon Nov 30 12:10:53 2026\n"
	for name, tt := range map[string]struct{ in, want string }{
		"silent":                   {"", ""},
		"verbose":                  {chatter + "  Reloading config files\n" + chatter, ""},
		"debug":                    {debug, ""},
		"trouble":                  {"voltar: WARNING: PV a is missing.\nvoltar: Volume group \"vg\" not found\n", "WARNING: PV a is missing.\nVolume group \"vg\" not found\n"},
		"trouble in chatter":       {chatter + "voltar: WARNING: PV a is missing.\n" + chatter, "WARNING: PV a is missing.\n"},
		"trouble at the start":     {"  Failed to open /run/lock/lvm\n", "  Failed to open /run/lock/lvm\n"},
		"a warning at the start":   {"  WARNING: odd lvm.conf.\n" + chatter, "  WARNING: odd lvm.conf.\n"},
		"debug, and trouble in it": {debug + "voltar: PV a is missing.\n", "PV a is missing.\n"},
	} {
		if got := messages(tt.in); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// What a report and an error of lvm2 have to say comes without the mark and the chatter.
func TestReportsOfAVerboseLvm2(t *testing.T) {
	h := newFakeHost(t)
	const chatter = `printf '  Logging initialised at Mon Nov 30 12:09:23 2026\n  Set umask from 0022 to 0077\n' >&2; `
	h.write("lvs.json", strings.ReplaceAll(lvs(origin0+"}"), "[", "[\n"))
	h.script("lvm", chatter+`echo 'voltar: WARNING: PV a is missing.' >&2; sed 's/^/voltar: /' lvs.json`)
	inv, err := h.Inventory(t.Context())
	if err != nil || len(inv.Volumes) != 1 || inv.Warnings != "WARNING: PV a is missing." {
		t.Errorf("%d volumes, warnings %q, %v", len(inv.Volumes), inv.Warnings, err)
	}
	h.script("lvm", chatter+`echo 'voltar: cannot lock' >&2; exit 3`)
	if _, err := h.Inventory(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "exit status 3: cannot lock") {
		t.Errorf("%v", err)
	}
}

func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		layout, role string
		want         Kind
		internal     bool
	}{
		{"linear", "public", KindLinear, false},
		{"linear", "public,origin,thickorigin", KindLinear, false},
		{"linear", "public,snapshot,thicksnapshot", KindSnapshot, false},
		{"striped", "public", "striped", false},
		{"thin,sparse", "public,snapshot,thinsnapshot", KindThin, false},
		{"thin,pool", "private", KindThinPool, false},
		{"linear", "private,thin,pool,metadata", KindLinear, true},
		{"raid,raid5,raid5_ls", "public", "raid5", false},
		{"mirror", "public", "mirror", false},
		{"cache", "public", "cache", false},
		{"cache,pool", "private", KindCachePool, false},
		{"vdo", "public", "vdo", false},
		{"vdo,pool", "private", KindVDOPool, false},
		{"", "", KindUnknown, false},
	} {
		in := `{"report":[{"lv":[{"lv_name":"a","vg_name":"v","lv_uuid":"u","lv_layout":"` + tt.layout + `","lv_role":"` + tt.role + `"}]}]}`
		inv, err := ParseReport(strings.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		if v := inv.Volumes[0]; v.Kind != tt.want || v.Internal != tt.internal {
			t.Errorf("%s (%s): %s internal %v, want %s internal %v", tt.layout, tt.role, v.Kind, v.Internal, tt.want, tt.internal)
		}
	}
}

func FuzzParseReport(f *testing.F) {
	for _, name := range []string{"fullreport.json", "fullreport-binary.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Add(`{"report":[{"lv":[{"lv_name":"[a]","vg_name":"v","lv_uuid":"u","lv_size":1,"lv_tags":["x"],"data_percent":null}]}]}`)
	f.Fuzz(func(t *testing.T, in string) {
		inv, err := ParseReport(strings.NewReader(in))
		if err != nil {
			return
		}
		for _, v := range inv.Volumes {
			if v.Name == "" || v.VG == "" || v.UUID == "" || v.SizeBytes < 0 || v.MetadataBytes < 0 || v.OriginBytes < 0 ||
				(v.DataPercent < 0 && v.DataPercent != Unknown) || (v.SnapshotInvalid && !v.ValidityKnown) ||
				v.Active != (v.KernelMajor >= 0 && v.KernelMinor >= 0) {
				t.Errorf("%+v", v)
			}
		}
		for _, vg := range inv.VGs {
			if vg.Name == "" || vg.UUID == "" || vg.FreeBytes < 0 || vg.ExtentBytes < 0 {
				t.Errorf("%+v", vg)
			}
		}
	})
}
