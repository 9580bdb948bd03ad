package guests

import (
	"encoding/json"
	"regexp"
	"strings"
)

// pveConfig is what is wanted of a VMID.conf.
type pveConfig struct {
	name     string
	hasAgent bool
	disks    []diskLine
	snippets []string // STORAGE:snippets/FILE
}

// diskLine is a disk of a configuration.
type diskLine struct {
	key       string // scsi0, rootfs, mp1, unused0, vmstate
	volume    string // STORAGE:VOLUME, a path, or none
	removable bool   // a CD: no disk, unless it is of cloud-init
	detached  bool
	snapshot  string // in whose section it is
}

var (
	diskPattern    = regexp.MustCompile(`^(?:(?:ide|sata|scsi|virtio|efidisk|tpmstate|mp|unused)[0-9]{1,3}|rootfs|vmstate)$`)
	sectionPattern = regexp.MustCompile(`^\[([A-Za-z0-9_.:-]+)\]\s*$`)
)

// parsePVE reads a configuration (qm.conf(5), pct.conf(5)): lines "key: value", comments that are the description, and behind them a
// section for each snapshot, beside [PENDING] and [special:…]. What is in a section was so at another time, or is not so yet.
func parsePVE(content []byte) pveConfig {
	var c pveConfig
	section, skipped := "", false
	for line := range strings.Lines(string(content)) {
		line = strings.TrimRight(line, "\r\n")
		if found := sectionPattern.FindStringSubmatch(line); found != nil {
			section = found[1]
			skipped = section == "PENDING" || strings.Contains(section, ":")
			continue
		}
		key, value, isLine := strings.Cut(line, ":")
		if value = strings.TrimSpace(value); !isLine || skipped || strings.HasPrefix(line, "#") {
			continue
		}
		switch {
		case diskPattern.MatchString(key):
			c.add(key, value, section)
		case section != "":
		case key == "name" || key == "hostname":
			c.name = value
		case key == "agent":
			c.hasAgent = agentEnabled(value)
		case key == "cicustom":
			for option := range strings.SplitSeq(value, ",") {
				if _, volume, found := strings.Cut(option, "="); found {
					c.snippets = append(c.snippets, volume)
				}
			}
		}
	}
	return c
}

// add takes the line of a disk: its volume and options, of which the volume may be one by the name of "file" or "volume".
func (c *pveConfig) add(key, value, snapshot string) {
	if len(c.disks) > maxDisks { // one more than a guest may have, so that it is told
		return
	}
	d := diskLine{key: key, snapshot: snapshot, detached: snapshot != "" || strings.HasPrefix(key, "unused") || key == "vmstate"}
	for option := range strings.SplitSeq(value, ",") {
		name, text, isNamed := strings.Cut(option, "=")
		switch {
		case isNamed && (name == "file" || name == "volume"):
			d.volume = text
		case isNamed && name == "media" && text == "cdrom":
			d.removable = true
		case !isNamed && d.volume == "":
			d.volume = option
		}
	}
	if key == "vmstate" {
		d.key += "@" + snapshot
	}
	c.disks = append(c.disks, d)
}

// parseNodes reads the list of all guests of a cluster, and returns their nodes by VMID.
func parseNodes(content []byte) (map[string]string, error) {
	var list struct {
		IDs map[string]struct {
			Node string `json:"node"`
		} `json:"ids"`
	}
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, err
	}
	nodes := map[string]string{}
	for id, guest := range list.IDs {
		nodes[cleanName(id)] = cleanName(guest.Node)
	}
	return nodes, nil
}

// agentEnabled reads "1", "enabled=1,fstrim_cloned_disks=1" and the like.
func agentEnabled(value string) bool {
	for option := range strings.SplitSeq(value, ",") {
		name, text, isNamed := strings.Cut(option, "=")
		if !isNamed {
			name, text = "enabled", option
		}
		if name == "enabled" {
			return text == "1" || text == "yes" || text == "on" || text == "true"
		}
	}
	return false
}

var storagePattern = regexp.MustCompile(`^([^\s#:]+):\s*([A-Za-z][A-Za-z0-9_.-]*)\s*$`)

// parseStorages reads storage.cfg (pvesm(1)): "lvmthin: local-lvm", and indented lines of a key and its value.
func parseStorages(content []byte) map[string]storage {
	list := map[string]storage{}
	name := ""
	for line := range strings.Lines(string(content)) {
		line = strings.TrimRight(line, "\r\n")
		if found := storagePattern.FindStringSubmatch(line); found != nil {
			name = found[2]
			list[name] = storage{kind: found[1]}
			continue
		}
		if line != "" && !strings.ContainsAny(line[:1], " \t#") {
			name = "" // of a kind that is written otherwise
		}
		fields := strings.Fields(line)
		if name == "" || len(fields) < 2 || strings.HasPrefix(line, "#") {
			continue
		}
		s := list[name]
		switch fields[0] {
		case "vgname":
			s.vg = fields[1]
		case "path":
			s.path = fields[1]
		}
		list[name] = s
	}
	return list
}
