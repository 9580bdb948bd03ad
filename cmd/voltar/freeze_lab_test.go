package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"voltar/internal/lab"
	"voltar/report"
)

// slowGuest is frozen by a command that takes its time, so that what is frozen beside it stays so meanwhile.
//
// It ends with the run that it belongs to, and would end by itself.
func slowGuest() string {
	return `
[[guest]]
name = "slow"
method = "command"
freeze = ["sleep", "600"]
thaw = ["true"]
deadline = "` + lab.Patience(10*time.Minute).String() + `"
timeout = "` + lab.Patience(10*time.Minute).String() + `"
`
}

// killWhileFrozen kills the program as soon as the writer stands still, and wants the writer to go on.
func killWhileFrozen(t *testing.T, s site, write func() error, goesOn func()) {
	t.Helper()
	p := start(t, "snapshot", "create", "--name", "killed", "--size", "16MiB", "--config", s.config)
	blocked := lab.UntilFrozen(t, write)
	p.signal(t, syscall.SIGKILL)
	p.wait(t)
	if err := <-blocked; err != nil {
		t.Fatal(err)
	}
	goesOn()
	if code, out, errs := voltar(t, "cleanup", "--config", s.config); code != 0 {
		t.Fatalf("cleanup: exit code %d\n%s\n%s", code, errs, out)
	}
	left, err := filepath.Glob(filepath.Join(s.dir, "state/journal/*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left %v %v", left, err)
	}
}

func TestLabKilledWhileSuspended(t *testing.T) {
	p := newPair(t)
	s := newSite(t, slowGuest()+`
[[group]]
name = "db"
volumes = ["*/data"]
freeze = ["local", "slow"]
`)
	note := filepath.Join(p.dirs[0], "note")
	killWhileFrozen(t, s, func() error { return writeThrough(note) }, func() { p.writer.goesOn(t) })
}

// writeThrough writes a file to the disk.
func writeThrough(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_SYNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(time.Now().String())
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}

// guestDisk is a volume with a filesystem that is mounted through a map, as those of guests are: the volume itself has
// none on it.
func guestDisk(t *testing.T) (dir string) {
	t.Helper()
	lab.VG(t, "vg", 240<<20)
	device := lab.LV(t, "vg", "web1", 64<<20)
	lab.Do(t, "dmsetup", "create", "guest", "--table", "0 131072 linear "+device+" 0")
	t.Cleanup(func() { lab.Do(t, "dmsetup", "remove", "--retry", "guest") })
	lab.Do(t, "mkfs.ext4", "-q", "/dev/mapper/guest")
	dir = lab.Mount(t, "/dev/mapper/guest", "defaults")
	if err := writeThrough(filepath.Join(dir, "hello")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// sshServer runs an sshd on the machine itself, and returns an ssh_config by which the host "web1" is it.
func sshServer(t *testing.T) (config string) {
	t.Helper()
	dir := t.TempDir()
	lab.Do(t, "sh", "-c", `cd "$1" && mkdir -p /run/sshd
grep -q ^sshd: /etc/passwd || echo sshd:x:33333:33333::/run/sshd:/usr/sbin/nologin >>/etc/passwd
echo 'root:*:19000:0:99999:7:::' >/etc/shadow
ssh-keygen -q -t ed25519 -N '' -f host; ssh-keygen -q -t ed25519 -N '' -f user
printf 'web1 %s\n' "$(cat host.pub)" >known
cp user.pub authorized
cat >sshd_config <<EOT
Port 2222
ListenAddress 127.0.0.1
HostKey $1/host
PidFile $1/pid
AuthorizedKeysFile $1/authorized
StrictModes no
UsePAM no
UseDNS no
PermitRootLogin prohibit-password
EOT
cat >ssh_config <<EOT
Host web1 stranger
  HostName 127.0.0.1
  Port 2222
  User root
  IdentityFile $1/user
  UserKnownHostsFile $1/known
  GlobalKnownHostsFile none
Host web1
  HostKeyAlias web1
EOT
/usr/sbin/sshd -f "$1/sshd_config" -E "$1/log"
until [ -s pid ]; do sleep 0.1; done`, "sh", dir)
	t.Cleanup(func() { lab.Do(t, "sh", "-c", "kill $(cat "+dir+"/pid)") })
	return filepath.Join(dir, "ssh_config")
}

func sshGuest(name, config, dir, more string) string {
	return `
[[guest]]
name = "` + name + `"
method = "ssh"
host = "` + name + `"
ssh_config = "` + config + `"
mountpoints = ["` + dir + `"]
timeout = "` + lab.Patience(30*time.Second).String() + `"
deadline = "` + lab.Patience(time.Minute).String() + `"
` + more
}

func TestLabFreezeThroughSSH(t *testing.T) {
	dir := guestDisk(t)
	config := sshServer(t)

	s := newSite(t, sshGuest("web1", config, dir, `
[[volume]]
match = "*"
freeze = ["web1"]
[[dump]]
name = "names"
volumes = ["*"]
guest = "web1"
command = ["ls", "`+dir+`"]
`))
	v := s.run(t, 0).Volumes[0]
	if v.Status != report.VolumeOK || !strings.HasPrefix(v.Quiesce, "frozen ") {
		t.Errorf("%s, %s: %+v", v.Status, v.Quiesce, v.Warnings)
	}
	dumps, err := filepath.Glob(s.backups + "/volume-host/vg/web1/*/web1.names.dump.gz")
	if err != nil || len(dumps) != 1 {
		t.Fatalf("%v %v", dumps, err)
	}
	if text := lab.Do(t, "gzip", "-dc", dumps[0]); !strings.Contains(text, "hello\n") {
		t.Errorf("dumped %q", text)
	}

	t.Run("unknown host key", func(t *testing.T) {
		s := newSite(t, sshGuest("stranger", config, dir, "[[volume]]\nmatch = \"*\"\nfreeze = [\"stranger\"]\n"))
		v := s.run(t, 0).Volumes[0]
		if v.Quiesce != "crash-consistent" || len(v.Warnings) == 0 || !strings.Contains(v.Warnings[0].Message, "Host key verification failed") {
			t.Errorf("%s: %+v", v.Quiesce, v.Warnings)
		}
	})
	t.Run("thawed by somebody", func(t *testing.T) {
		s := newSite(t, sshGuest("web1", config, dir, `on_failure = "fail"
[[volume]]
match = "*"
freeze = ["web1", "meddler"]
[[guest]]
name = "meddler"
method = "command"
freeze = ["sh", "-c", "until fsfreeze -u `+dir+`; do sleep 0.1; done"]
thaw = ["true"]
`))
		v := s.run(t, 1).Volumes[0]
		if v.Error == nil || !strings.Contains(v.Error.Message, "no longer frozen") {
			t.Errorf("%s: %+v", v.Status, v.Error)
		}
	})
	t.Run("killed", func(t *testing.T) {
		s := newSite(t, sshGuest("web1", config, dir, slowGuest()+"[[volume]]\nmatch = \"*\"\nfreeze = [\"web1\", \"slow\"]\n"))
		note := filepath.Join(dir, "note")
		killWhileFrozen(t, s, func() error { return writeThrough(note) }, func() {
			if err := writeThrough(note); err != nil {
				t.Error(err)
			}
		})
	})
}

func TestLabHooksAndPolicies(t *testing.T) {
	dir := guestDisk(t)
	record := filepath.Join(t.TempDir(), "record")
	hook := func(phase, more string) string {
		return "\n[[hook]]\nname = \"" + phase + "\"\nphase = \"" + phase + "\"\nshell = 'echo $VOLTAR_PHASE $VOLTAR_VOLUME $VOLTAR_STATUS ${VOLTAR_SNAPSHOT:+with} >>" + record + "'\n" + more
	}
	hooks := hook("before", "") + hook("snapshot-before", "") + hook("snapshot-after", "") + hook("after", "") + hook("on-error", "") +
		hook("before", `scope = "run"`)
	here := "\n[[guest]]\nname = \"web1\"\nmethod = \"local\"\nmountpoints = [\"" + dir + "\"]\n[[volume]]\nmatch = \"*\"\nfreeze = [\"web1\"]\n"
	s := newSite(t, hooks+here)
	v := s.run(t, 0).Volumes[0]
	if !strings.HasPrefix(v.Quiesce, "frozen ") {
		t.Errorf("%s: %+v", v.Quiesce, v.Warnings)
	}
	want := "before\nbefore vg/web1\nsnapshot-before vg/web1\nsnapshot-after vg/web1 with\nafter vg/web1 ok with\n"
	got, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.ReplaceAll(strings.ReplaceAll(string(got), "  ", " "), " \n", "\n"); strings.ReplaceAll(text, " \n", "\n") != want {
		t.Errorf("ran\n%s", got)
	}

	for _, test := range []struct {
		name, config, quiesce, message string
		code                           int
	}{
		{"hook fails the volume", "\n[[hook]]\nname = \"x\"\nphase = \"snapshot-before\"\nshell = \"echo no room >&2; exit 1\"\n", "", "no room", 1},
		{"hook lets go on", "\n[[hook]]\nname = \"x\"\nphase = \"snapshot-before\"\non_failure = \"go-on\"\ncommand = [\"sleep\", \"60\"]\ntimeout = \"1s\"\n",
			"crash-consistent", "not done after 1s", 0},
		{"freeze of what the backup lies on", "\n[[guest]]\nname = \"root\"\nmethod = \"local\"\nmountpoints = [\"/\"]\n[[volume]]\nmatch = \"*\"\nfreeze = [\"root\"]\n",
			"crash-consistent", "cannot be frozen here", 0},
		{"dump fails", here + "\n[[dump]]\nname = \"db\"\nvolumes = [\"*\"]\nshell = \"\"\ncommand = [\"sh\", \"-c\", \"echo half; exit 3\"]\n", "frozen ", "exit status 3", 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := newSite(t, strings.ReplaceAll(test.config, "shell = \"\"\n", "")).run(t, test.code).Volumes[0]
			message := ""
			for _, w := range v.Warnings {
				message += w.Message
			}
			if v.Error != nil {
				message += v.Error.Message
			}
			if !strings.HasPrefix(v.Quiesce, test.quiesce) || !strings.Contains(message, test.message) {
				t.Errorf("%s: %s", v.Quiesce, message)
			}
		})
	}
}
