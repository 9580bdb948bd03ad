package lvm

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"voltar/internal/say"
)

// explainSlow adds to the failure of a command whose time was up which devices keep lvm2 waiting.
func (c *Client) explainSlow(err error) error {
	blocked := c.BlockedDevices()
	if len(blocked) == 0 {
		return say.WithHint(err, "no device is suspended or leaves requests unanswered: another command of lvm2 may hold the lock "+
			"of the volume group; `ps -eo pid,stat,wchan:20,args` shows what waits for what")
	}
	return say.WithHint(err, "lvm2 waits for devices: "+strings.Join(blocked, "; ")+". `dmsetup info -c`, `multipath -ll` and "+
		"`iscsiadm -m session` show more")
}

// maxBlocked bounds how many devices BlockedDevices names.
const maxBlocked = 20

// BlockedDevices returns, in words, the devices of this host that keep whoever uses them waiting: maps that are suspended,
// disks whose paths are not up, iSCSI sessions that are not logged in, and devices that answer no request. It looks in
// sysfs alone, twice with a moment between, and waits for no device itself.
func (c *Client) BlockedDevices() []string {
	before := c.waiting()
	time.Sleep(5 * c.retryDelay)
	after := c.waiting()
	var blocked []string
	for device, state := range after {
		if before[device] != state {
			continue
		}
		// Of a stack, the lowest device is the one to look at.
		slaves, _ := filepath.Glob(filepath.Join(c.sys, "block", device, "slaves/*"))
		if slices.ContainsFunc(slaves, func(s string) bool { return before[filepath.Base(s)] != "" && after[filepath.Base(s)] != "" }) {
			continue
		}
		what, _, _ := strings.Cut(state, "\n")
		blocked = append(blocked, c.nameOf(device)+" "+what)
	}
	slices.Sort(blocked)
	sessions, _ := filepath.Glob(filepath.Join(c.sys, "class/iscsi_session/*"))
	for _, session := range sessions {
		if state := attribute(session, "state"); state != "" && state != "LOGGED_IN" {
			blocked = append(blocked, "iSCSI session to "+attribute(session, "targetname")+" is "+state)
		}
	}
	return blocked[:min(len(blocked), maxBlocked)]
}

// waiting returns the devices that may keep others waiting, with what is the matter and, after a line feed, by what it would
// show that something moves.
func (c *Client) waiting() map[string]string {
	found := map[string]string{}
	devices, _ := filepath.Glob(filepath.Join(c.sys, "block/*"))
	for _, dir := range devices {
		device := filepath.Base(dir)
		state := attribute(dir, "device/state")
		inflight := strings.Fields(attribute(dir, "inflight"))
		stat := strings.Fields(attribute(dir, "stat")) // of the requests completed: reads first, writes fifth
		switch {
		case attribute(dir, "dm/suspended") == "1":
			found[device] = "is suspended"
		case state != "" && state != "running" && state != "live":
			found[device] = "is " + state
		case len(stat) > 4 && slices.ContainsFunc(inflight, func(n string) bool { return n != "0" }):
			found[device] = "answers no requests\n" + stat[0] + " " + stat[4]
		}
	}
	return found
}

// nameOf returns a device's name, with that of its map where it is one.
func (c *Client) nameOf(device string) string {
	if name := attribute(filepath.Join(c.sys, "block", device), "dm/name"); name != "" {
		return device + " (" + name + ")"
	}
	return device
}

// attribute reads a file of sysfs; one that cannot be read, as of a device that has just gone, is empty.
func attribute(dir, name string) string {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
