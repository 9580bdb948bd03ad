package setup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"voltar/internal/config"
	"voltar/internal/guests"
	"voltar/internal/hostcmd"
	"voltar/internal/quiesce"
)

// A guest is frozen as the [[guest]] of its name says, or else by its own means, and not at all where it has none.
func TestGuestFreezes(t *testing.T) {
	s := &Setup{Config: &config.Config{Guests: []config.Guest{
		{Name: "web1", Method: "ssh", Host: "root@web1", Mountpoints: []string{"/srv"}}, {Name: "4711", Method: "none", Database: "mysql"},
	}}}
	for name, tt := range map[string]struct {
		guest guests.Guest
		want  []quiesce.Freeze
	}{
		"configured by name": {guests.Guest{Name: "web1", ID: "1"}, []quiesce.Freeze{{
			Name: "web1", Method: quiesce.MethodSSH, Remote: quiesce.Remote{Host: "root@web1"}, Mountpoints: []string{"/srv"},
		}}},
		"configured by ID":    {guests.Guest{Name: "x", ID: "4711", Running: true}, []quiesce.Freeze{{Name: "4711", Method: quiesce.MethodMySQL}}},
		"configured by alias": {guests.Guest{Name: "x", ID: "1", Alias: "4711"}, []quiesce.Freeze{{Name: "4711", Method: quiesce.MethodMySQL}}},
		"libvirt": {guests.Guest{Kind: guests.KindLibvirt, Name: "-x", ID: "uuid", Running: true, HasAgent: true},
			[]quiesce.Freeze{{Name: "-x", Method: quiesce.MethodVirsh, Domain: "uuid"}}},
		"Proxmox VE": {guests.Guest{Kind: guests.KindMachine, Name: "x", ID: "100", Running: true, HasAgent: true, Socket: "/s"},
			[]quiesce.Freeze{{Name: "x", Method: quiesce.MethodAgent, Socket: "/s"}}},
		"a container": {guests.Guest{Kind: guests.KindContainer, Name: "x", ID: "101", Running: true}, []quiesce.Freeze{{
			Name: "x", Method: quiesce.MethodCommand, FreezeCommand: []string{"lxc-freeze", "-n", "101"},
			ThawCommand: []string{"sh", "-c", thawContainer, "sh", "101"},
		}}},
		"shut off":         {guests.Guest{Kind: guests.KindLibvirt, Name: "x", ID: "uuid", HasAgent: true}, nil},
		"without an agent": {guests.Guest{Kind: guests.KindLibvirt, Name: "x", ID: "uuid", Running: true}, nil},
		"told of":          {guests.Guest{Kind: guests.KindTold, Name: "x", ID: "uuid", Running: true, HasAgent: true}, nil},
	} {
		got := s.guestFreezes(tt.guest)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		for _, f := range got {
			if err := f.Check(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A container is thawed in any case, and only one that was frozen until then proves it.
func TestThawContainer(t *testing.T) {
	for state, proven := range map[string]bool{"FROZEN": true, "RUNNING": false, "": false} {
		dir := t.TempDir()
		for name, body := range map[string]string{"lxc-info": `[ "$*" = "-n 101 -s -H" ] && echo ` + state, "lxc-unfreeze": `echo "$*" >>'` + dir + `/thawed'`} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		thaw := (&Setup{Config: &config.Config{}}).guestFreezes(guests.Guest{Kind: guests.KindContainer, ID: "101", Running: true})[0].ThawCommand
		_, err := hostcmd.New(hostcmd.Options{SearchPath: []string{dir, "/usr/bin", "/bin"}}).Run(t.Context(), hostcmd.Cmd{Name: thaw[0], Args: thaw[1:]})
		if (err == nil) != proven {
			t.Errorf("%q: %v", state, err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "thawed")); err != nil || string(text) != "-n 101\n" {
			t.Errorf("%q: thawed %q, %v", state, text, err)
		}
	}
}
