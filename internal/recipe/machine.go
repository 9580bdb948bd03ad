package recipe

import (
	"fmt"

	"voltar/internal/say"
)

// MachineName names the guest whose disk the volume was.
func (v view) MachineName() string {
	g := v.Source.Guest
	if g == nil {
		return ""
	}
	text := " " + say.Clean(g.Name)
	if g.ID != g.Name {
		text += " (" + say.Clean(g.ID) + ")"
	}
	if g.Disk != "" {
		text += ", whose disk " + say.Clean(g.Disk) + " this was"
	}
	return text
}

// DefineMachine are the commands that define the guest again, for people to look at before they give them.
func (v view) DefineMachine() []string {
	commands := []string{
		`GUEST=${GUEST:-$(mktemp -d)}`,
		inflated(v.Definition) + ` | tar -C "$GUEST" -xf -`,
		`find "$GUEST" -type f   # what lies in files/ belongs where its path says; do not replace what is there`,
	}
	g := v.Source.Guest
	if g == nil {
		return commands
	}
	switch g.Kind {
	case "libvirt":
		return append(commands, `virsh define "$GUEST/domain.xml"`)
	case "proxmox-vm":
		return append(commands, fmt.Sprintf(`cp -n "$GUEST"/%s /etc/pve/qemu-server/`, say.ShellWord(g.ID+".conf")))
	case "proxmox-ct":
		return append(commands, fmt.Sprintf(`cp -n "$GUEST"/%s /etc/pve/lxc/`, say.ShellWord(g.ID+".conf")))
	}
	return commands
}
