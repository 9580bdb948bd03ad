package partmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/hostcmd"
	"voltar/internal/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m, lab.Options{})) }

const labUUID = "LVM-voltar-20261120T010001Z-"

func labMapper(retryFor time.Duration) *Mapper {
	return NewMapper(hostcmd.New(hostcmd.Options{}), MapperOptions{RetryFor: retryFor})
}

// readDevice reads the table of a block device.
func readDevice(t *testing.T, device string, sectorBytes int) *Table {
	t.Helper()
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Read(f, size, Options{SectorBytes: sectorBytes})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func sfdiskTo(t *testing.T, script, device string) {
	t.Helper()
	_, err := hostcmd.New(hostcmd.Options{}).Run(t.Context(), hostcmd.Cmd{
		Name: "sfdisk", Args: []string{"-q", "--no-reread", "--no-tell-kernel", device}, Stdin: strings.NewReader(script),
	})
	if err != nil {
		t.Fatal(err)
	}
}

var kpartxLine = regexp.MustCompile(`(?m)^(?:add map )?(\S+) (?:\(\d+:\d+\))?: 0 (\d+) (?:linear )?(?:/dev/)?\S+ (\d+)`)

// TestLabNamesAreKpartxs maps the partitions of volumes as kpartx does, first one and then the other.
func TestLabNamesAreKpartxs(t *testing.T) {
	lab.VG(t, "nova-volumes", 512<<20)
	scripts := map[string]string{
		"volume-00000001":          "label: gpt\nd1 : size=8M\nd3 : size=8M\nd10 : size=8M\n",
		"volume-00000001-snapshot": "label: dos\nd1 : size=8M\nd3 : size=30M, type=5\nd5 : size=8M\nd6 : size=8M\n",
	}
	for lv, script := range scripts {
		device := lab.LV(t, "nova-volumes", lv, 128<<20)
		sfdiskTo(t, script, device)
		table := readDevice(t, device, 512)
		want := map[string]string{}
		out := lab.Do(t, "kpartx", "-av", device)
		for _, m := range kpartxLine.FindAllStringSubmatch(out, -1) {
			want[m[1]] = m[2] + "@" + m[3]
		}
		lab.Do(t, "kpartx", "-d", device)

		mapper := labMapper(0)
		got := map[string]string{}
		for _, p := range table.Partitions {
			name := MapName(DMName("nova-volumes", lv), p.Number)
			if p.Extended {
				delete(want, name) // kpartx maps a stub of the container
				continue
			}
			uuid := labUUID + name
			mapped, err := mapper.Map(t.Context(), partitionTarget(device, p, name, uuid))
			if err != nil {
				t.Fatal(err)
			}
			fields := strings.Fields(lab.Do(t, "dmsetup", "table", name))
			got[name] = fields[1] + "@" + fields[4]
			if mapped.Path != "/dev/mapper/"+name {
				t.Errorf("path %s", mapped.Path)
			}
			if size := strings.TrimSpace(lab.Do(t, "blockdev", "--getsize64", mapped.Path)); size != fmt.Sprint(p.SizeBytes()) {
				t.Errorf("%s has %s bytes, want %d", name, size, p.SizeBytes())
			}
			if err := mapper.Unmap(t.Context(), name, uuid); err != nil {
				t.Error(err)
			}
		}
		if len(want) < 3 || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: mapped %v, kpartx %v (%s)", lv, got, want, out)
		}
	}
}

// TestLabLargeSectors holds Read against sfdisk on a device of 4096-byte sectors.
func TestLabLargeSectors(t *testing.T) {
	device := lab.Disk4K(t, 128<<20)
	for _, script := range []string{
		"label: gpt\nd1 : size=8M, name=\"x\"\nd4 : size=8M\n",
		"label: dos\nd1 : size=8M\nd2 : size=40M, type=5\nd5 : size=8M\nd6 : size=8M\n",
	} {
		sfdiskTo(t, script, device)
		var got bytes.Buffer
		if err := readDevice(t, device, 4096).SfdiskScript(&got, device); err != nil {
			t.Fatal(err)
		}
		if want := lab.Do(t, "sfdisk", "--dump", device); got.String() != want {
			t.Errorf("script:\n%s\nsfdisk --dump:\n%s", got.String(), want)
		}
	}
}

// TestLabMapsWhatItSays reads through maps of several segments what lies beneath them.
func TestLabMapsWhatItSays(t *testing.T) {
	a, b := lab.Disk(t, 8<<20), lab.Disk(t, 8<<20)
	pattern := func(seed byte) []byte {
		p := make([]byte, 8<<20)
		for i := range p {
			p[i] = seed + byte(i>>9)
		}
		return p
	}
	disks := map[string][]byte{a: pattern(0), b: pattern(101)}
	for device, content := range disks {
		if err := os.WriteFile(device, content, 0); err != nil {
			t.Fatal(err)
		}
	}
	target := Target{Name: "guest-vg-root", UUID: labUUID + "lv", ReadOnly: true, Segments: []Segment{
		{SizeBytes: 1 << 20, Sources: []Source{{b, 3 << 20}}},
		{SizeBytes: 2 << 20, Sources: []Source{{a, 512}}},
		{SizeBytes: 1 << 20, StripeBytes: 64 << 10, Sources: []Source{{a, 4 << 20}, {b, 5 << 20}}},
	}}
	want := slices.Concat(disks[b][3<<20:4<<20], disks[a][512:512+2<<20])
	for i := range 8 {
		want = append(want, disks[a][4<<20+i*64<<10:][:64<<10]...)
		want = append(want, disks[b][5<<20+i*64<<10:][:64<<10]...)
	}
	mapper := labMapper(0)
	mapped, err := mapper.Map(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(mapped.Path)
	if err != nil {
		t.Error(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes read through the map differ from the %d beneath it", len(got), len(want))
	}
	if ro := strings.TrimSpace(lab.Do(t, "blockdev", "--getro", mapped.Path)); ro != "1" {
		t.Errorf("read-only flag %s", ro)
	}

	list, err := mapper.List(t.Context(), labUUID)
	if err != nil || len(list) != 1 || list[0] != *mapped {
		t.Errorf("list %+v, %v; want %+v", list, err, *mapped)
	}
	if list, err := mapper.List(t.Context(), "LVM-voltar-other"); err != nil || len(list) != 0 {
		t.Errorf("list of another run: %+v, %v", list, err)
	}
	twin := target
	twin.UUID += "2"
	if _, err := mapper.Map(t.Context(), twin); !errors.Is(err, ErrMapExists) {
		t.Errorf("same name again: %v", err)
	}
	twin = target
	twin.Name += "2"
	if _, err := mapper.Map(t.Context(), twin); !errors.Is(err, ErrMapExists) {
		t.Errorf("same UUID again: %v", err)
	}
	if err := mapper.Unmap(t.Context(), target.Name, labUUID+"other"); err == nil {
		t.Error("a map of another UUID was removed")
	}
	if _, err := os.Stat(mapped.Path); err != nil {
		t.Error(err)
	}
	for range 2 { // the second time there is nothing to remove
		if err := mapper.Unmap(t.Context(), target.Name, target.UUID); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(mapped.Path); !os.IsNotExist(err) {
		t.Errorf("the node is still there: %v", err)
	}
}

// TestLabUnmapRemovesALoneNode is what a run leaves that was killed between the map and its node.
func TestLabUnmapRemovesALoneNode(t *testing.T) {
	lab.Do(t, "mknod", "/dev/mapper/gone", "b", "253", "77")
	if err := labMapper(0).Unmap(t.Context(), "gone", labUUID+"gone"); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat("/dev/mapper/gone"); !os.IsNotExist(err) {
		t.Errorf("the node is still there: %v", err)
	}
}

func TestLabMapThatFailsLeavesNothing(t *testing.T) {
	device := lab.Disk(t, 1<<20)
	target := Target{Name: "too-long", UUID: labUUID + "x", Segments: []Segment{{SizeBytes: 2 << 20, Sources: []Source{{device, 0}}}}}
	mapper := labMapper(0)
	if mapped, err := mapper.Map(t.Context(), target); err == nil {
		t.Errorf("mapped %+v past the end of the device", mapped)
	}
	if list, err := mapper.List(t.Context(), labUUID); err != nil || len(list) != 0 {
		t.Errorf("maps left: %+v, %v", list, err)
	}
}

// TestLabBusyMapNamesItsHolder keeps a map in use in each of the ways that there are.
func TestLabBusyMapNamesItsHolder(t *testing.T) {
	device := lab.Disk(t, 32<<20)
	mapper := labMapper(time.Millisecond)
	target := Target{Name: "busy", UUID: labUUID + "busy", Segments: []Segment{{SizeBytes: 32 << 20, Sources: []Source{{device, 0}}}}}
	mapped, err := mapper.Map(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	expectBusy := func(t *testing.T, want string) {
		t.Helper()
		err := mapper.Unmap(t.Context(), target.Name, target.UUID)
		var busy *BusyError
		if !errors.As(err, &busy) || busy.OpenCount < 1 || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want a BusyError with %q", err, want)
		}
	}
	t.Run("mount", func(t *testing.T) {
		lab.Do(t, "mkfs.ext4", "-q", mapped.Path)
		dir := lab.Mount(t, mapped.Path, "ro")
		expectBusy(t, "a mount at "+dir)
	})
	t.Run("mount in another namespace", func(t *testing.T) {
		dir := t.TempDir()
		cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount -o ro "$1" "$2" && echo mounted && read x`, "sh", mapped.Path, dir)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, len("mounted\n"))); err != nil {
			t.Error(err)
		}
		expectBusy(t, "a mount at "+dir)
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Log("the holder ended:", err)
		}
	})
	t.Run("map on the map", func(t *testing.T) {
		upper := Target{Name: "upper", UUID: labUUID + "upper", Segments: []Segment{{SizeBytes: 1 << 20, Sources: []Source{{mapped.Path, 0}}}}}
		if _, err := mapper.Map(t.Context(), upper); err != nil {
			t.Fatal(err)
		}
		expectBusy(t, "(map upper)")
		if err := mapper.Unmap(t.Context(), upper.Name, upper.UUID); err != nil {
			t.Error(err)
		}
	})
	t.Run("swap", func(t *testing.T) {
		lab.Do(t, "mkswap", mapped.Path)
		lab.Do(t, "swapon", mapped.Path)
		expectBusy(t, "the host's swap")
		lab.Do(t, "swapoff", mapped.Path)
	})
	t.Run("open descriptor, which is closed in time", func(t *testing.T) {
		f, err := os.Open(mapped.Path)
		if err != nil {
			t.Fatal(err)
		}
		expectBusy(t, fmt.Sprintf("process %d (", os.Getpid()))
		timer := time.AfterFunc(time.Second, func() { f.Close() })
		defer timer.Stop()
		if err := labMapper(time.Minute).Unmap(t.Context(), target.Name, target.UUID); err != nil {
			t.Error(err)
		}
	})
}

func TestLabUnmapEndsWithItsContext(t *testing.T) {
	device := lab.Disk(t, 1<<20)
	mapper := labMapper(time.Hour)
	target := Target{Name: "held", UUID: labUUID + "held", Segments: []Segment{{SizeBytes: 1 << 20, Sources: []Source{{device, 0}}}}}
	mapped, err := mapper.Map(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(mapped.Path)
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("stopped by a person")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(time.Second, func() { cancel(cause) })
	if err := mapper.Unmap(ctx, target.Name, target.UUID); !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
	f.Close()
	if err := mapper.Unmap(t.Context(), target.Name, target.UUID); err != nil {
		t.Error(err)
	}
}

// TestLabWithUdev has udevd run, as on a production host: it must neither be waited for in vain nor link the map into
// the folder of a volume group.
func TestLabWithUdev(t *testing.T) {
	device := lab.Disk(t, 16<<20)
	if old, ok := os.LookupEnv("DM_DISABLE_UDEV"); ok {
		if err := os.Unsetenv("DM_DISABLE_UDEV"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Setenv("DM_DISABLE_UDEV", old); err != nil {
				t.Error(err)
			}
		})
	}
	daemon := exec.Command("/usr/lib/systemd/systemd-udevd")
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := daemon.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = daemon.Wait() // it was killed
		if err := os.RemoveAll("/run/udev"); err != nil {
			t.Error(err)
		}
	})
	for tries := 0; ; tries++ {
		if _, err := os.Stat("/run/udev/control"); err == nil {
			break
		} else if tries == 3000 {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	lab.Do(t, "udevadm", "settle")

	mapper := labMapper(0)
	target := Target{Name: "vg0-lv0p1", UUID: labUUID + "udev", Segments: []Segment{{SizeBytes: 16 << 20, Sources: []Source{{device, 0}}}}}
	mapped, err := mapper.Map(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	if err := mapped.checkNode(); err != nil {
		t.Error(err)
	}
	lab.Do(t, "udevadm", "settle")
	if _, err := os.Lstat("/dev/vg0"); err == nil {
		t.Error("udev took the map for a logical volume")
	}
	if err := mapper.Unmap(t.Context(), target.Name, target.UUID); err != nil {
		t.Error(err)
	}
	lab.Do(t, "udevadm", "settle")
	if left, err := filepath.Glob("/dev/mapper/vg0-*"); err != nil || len(left) > 0 {
		t.Errorf("nodes left: %q, %v", left, err)
	}
}
