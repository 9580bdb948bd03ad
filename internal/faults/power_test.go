package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"voltar/internal/lab"
)

// powerDiskBytes is the disk that outlives the cuts: a volume group, and in it the destination and the state.
const powerDiskBytes = 512 << 20

// powerCycle is what the machine does each time that it is switched on: check what the last cut left, and start the next
// run. The first time it makes everything.
const powerCycle = `
fail() { echo "WRONG: $*"; exit 1; }
device_names() { dmsetup ls | cut -f1 | sort | tr '\n' ' '; }
if ! vgs vg >/dev/null 2>&1; then
	vgcreate -q -y vg /dev/ubda >/dev/null
	lvcreate -q -y -Wn -L 320M -n store vg >/dev/null
	lvcreate -q -y -Wn -L 24M -n classic vg >/dev/null
	lvcreate -q -y --type thin-pool -L 32M -n pool vg >/dev/null 2>&1
	lvcreate -q -y --thin -V 16M -n thin vg/pool >/dev/null 2>&1
	mkfs.xfs -q /dev/vg/store # where backups share their blocks
	for v in classic thin; do
		mkfs.ext4 -q -b 4096 /dev/vg/$v && mount /dev/vg/$v /mnt && head -c 2M /dev/urandom >/mnt/data && umount /mnt
	done
	mkdir -p /srv && mount /dev/vg/store /srv
	cat >/srv/voltar.toml <<-END
		host = "volume-host"
		state_dir = "/srv/state"
		[[destination]]
		name = "disk"
		type = "disk"
		path = "/srv"
		[snapshot]
		min_size = "8MiB"
		[retention]
		keep_last = 2
	END
	voltar run --config /srv/voltar.toml >/tmp/out 2>&1 || { cat /tmp/out; fail "the first run"; }
	read -r began _ </proc/uptime
	voltar run --config /srv/voltar.toml >/tmp/out 2>&1 || { cat /tmp/out; fail "the second run"; }
	read -r ended _ </proc/uptime
	echo "took $began $ended"
	device_names >/srv/devices
	sync
else
	vgchange -q -ay vg >/dev/null
	mkdir -p /srv && mount /dev/vg/store /srv || fail "the destination cannot be mounted"
	voltar cleanup --config /srv/voltar.toml >/tmp/out 2>&1 || { cat /tmp/out; fail "the next start"; }
	sed 's/^/next start: /' /tmp/out
	[ "$(device_names)" = "$(cat /srv/devices)" ] || fail "devices are left: $(device_names)"
	lvs --noheadings -o lv_tags vg | grep -q voltar && fail "snapshots are left: $(lvs vg)"
	[ -z "$(ls /srv/state/journal)" ] || fail "journals are left"
	left=$(find /srv/volume-host -name '.*')
	[ -z "$left" ] || fail "left in the destination: $left"
	for folder in $(cat /srv/newest); do
		[ -e "$folder/manifest.json" ] || fail "an earlier backup is gone: $folder"
	done
fi
for folder in /srv/volume-host/vg/*/*; do
	[ -e "$folder/manifest.json" ] || fail "an unfinished backup: $folder"
	(cd "$folder" && sha1sum --strict --quiet -c *.checksum) || fail "a backup with wrong sums: $folder"
	gzip -t "$folder"/*.gz || fail "a damaged archive: $folder"
done
voltar list --json --config /srv/voltar.toml >/tmp/list || fail "voltar list"
grep -qE '"(unreadable|unfinished)"' /tmp/list && fail "listed: $(cat /tmp/list)"
for volume in classic thin; do ls -d /srv/volume-host/vg/$volume/* | tail -n 1; done >/srv/newest
sync
[ ! -e /out/last ] || { echo good; exit 0; }
echo ready
voltar run --config /srv/voltar.toml >/tmp/out 2>&1
sleep 600
`

// TestBootPowerCuts stops the whole machine dead at moments spread at random over a run, and looks at what is there when
// it is switched on again. What had not reached its disk is lost, as with a disk without a cache of its own; that the
// program also bears a disk which reorders is what TestLabWriteOrder shows.
func TestBootPowerCuts(t *testing.T) {
	if os.Getenv("VOLTAR_LAB") == "off" {
		t.Skip("VOLTAR_LAB=off: NOTHING IS TESTED AGAINST POWER CUTS")
	}
	s, err := settingsOfRun()
	if err != nil {
		t.Fatal(err)
	}
	if s.Part > 0 {
		return // one machine has all the cuts, in the first part
	}
	layer, err := buildLayer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	m := lab.Machine{Script: powerCycle, Disk: filepath.Join(dir, "disk.img"), Share: filepath.Join(dir, "share"), Layers: []string{layer}}
	if err := errors.Join(lab.NewDisk(m.Disk, powerDiskBytes), os.Mkdir(m.Share, 0o755)); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(s.Seed, 2))
	var whole time.Duration
	results := results{s.folder(), s.Part}
	done, err := results.read("cuts")
	if err != nil {
		t.Fatal(err)
	}
	if len(done) >= s.Cuts {
		return
	}
	var cut *verdict // the last one, until the next start has looked at what it left
	for i := range s.Cuts + 1 {
		share := random.Float64()
		if i < len(done) {
			continue
		}
		if i == s.Cuts {
			if err := os.WriteFile(filepath.Join(m.Share, "last"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		c := startCycle(t, m)
		took, words, ok := c.ready()
		whole = max(whole, took)
		if cut != nil {
			if !ok {
				cut.Wrong = []string{words}
			}
			if err := results.add("cuts", *cut); err != nil {
				t.Fatal(err)
			}
		}
		if !ok {
			t.Fatalf("after %d cuts: %s", i, words)
		}
		if i == s.Cuts {
			if status, err := c.machine.Wait(); err != nil || status != 0 {
				t.Fatalf("after the last cut: status %d, %v\n%s", status, err, words)
			}
			break
		}
		after := time.Duration(share * float64(whole))
		time.Sleep(after)
		c.machine.Stop()
		if _, err := c.machine.Wait(); !errors.Is(err, lab.ErrPowerCut) {
			t.Fatal(err)
		}
		cut = &verdict{ID: fmt.Sprintf("cut/%d", i+1), Class: "power cut", Step: stepRun, Struck: true, Code: -1, Millis: after.Milliseconds()}
		t.Logf("%s: %s after the start of a run of %s; before it: %s", cut.ID, after.Round(time.Millisecond), whole, words)
	}
}

// cycle is the machine while it is switched on.
type cycle struct {
	machine *lab.Running
	lines   *bufio.Scanner
	output  io.Reader // what lines are read from
}

func startCycle(t *testing.T, m lab.Machine) cycle {
	t.Helper()
	output, writer := io.Pipe()
	m.Stdout = writer
	machine, err := lab.Boot(context.WithoutCancel(t.Context()), m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(machine.Stop)
	return cycle{machine, bufio.NewScanner(output), output}
}

// ready reads what the machine says until it has checked what it found. took is how long a run takes, where it says so.
func (c cycle) ready() (took time.Duration, words string, ok bool) {
	defer func() { go func() { _, _ = io.Copy(io.Discard, c.output) }() }() // the rest must not hold the machine up
	for c.lines.Scan() {
		line := c.lines.Text()
		words += line + "\n"
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "took" {
			began, _ := strconv.ParseFloat(fields[1], 64)
			ended, _ := strconv.ParseFloat(fields[2], 64)
			took = time.Duration((ended - began) * float64(time.Second))
		}
		if line == "ready" || line == "good" {
			return took, words, true
		}
		if strings.HasPrefix(line, "WRONG") {
			return took, words, false
		}
	}
	return took, words, false
}
