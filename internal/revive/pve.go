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

// rewritePVE returns a configuration of Proxmox VE (qm.conf(5), pct.conf(5)) with its disks at other volumes of their storages and, with
// another, as another machine: with other MAC addresses and UUIDs. What is no part of the machine as it was is left out: snapshots, pending
// changes, unused disks. unknown are disks that are not among volumes.
func rewritePVE(content []byte, another bool, volumes map[string]string) (rewritten []byte, unknown []string, err error) {
	var out strings.Builder
	for line := range strings.Lines(string(content)) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, "[") {
			break
		}
		key, value, isLine := strings.Cut(line, ":")
		if value = strings.TrimSpace(value); isLine && !strings.HasPrefix(line, "#") {
			if pveGone.MatchString(key) {
				continue
			}
			if pveDisk.MatchString(key) {
				var restored bool
				if value, restored = atVolume(value, volumes[key]); !restored && value != "none" && !strings.Contains(value, "media=cdrom") {
					unknown = append(unknown, key)
				}
			}
			if another {
				if value, err = anotherPVE(key, value); err != nil {
					return nil, nil, err
				}
			}
			line = key + ": " + value
		}
		out.WriteString(line + "\n")
	}
	return []byte(out.String()), unknown, nil
}

// atVolume leads the value of a disk to a volume of the same storage.
func atVolume(value, lv string) (string, bool) {
	if lv == "" {
		return value, false
	}
	options := strings.Split(value, ",")
	i := slices.IndexFunc(options, func(o string) bool {
		name, _, isNamed := strings.Cut(o, "=")
		return !isNamed || name == "file" || name == "volume"
	})
	if i < 0 {
		return value, false
	}
	prefix, volume := "", options[i]
	if name, rest, isNamed := strings.Cut(volume, "="); isNamed {
		prefix, volume = name+"=", rest
	}
	storage, _, found := strings.Cut(volume, ":")
	if !found {
		return value, false
	}
	options[i] = prefix + storage + ":" + lv
	return strings.Join(options, ","), true
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
