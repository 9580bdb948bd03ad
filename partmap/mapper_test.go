package partmap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"voltar/internal/hostcmd"
)

// fakeNumber numbers devices by their last letter.
func fakeNumber(device string) (string, error) {
	return fmt.Sprintf("7:%d", device[len(device)-1]-'a'), nil
}

func TestTargetTable(t *testing.T) {
	tests := []struct {
		name     string
		segments []Segment
		want     string // table, or what the error holds
	}{
		{"linear", []Segment{{SizeBytes: 1 << 20, Sources: []Source{{"/dev/a", 4096}}}}, "0 2048 linear 7:0 8\n"},
		{"two segments", []Segment{
			{SizeBytes: 512, Sources: []Source{{"/dev/a", 0}}}, {SizeBytes: 1 << 42, Sources: []Source{{"/dev/b", 1 << 43}}},
		}, "0 1 linear 7:0 0\n1 8589934592 linear 7:1 17179869184\n"},
		{"striped", []Segment{{SizeBytes: 1 << 20, StripeBytes: 65536, Sources: []Source{{"/dev/a", 0}, {"/dev/b", 512}}}},
			"0 2048 striped 2 128 7:0 0 7:1 1\n"},
		{"nothing", nil, "cannot make an empty map"},
		{"no size", []Segment{{Sources: []Source{{"/dev/a", 0}}}}, "0 bytes from 1 sources"},
		{"size of a part of a sector", []Segment{{SizeBytes: 1000, Sources: []Source{{"/dev/a", 0}}}}, "1000 bytes"},
		{"no source", []Segment{{SizeBytes: 512}}, "0 sources"},
		{"offset of a part of a sector", []Segment{{SizeBytes: 512, Sources: []Source{{"/dev/a", 100}}}}, "begins at byte 100"},
		{"offset below zero", []Segment{{SizeBytes: 512, Sources: []Source{{"/dev/a", -512}}}}, "begins at byte -512"},
		{"no stripe size", []Segment{{SizeBytes: 1024, Sources: []Source{{"/dev/a", 0}, {"/dev/b", 0}}}}, "stripes of 0 bytes"},
		{"too large", []Segment{
			{SizeBytes: 1 << 62, Sources: []Source{{"/dev/a", 0}}}, {SizeBytes: 1 << 62, Sources: []Source{{"/dev/a", 0}}},
		}, "too large"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Target{Segments: test.segments}.table(fakeNumber)
			if err != nil {
				got = err.Error()
				if strings.Contains(got, test.want) {
					return
				}
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestTargetCheck(t *testing.T) {
	good := Target{Name: "nova--volumes-volume--00000001--snapshot1", UUID: "LVM-voltar-R-1"}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	long := strings.Repeat("x", 128)
	for _, name := range []string{"", "-v", "a b", "a/b", "a\nb", ".", "..", "control", "ü", long} {
		if err := (Target{Name: name, UUID: good.UUID}).check(); err == nil {
			t.Errorf("name %q was accepted", name)
		}
	}
	for _, uuid := range []string{"", "-v", "a b", "a|b", long + "x"} {
		if err := (Target{Name: good.Name, UUID: uuid}).check(); err == nil {
			t.Errorf("UUID %q was accepted", uuid)
		}
	}
}

func TestMapRefusesWhatIsNoBlockDevice(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mapper := NewMapper(hostcmd.New(hostcmd.Options{SearchPath: []string{t.TempDir()}}), MapperOptions{})
	for _, device := range []string{file, file + "-missing"} {
		_, err := mapper.Map(t.Context(), partitionTarget(device, Partition{SizeSectors: 1, SectorBytes: 512}, "a", "b"))
		if err == nil || errors.Is(err, hostcmd.ErrNotFound) {
			t.Errorf("%s: error %v", device, err)
		}
	}
}

// partitionTarget is the target that maps one partition of a device.
func partitionTarget(device string, p Partition, name, uuid string) Target {
	return Target{Name: name, UUID: uuid, Segments: []Segment{
		{SizeBytes: p.SizeBytes(), Sources: []Source{{Device: device, OffsetBytes: p.OffsetBytes()}}},
	}}
}

// shimMapper returns a Mapper whose dmsetup is a script.
func shimMapper(t *testing.T, script string) *Mapper {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "dmsetup"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	run := hostcmd.New(hostcmd.Options{SearchPath: append([]string{dir}, hostcmd.DefaultSearchPath...)})
	return NewMapper(run, MapperOptions{RetryFor: time.Millisecond})
}

func TestUnmapDoesNotRetryOtherFailures(t *testing.T) {
	count := filepath.Join(t.TempDir(), "count")
	mapper := shimMapper(t, `case $1 in
info) echo "253|0|0|mine|name" ;;
remove) echo x >>`+count+`; echo "device-mapper: remove ioctl failed: Input/output error" >&2; exit 1 ;;
esac`)
	err := mapper.Unmap(t.Context(), "name", "mine")
	var busy *BusyError
	if err == nil || errors.As(err, &busy) || !strings.Contains(err.Error(), "Input/output error") {
		t.Errorf("error %v", err)
	}
	if tries, _ := os.ReadFile(count); string(tries) != "x\n" {
		t.Errorf("tried %q", tries)
	}
}

// What dmsetup says is not taken for what it did.
func TestUnmapLooksWhetherTheMapIsGone(t *testing.T) {
	dir := t.TempDir()
	script := `cd ` + dir + `
case $1 in
info) [ -e gone ] || echo "253|0|0|mine|name" ;;
remove) echo x >>count; [ "$(wc -l <count)" -lt NEEDED ] || touch gone ;;
esac`
	mapper := shimMapper(t, strings.ReplaceAll(script, "NEEDED", "1000"))
	err := mapper.Unmap(t.Context(), "name", "mine")
	if err == nil || !strings.Contains(err.Error(), "still there") {
		t.Errorf("error %v of a map that stays", err)
	}
	if err := os.Remove(filepath.Join(dir, "count")); err != nil {
		t.Fatal(err)
	}
	mapper = shimMapper(t, strings.ReplaceAll(script, "NEEDED", "2"))
	mapper.retryFor = time.Minute
	if err := mapper.Unmap(t.Context(), "name", "mine"); err != nil {
		t.Errorf("error %v of a map that went at the second try", err)
	}
}

// A map that goes between dmsetup's list of names and its look at each makes the whole report fail.
func TestListLooksAgainWhenAMapWentMeanwhile(t *testing.T) {
	once := filepath.Join(t.TempDir(), "once")
	mapper := shimMapper(t, `if [ ! -e `+once+` ]; then
	touch `+once+`
	echo "Device other not found" >&2; echo "Command failed." >&2; exit 1
fi
echo "253|0|0|mine|name"`)
	maps, err := mapper.List(t.Context(), "mine")
	if err != nil || len(maps) != 1 {
		t.Errorf("listed %v, %v", maps, err)
	}
	mapper = shimMapper(t, `echo "no device-mapper" >&2; exit 1`)
	if _, err := mapper.List(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "no device-mapper") {
		t.Errorf("error %v of a failure that stays", err)
	}
}

func TestUnmapLeavesAnothersMap(t *testing.T) {
	mapper := shimMapper(t, `case $1 in
info) echo "253|0|0|theirs|name" ;;
*) echo "dmsetup $* was run" >&2; exit 1 ;;
esac`)
	err := mapper.Unmap(t.Context(), "name", "mine")
	if err == nil || strings.Contains(err.Error(), "was run") || !strings.Contains(err.Error(), `"theirs"`) {
		t.Errorf("error %v", err)
	}
}

func TestParseInfo(t *testing.T) {
	maps, err := parseInfo(strings.NewReader("253|12|1|LVM-voltar-R-1|a--b-c1\n254|0|0||odd|name\n"))
	want := []Mapped{
		{Name: "a--b-c1", UUID: "LVM-voltar-R-1", Path: "/dev/mapper/a--b-c1", Major: 253, Minor: 12, OpenCount: 1},
		{Name: "odd|name", Path: "/dev/mapper/odd|name", Major: 254},
	}
	if err != nil || !slices.Equal(maps, want) {
		t.Errorf("maps %+v, %v; want %+v", maps, err, want)
	}
	if maps, err := parseInfo(strings.NewReader("No devices found\n")); err != nil || len(maps) != 0 {
		t.Errorf("no devices: %v, %v", maps, err)
	}
	for _, bad := range []string{"x|1|0|u|n", "1|2|3", "1|2|-1|u|n", "1|2|3|u|", "99999999999|1|1|u|n"} {
		if maps, err := parseInfo(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, maps)
		}
	}
}

func TestHolders(t *testing.T) {
	mount := func(number, where, source string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("36 35 " + number + " / " + where + " ro,noatime master:1 - ext4 " + source + " ro\nshort\n")}
	}
	proc := fstest.MapFS{
		"1/mountinfo":  mount("253:1", "/other", "/dev/mapper/other"),
		"12/mountinfo": mount("253:7", `/mnt/a\040b`, "/dev/dm-7"),
		"12/comm":      {Data: []byte("bash\n")},
		"13/mountinfo": mount("253:7", `/mnt/a\040b`, "/dev/dm-7"),
		"14/mountinfo": mount("0:41", "/btrfs", "/dev/mapper/map"),
		"15/comm":      {Data: []byte("no mounts\n")},
		"self/comm":    {},
		"swaps":        {Data: []byte("Filename Type Size\n/dev/dm-7 partition 1000 0 -2\n")},
	}
	aliases := []string{"/dev/mapper/map", "/dev/dm-7"}
	want := []string{`a mount at /mnt/a\040b (seen by process 12, bash)`, "a mount at /btrfs (seen by process 14, ended)"}
	if got := mountHolders(proc, 253, 7, aliases); !slices.Equal(got, want) {
		t.Errorf("mounts %q, want %q", got, want)
	}
	if got := swapHolders(proc, aliases); len(got) != 1 {
		t.Errorf("swap %q", got)
	}
	if got := swapHolders(proc, []string{"/dev/mapper/map"}); got != nil {
		t.Errorf("swap %q, but it is another's", got)
	}
	names := func(device string) string { return map[string]string{"dm-9": "upper"}[device] }
	devices := deviceHolders(fstest.MapFS{"dm-9": {}, "md0": {}}, names)
	if want := []string{"the device dm-9 (map upper)", "the device md0"}; !slices.Equal(devices, want) {
		t.Errorf("devices %q, want %q", devices, want)
	}
}

func TestLosses(t *testing.T) {
	im := newImage(8 * mib)
	im.gpt(gptSpec{entryBytes: 256, parts: []gptPart{
		{first: 200, last: 299, attrs: 1<<63 | 7},
		{slot: 1, first: 300, last: 399, attrs: 1 << 47},
	}})
	table, err := Read(im.reader(), int64(len(im)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	losses := strings.Join(table.Losses(), "\n")
	if losses != "the entries have 256 bytes, sfdisk writes 128\npartition 2 has attribute bits that sfdisk does not know" {
		t.Errorf("losses %q", losses)
	}

	im = newImage(8 * mib)
	im.mbrEntry(0, 0, 0, 0x05, 100, 8000)
	for i := range uint32(57) {
		record := int64(100 + 4*i)
		im.mbrEntry(record*512, 0, 0, 0x83, 1, 1)
		if i < 56 {
			im.mbrEntry(record*512, 1, 0, 0x05, 4*(i+1), 2)
		}
	}
	im.mbrEntry(0, 1, 0, 0x05, 8200, 10)
	if table, err = Read(im.reader(), int64(len(im)), Options{}); err != nil {
		t.Fatal(err)
	}
	losses = strings.Join(table.Losses(), "\n")
	if losses != "sfdisk knows no more than 60 partitions in an MBR\nsfdisk knows only one extended partition" {
		t.Errorf("losses %q", losses)
	}
}
