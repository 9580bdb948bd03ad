package faults

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"voltar/internal/lab"
)

// deviceFaults break what lies below the program, from the start or before the first call of each command of a step: its
// destination and its state run full, fail or become read-only, the clock jumps.
func deviceFaults(s step, calls []string) []fault {
	var list []fault
	add := func(class, name, cause string, arm func(*testing.T, *host) armed) {
		list = append(list, fault{step: s, class: class, name: name, cause: cause, arm: arm})
	}
	for i, call := range slices.Insert(firstOfEach(calls), 0, "start") {
		if call == "" {
			continue
		}
		at := fmt.Sprintf(" at call %d (%s)", i, words(call))
		if i == 0 {
			at = " from the start"
		}
		for _, folder := range []string{"destination", "state"} {
			add("full disk", folder+at, "no space left", armDisk(folder, i, fillDisk))
			// ext4 that cannot read where its free blocks and inodes are calls itself full.
			add("failing disk", folder+" gives errors"+at, "input/output error|read-only file system|no space left",
				armDisk(folder, i, failDisk))
			add("failing disk", folder+" becomes read-only"+at, "input/output error|read-only file system", armDisk(folder, i, abortDisk))
		}
		add("hanging disk", "destination"+at, "given up|does not answer", armHangingDisk(i))
		for _, by := range []string{"+1 day", "-1 day", "-20 years"} {
			if i > 0 {
				add("clock", by+at, ".", armClock(by, i))
			}
		}
	}
	return list
}

// volumeFaults break the volumes of a run, their disk and their snapshots, before the first call of each command, and the
// server that takes its mail.
func volumeFaults(calls []string) []fault {
	var list []fault
	add := func(class, name, cause string, arm func(*testing.T, *host) armed) {
		list = append(list, fault{step: stepRun, class: class, name: name, cause: cause, arm: arm})
	}
	add("full disk", "volume group", "too little free space|no space", armFullGroup)
	for i, call := range firstOfEach(calls) {
		if call == "" {
			continue
		}
		at := fmt.Sprintf(" at call %d (%s)", i+1, words(call))
		add("volume's disk", "goes away"+at, "(?i)i/o error|input/output|vg2|volume group|missing|overflowed|invalid|snapshot", armGone(i+1))
		add("volume's disk", "has bad sectors"+at, "(?i)input/output error|damaged", armBadSectors(i+1))
		add("snapshot", "overflows"+at, "overflowed", armOverflow(i+1))
	}
	for name, arm := range map[string]func(*testing.T, *host) armed{
		"refuses connections": armMail(nil), "says nothing": armMail(mailSilent), "refuses the mail": armMail(mailRefuses),
		"goes away in the middle": armMail(mailGoes), "talks nonsense": armMail(mailNonsense),
	} {
		add("mail server", name, "mail|report was not delivered", arm)
	}
	slices.SortFunc(list, func(a, b fault) int { return strings.Compare(a.name, b.name) })
	return list
}

// targetFaults take the disk that a restore writes to away, before the first call of each command.
func targetFaults(calls []string) []fault {
	var list []fault
	for i, call := range firstOfEach(calls) {
		if call == "" {
			continue
		}
		list = append(list, fault{
			step: stepRestore, class: "target's disk", name: fmt.Sprintf("goes away at call %d (%s)", i+1, words(call)),
			cause: "(?i)i/o error|input/output|vg2|volume group|missing", arm: armTargetGone(i + 1),
		})
	}
	return list
}

// firstOfEach blanks the calls that repeat what was called before.
func firstOfEach(calls []string) []string {
	list := slices.Clone(calls)
	for i, call := range calls {
		if slices.ContainsFunc(calls[:i], func(before string) bool { return words(before) == words(call) }) {
			list[i] = ""
		}
	}
	return list
}

// Scripts that break the filesystem on the map "broken", which is mounted on $1.
const (
	fillDisk  = `dd if=/dev/zero of="$1/.filler" bs=64k status=none || true; dd if=/dev/zero of="$1/.filler2" bs=512 status=none || true`
	failDisk  = `dmsetup suspend --noflush --nolockfs broken && dmsetup load broken --table "0 131072 error" && dmsetup resume broken`
	abortDisk = `mount -o remount,abort "$1"`
	// No process can end that waits for the disk, so it answers again when the program has given it up.
	hangDisk = `dmsetup suspend --noflush --nolockfs broken
setsid sh -c 'sleep 120; dmsetup resume broken' >/dev/null 2>&1 & echo $! >/tmp/hanging`
	// Not every step uses the disk and waits for it.
	answerDisk = `dmsetup resume broken; [ -e /tmp/hanging ] || exit 0
hanging=$(cat /tmp/hanging); rm /tmp/hanging
while kill -s KILL -- "-$hanging" 2>/dev/null; do sleep 0.1; done`
)

// armDisk puts the destination or the state on a disk of its own, which breaks before a call, or at once.
func armDisk(folder string, call int, script string) func(*testing.T, *host) armed {
	return func(t *testing.T, h *host) armed {
		dir := map[string]string{"destination": h.backups, "state": h.state}[folder]
		backing := lab.Disk(t, 64<<20)
		table := "0 131072 linear " + backing + " 0"
		lab.Do(t, "dmsetup", "create", "broken", "--table", table)
		lab.Do(t, "mkfs.ext4", "-q", "-b", "4096", "-m", "0", "-O", "^has_journal", "/dev/mapper/broken")
		if script == abortDisk {
			lab.Do(t, "tune2fs", "-j", "/dev/mapper/broken") // what can be aborted is the journal
		}
		lab.Do(t, "mount", "/dev/mapper/broken", "/mnt")
		lab.Do(t, "rmdir", "/mnt/lost+found")
		lab.Do(t, "sh", "-c", "cp -a "+dir+"/. /mnt && umount /mnt && mount /dev/mapper/broken "+dir)
		p := newPlan(t)
		a := armed{dir: p.dir, struck: p.struck}
		script = `set -- ` + dir + "\n" + script
		if call > 0 {
			p.strike(t, call, script)
		} else {
			a.dir, a.struck = "", nil
			lab.Do(t, "sh", "-c", script)
		}
		a.mend = func() {
			lab.Do(t, "umount", dir)
			lab.Do(t, "dmsetup", "suspend", "--noflush", "broken")
			lab.Do(t, "dmsetup", "load", "broken", "--table", table)
			lab.Do(t, "dmsetup", "resume", "broken")
			lab.Do(t, "sh", "-c", "e2fsck -f -y /dev/mapper/broken >/dev/null || [ $? -le 2 ]")
			lab.Do(t, "mount", "/dev/mapper/broken", "/mnt")
			lab.Do(t, "sh", "-c", "rm -rf /mnt/.filler* /mnt/lost+found && rm -rf "+dir+"/* && cp -a /mnt/. "+dir+" && umount /mnt")
			lab.Do(t, "dmsetup", "remove", "--retry", "broken")
		}
		return a
	}
}

// armHangingDisk lets the disk of the destination give no answer, for longer than the program has patience.
func armHangingDisk(call int) func(*testing.T, *host) armed {
	return func(t *testing.T, h *host) armed {
		plain := map[string]string{}
		for _, config := range []string{h.config, h.pruneConfig()} {
			text, err := os.ReadFile(config)
			if err != nil {
				t.Fatal(err)
			}
			plain[config] = string(text)
			h.write(t, config, strings.Replace(plain[config], `require_mount = "none"`, "require_mount = \"none\"\npatience = \"10s\"", 1))
		}
		a := armDisk("destination", call, hangDisk)(t, h)
		mend := a.mend
		a.mend = func() {
			lab.Do(t, "sh", "-c", answerDisk)
			mend()
			for config, text := range plain {
				h.write(t, config, text)
			}
		}
		return a
	}
}

func armFullGroup(t *testing.T, _ *host) armed {
	lab.Do(t, "lvcreate", "--yes", "--wipesignatures", "n", "--extents", "100%FREE", "--name", "filler", "vg")
	return armed{mend: func() { lab.Do(t, "lvremove", "--yes", "vg/filler") }}
}

func armClock(by string, call int) func(*testing.T, *host) armed {
	return func(t *testing.T, _ *host) armed {
		p := newPlan(t)
		p.strike(t, call, `cut -d. -f1 /proc/uptime >`+p.dir+`/jumped; date +%s >>`+p.dir+`/jumped; date -s "`+by+`"`)
		return armed{dir: p.dir, struck: p.struck, mend: func() {
			if p.struck() {
				lab.Do(t, "sh", "-c", "{ read -r up; read -r then; } <"+p.dir+"/jumped; now=$(cut -d. -f1 /proc/uptime); date -s @$((then + now - up))")
			}
		}}
	}
}

// secondStart is where the disk of the second volume group begins, in sectors.
const secondStart = 2048

// second makes a volume group vg2 with one volume, on a map over a disk of its own, and returns how to take it away. The map
// begins behind the disk's beginning, where LVM would take the disk itself for the same physical volume.
func second(t *testing.T) (table string, remove func()) {
	t.Helper()
	table = fmt.Sprintf("0 131072 linear %s %d", lab.Disk(t, 65<<20), secondStart)
	lab.Do(t, "dmsetup", "create", "disk2", "--table", table)
	lab.Do(t, "vgcreate", "--yes", "vg2", "/dev/mapper/disk2")
	device := lab.LV(t, "vg2", "volume", 16<<20)
	lab.Do(t, "mkfs.ext4", "-q", "-b", "4096", device)
	lab.Do(t, "sh", "-c", "mount "+device+" /mnt && head -c 4M /dev/urandom >/mnt/data && umount /mnt")
	return table, func() {
		lab.Do(t, "vgremove", "--force", "--yes", "vg2")
		lab.Do(t, "dmsetup", "remove", "--retry", "disk2")
	}
}

// reload gives a map another table at once, whatever it was doing.
func reload(name, table string) string {
	return "dmsetup suspend --noflush --nolockfs " + name + "; dmsetup load " + name + " --table '" + table + "'; dmsetup resume " + name
}

// armGone takes the disk of a second volume group away during a run over it alone, and brings it back after it.
func armGone(call int) func(*testing.T, *host) armed {
	return func(t *testing.T, _ *host) armed {
		table, remove := second(t)
		p := newPlan(t)
		p.strike(t, call, reload("disk2", "0 131072 error"))
		return armed{dir: p.dir, struck: p.struck, volumes: []string{"vg2/volume"}, anyData: true,
			mend: func() { lab.Do(t, "sh", "-c", reload("disk2", table)) }, after: remove}
	}
}

// armTargetGone has a restore go to a second volume group, and takes its disk away in the middle. What stands there
// afterwards goes with the volume group.
func armTargetGone(call int) func(*testing.T, *host) armed {
	return func(t *testing.T, h *host) armed {
		table, remove := second(t)
		p := newPlan(t)
		p.strike(t, call, reload("disk2", "0 131072 error"))
		args := h.args(stepRestore)
		args[slices.Index(args, "vg/restored")] = "vg2/restored"
		return armed{dir: p.dir, struck: p.struck, args: args, target: "vg2",
			mend: func() { lab.Do(t, "sh", "-c", reload("disk2", table)) }, after: remove}
	}
}

// armBadSectors makes the sectors of a file unreadable.
func armBadSectors(call int) func(*testing.T, *host) armed {
	return func(t *testing.T, _ *host) armed {
		table, remove := second(t)
		fields := strings.Fields(table)
		block := strings.TrimSpace(lab.Do(t, "debugfs", "-R", "bmap /data 100", "/dev/vg2/volume"))
		start := strings.Fields(lab.Do(t, "pvs", "--noheadings", "--nosuffix", "--units", "s", "-o", "pe_start", "/dev/mapper/disk2"))[0]
		p := newPlan(t)
		p.strike(t, call, reload("disk2", fmt.Sprintf("0 131072 dust %s %d 512", fields[3], secondStart))+fmt.Sprintf(
			"\nfor i in 0 1 2 3 4 5 6 7; do dmsetup message disk2 0 addbadblock $((%d + %s + %s * 8 + i)); done\n"+
				"dmsetup message disk2 0 enable; echo 3 >/proc/sys/vm/drop_caches", secondStart, start, block))
		return armed{dir: p.dir, struck: p.struck, volumes: []string{"vg2/volume"}, anyData: true,
			mend: func() { lab.Do(t, "sh", "-c", reload("disk2", table)) }, after: remove}
	}
}

// armOverflow writes more to a volume than its snapshot can hold: what is there already, once more.
func armOverflow(call int) func(*testing.T, *host) armed {
	return func(t *testing.T, _ *host) armed {
		p := newPlan(t)
		p.strike(t, call, "dd if=/dev/vg/classic of=/dev/vg/classic bs=1M skip=4 seek=4 count=16 conv=notrunc iflag=direct oflag=direct status=none")
		return armed{dir: p.dir, struck: p.struck}
	}
}

// armMail lets the run mail its report to a server that is of no use. Without serve nobody listens.
func armMail(serve func(net.Conn)) func(*testing.T, *host) armed {
	return func(t *testing.T, h *host) armed {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if serve == nil {
			_ = listener.Close()
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go func() { defer conn.Close(); serve(conn) }()
			}
		}()
		plain, err := os.ReadFile(h.config)
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		h.write(t, h.config, string(plain)+"[mail]\nto = [\"root@example.org\"]\nfrom = \"voltar@example.org\"\n"+
			"server = \"127.0.0.1\"\nport = "+port+"\ntls = \"none\"\ntimeout = \"3s\"\n")
		return armed{wantCode: 5, mend: func() {
			_ = listener.Close()
			h.write(t, h.config, string(plain))
			lab.Do(t, "rm", "-rf", h.state+"/spool")
		}}
	}
}

func mailSilent(conn net.Conn) { _, _ = conn.Read(make([]byte, 1)) }

func mailRefuses(conn net.Conn) {
	fmt.Fprint(conn, "220 lab ESMTP\r\n")
	for buffer := make([]byte, 4096); ; fmt.Fprint(conn, "550 not here\r\n") {
		if _, err := conn.Read(buffer); err != nil {
			return
		}
	}
}

func mailGoes(conn net.Conn) {
	fmt.Fprint(conn, "220 lab ESMTP\r\n")
	_, _ = conn.Read(make([]byte, 4096))
	fmt.Fprint(conn, "250 lab\r\n")
	_, _ = conn.Read(make([]byte, 4096))
}

func mailNonsense(conn net.Conn) { fmt.Fprint(conn, "\x00\xff<html>\r\n\r\n") }
