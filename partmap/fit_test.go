package partmap

import (
	"bytes"
	"strings"
	"testing"
)

func TestFit(t *testing.T) {
	gpt := "label: gpt\n\nsize=20M, type=L, name=\"a : start= 1, size= 2\"\nsize=20M\n"
	dos := "label: dos\n\nsize=20M, type=83, bootable\ntype=5\nsize=10M\nsize=20M\n"
	cases := []struct {
		name, script string
		sizeMiB      int64
		grow         bool
		number       int
		mib          int64 // of the partition that was fitted
	}{
		{"same", gpt, 64, false, 0, 0},
		{"larger, left", gpt, 128, false, 0, 0},
		{"larger, grown", gpt, 128, true, 2, 106},
		{"smaller, with room", gpt, 44, false, 0, 0},
		{"smaller", gpt, 32, false, 2, 10},
		{"dos larger, grown", dos, 128, true, 6, 95},
		{"dos smaller", dos, 48, false, 6, 15},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			disk := newDisk(t, 64*mib)
			tool(t, c.script, "sfdisk", "--quiet", disk)
			table, err := readDisk(t, disk, Options{})
			if err != nil {
				t.Fatal(err)
			}
			var text bytes.Buffer
			if err := table.SfdiskScript(&text, "/dev/x"); err != nil {
				t.Fatal(err)
			}
			script, err := ParseScript(&text)
			if err != nil {
				t.Fatal(err)
			}
			fitted, err := script.Fit(c.sizeMiB*mib, c.grow)
			if err != nil || fitted.Number != c.number || fitted.SizeBytes != c.mib*mib {
				t.Fatalf("%+v %v, want %d with %d MiB", fitted, err, c.number, c.mib)
			}
			checkWritten(t, script, table, c.sizeMiB*mib, fitted)
		})
	}
}

// checkWritten has sfdisk write a script to a new disk and compares what Read then finds with the table it came from.
func checkWritten(t *testing.T, script *Script, from *Table, sizeBytes int64, fitted Fitted) {
	t.Helper()
	disk := newDisk(t, sizeBytes)
	var text bytes.Buffer
	if err := script.Write(&text, disk); err != nil {
		t.Fatal(err)
	}
	tool(t, text.String(), "sfdisk", "--quiet", disk)
	got, err := readDisk(t, disk, Options{})
	if err != nil || len(got.Notes) > 0 {
		t.Fatalf("%v %v in\n%s", err, got, text.String())
	}
	if got.ID != from.ID || len(got.Partitions) != len(from.Partitions) {
		t.Fatalf("%+v from %+v", got, from)
	}
	for i, p := range got.Partitions {
		want := from.Partitions[i]
		if p.Number == fitted.Number {
			want.SizeSectors = uint64(fitted.SizeBytes / int64(want.SectorBytes))
		} else if p.Extended {
			want.SizeSectors = p.SizeSectors
		}
		if p.StartSectors != want.StartSectors || p.SizeSectors != want.SizeSectors || p.Type != want.Type ||
			p.UUID != want.UUID || p.Name != want.Name || p.Bootable != want.Bootable {
			t.Errorf("%+v, want %+v", p, want)
		}
	}
}

func TestFitRefuses(t *testing.T) {
	script, err := ParseScript(strings.NewReader(
		"label: gpt\nsector-size: 512\n\n/dev/x1 : start=2048, size=2048, type=0\n/dev/x2 : start=40960, size=2048, type=0\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{-1, 0, 17 << 10, 2 * mib, 20 * mib} {
		if fitted, err := script.Fit(size, true); err == nil {
			t.Errorf("%d bytes: fitted as %+v", size, fitted)
		}
	}
}

func TestParseScriptRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":          "",
		"another kind":     "label: sun\n",
		"odd sectors":      "label: dos\nsector-size: 513\n",
		"an unknown line":  "label: dos\nwrite: everywhere\n",
		"a line behind":    "label: dos\n\n/dev/x1 : start=1, size=1, type=83\nlabel: gpt\n",
		"no number":        "label: dos\n\n/dev/x : start=1, size=1, type=83\n",
		"out of range":     "label: dos\n\n/dev/x1 : start=18014398509481984, size=1, type=83\n",
		"an empty one":     "label: dos\n\n/dev/x1 : start=1, size=0, type=83\n",
		"a length as text": "label: gpt\ntable-length: many\n",
	} {
		if _, err := ParseScript(strings.NewReader(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParseScript(f *testing.F) {
	f.Add("label: gpt\nlabel-id: X\ndevice: /dev/x\nunit: sectors\nfirst-lba: 34\nlast-lba: 9\ntable-length: 4\n"+
		"sector-size: 512\n\n/dev/x1 : start=  2048, size= 4096, type=L, name=\"a\"\n", int64(64*mib), true)
	f.Add("label: dos\n\n/dev/x1 : start=1, size=9, type=5\n/dev/x5 : start=2, size=3, type=83\n", int64(mib), false)
	f.Fuzz(func(t *testing.T, text string, sizeBytes int64, grow bool) {
		script, err := ParseScript(strings.NewReader(text))
		if err != nil {
			return
		}
		fitted, err := script.Fit(sizeBytes, grow)
		if err != nil {
			return
		}
		if fitted.Number != 0 && script.NeedsBytes() > sizeBytes {
			t.Errorf("needs %d bytes of %d after fitting", script.NeedsBytes(), sizeBytes)
		}
		var written bytes.Buffer
		if err := script.Write(&written, "/dev/y"); err != nil {
			t.Fatal(err)
		}
		if _, err := ParseScript(&written); err != nil {
			t.Errorf("cannot read what was written: %v", err)
		}
	})
}
