package guests

import (
	"bytes"
	"cmp"
	"encoding/json"
	"strings"
	"time"

	"voltar/internal/hostcmd"
)

// commandPatience is how long the command may take.
const commandPatience = time.Minute

// Bounds of what a command says.
const (
	maxLines     = 100_000
	maxLineBytes = 64 << 10
)

// tellLine is what a command says of one volume.
type tellLine struct {
	Volume string `json:"volume"` // VG/LV, or the name of the LV where it is the only one
	Guest  string `json:"guest"`  // the ID
	Name   string `json:"name"`   // what people call it; the ID if empty
	Disk   string `json:"disk"`
	Group  string `json:"group"`
}

// command asks the configured command for further guests, and for better names of those that were found.
func (f *finder) command() {
	const hint = "the volumes are backed up without what it knows; run it by hand. It has to print one JSON object a line"
	var out bytes.Buffer
	_, err := f.Runner.Run(f.ctx, hostcmd.Cmd{
		Name: f.Command[0], Args: f.Command[1:], Stdout: &limited{&out, maxBytes}, Timeout: commandPatience,
	})
	if err != nil {
		f.trouble(hint, "the command of [guests] failed: %v", err)
		return // half of a list would take disks out of their guests
	}
	lines, bad := 0, 0
	for line := range bytes.Lines(out.Bytes()) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		var l tellLine
		if lines++; lines > maxLines {
			f.trouble(hint, "the command of [guests] says more than %d lines", maxLines)
			break
		}
		if len(line) > maxLineBytes || json.Unmarshal(line, &l) != nil || l.Guest == "" || l.Volume == "" {
			if bad++; bad == 1 {
				f.trouble(hint, "the command of [guests] says what cannot be read, first: %.200q", line)
			}
			continue
		}
		f.tell(l)
	}
}

// tell takes a line. A volume that is not on this host is another's: the command may tell of a whole cloud.
func (f *finder) tell(l tellLine) {
	v, found := f.volumes.named(l.Volume)
	if !found {
		return
	}
	id := cleanName(l.Guest)
	var g *Guest
	for _, known := range f.guests {
		if known.ID == id || known.Kind == KindLibvirt && known.ID == strings.ToLower(id) {
			g = known
			break
		}
	}
	if g == nil {
		g = f.guest(KindTold, id)
	}
	if g == nil {
		return
	}
	if l.Name != "" && l.Name != g.Name {
		g.Name, g.Alias = l.Name, cmp.Or(g.Alias, g.Name)
	}
	for i := range g.Disks {
		if d := &g.Disks[i]; d.UUID == v.UUID {
			d.Group = cmp.Or(cleanName(l.Group), d.Group)
		}
	}
	g.add(v, Disk{Name: l.Disk, Group: l.Group})
}
