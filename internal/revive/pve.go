package revive

import (
	"regexp"
	"slices"
	"strings"
)

var (
	pveDisk = regexp.MustCompile(`^(?:(?:ide|sata|scsi|virtio|efidisk|tpmstate|mp)[0-9]{1,3}|rootfs)$`)
	pveGone = regexp.MustCompile(`^(?:unused[0-9]{1,3}|parent|lock|vmstate|runningmachine|runningcpu|snaptime|snapstate)$`)
	pveNet  = regexp.MustCompile(`^net[0-9]{1,3}$`)
	pveMAC  = regexp.MustCompile(`(?i)(^|,|=)([0-9a-f]{2}(?::[0-9a-f]{2}){5})`)
	pveUUID = regexp.MustCompile(`(uuid=)[0-9a-fA-F-]{36}`)
)

// pvePlace is the volume that a disk became.
type pvePlace struct {
	lv       string
	storages []string // that are in its volume group; none where this host has none
	moved    bool     // it is in another volume group than it was
}

// rewritePVE returns a configuration of Proxmox VE (qm.conf(5), pct.conf(5)) with its disks at other volumes and, with another, as another
// machine: with other MAC addresses and UUIDs. What is no part of the machine as it was is left out: snapshots, pending changes, unused
// disks. unknown are disks that are not among volumes, astray those whose storage nobody can tell.
func rewritePVE(
	content []byte, another bool, volumes map[string]pvePlace,
) (rewritten []byte, unknown, astray []string, err error) {
	var out strings.Builder
	for line := range strings.Lines(string(content)) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, "[") {
			break
		}
		key, value, isLine := strings.Cut(line, ":")
		if value = strings.TrimSpace(value); isLine && !strings.HasPrefix(line, "#") {
			if pveGone.MatchString(key) || another && key == "template" { // the volumes of a template are called base-…
				continue
			}
			if pveDisk.MatchString(key) {
				var restored, isAstray bool
				if value, restored, isAstray = volumes[key].in(value); isAstray {
					astray = append(astray, key)
				}
				if !restored && value != "none" && !strings.Contains(value, "media=cdrom") {
					unknown = append(unknown, key)
				}
			}
			if another {
				if value, err = anotherPVE(key, value); err != nil {
					return nil, nil, nil, err
				}
			}
			line = key + ": " + value
		}
		out.WriteString(line + "\n")
	}
	return []byte(out.String()), unknown, astray, nil
}

// in leads the value of a disk to its volume. Its storage stays what it is, unless the volume is in another one.
func (p pvePlace) in(value string) (at string, restored, isAstray bool) {
	if p.lv == "" {
		return value, false, false
	}
	options := strings.Split(value, ",")
	i := slices.IndexFunc(options, func(o string) bool {
		name, _, isNamed := strings.Cut(o, "=")
		return !isNamed || name == "file" || name == "volume"
	})
	if i < 0 {
		return value, false, false
	}
	prefix, volume := "", options[i]
	if name, rest, isNamed := strings.Cut(volume, "="); isNamed {
		prefix, volume = name+"=", rest
	}
	storage, _, found := strings.Cut(volume, ":")
	if !found {
		return value, false, false
	}
	switch {
	case slices.Contains(p.storages, storage):
	case len(p.storages) == 1:
		storage = p.storages[0]
	default:
		isAstray = p.moved || len(p.storages) > 1
	}
	options[i] = prefix + storage + ":" + p.lv
	return strings.Join(options, ","), true, isAstray
}

// anotherPVE changes what two machines must not share.
func anotherPVE(key, value string) (string, error) {
	switch {
	case pveNet.MatchString(key):
		mac, err := newMAC()
		return pveMAC.ReplaceAllString(value, "${1}"+strings.ToUpper(mac)), err
	case key == "smbios1":
		uuid, err := newUUID()
		return pveUUID.ReplaceAllString(value, "${1}"+uuid), err
	case key == "vmgenid":
		return newUUID()
	}
	return value, nil
}
