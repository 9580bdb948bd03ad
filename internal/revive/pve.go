package revive

import (
	"errors"
	"fmt"
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

// rewritePVE returns a configuration of Proxmox VE (qm.conf(5), pct.conf(5)) with its disks at other volumes and, with another, as another
// machine: with other MAC addresses and UUIDs, and without any volume of the old one. What is no part of the machine as it was is left out:
// snapshots, pending changes, unused disks.
func rewritePVE(content []byte, another bool, disks []became) (out rewritten, err error) {
	var text strings.Builder
	keys := map[string]bool{}
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
			keys[key] = true
			if pveDisk.MatchString(key) {
				var stays bool
				if value, stays = out.diskPVE(key, value, another, disks); !stays {
					continue
				}
			}
			if another {
				if value, err = anotherPVE(key, value); err != nil {
					return rewritten{}, err
				}
			}
			line = key + ": " + value
		}
		text.WriteString(line + "\n")
	}
	if len(keys) == 0 {
		return rewritten{}, errors.New("read the definition: it is no configuration of Proxmox VE")
	}
	for _, b := range disks {
		if !keys[b.name] {
			out.lacking = append(out.lacking, b)
		}
	}
	out.content = []byte(text.String())
	return out, nil
}

// pveValue splits the value of a disk into what is before its volume, the volume, and its options.
var pveValue = regexp.MustCompile(`^((?:[^,=]+=[^,]*,)*?(?:(?:file|volume)=)?)([^,=]+)((?:,.*)?)$`)

// diskPVE leads a disk to its volume, or tells why it does not stay.
func (out *rewritten) diskPVE(key, value string, another bool, disks []became) (to string, stays bool) {
	parts := pveValue.FindStringSubmatch(value)
	if parts == nil {
		out.unknown = append(out.unknown, key)
		return value, !another
	}
	volume := parts[2]
	storage, name, isStorage := strings.Cut(volume, ":")
	if strings.HasPrefix(volume, "/") {
		isStorage = false
	}
	if i := slices.IndexFunc(disks, func(b became) bool { return b.name == key }); i >= 0 {
		if !isStorage {
			return parts[1] + disks[i].device() + parts[3], true
		}
		storage, isAstray := disks[i].storage(storage)
		if isAstray {
			out.notes = append(out.notes, fmt.Sprintf("the definition names a storage for %s that its volume is not in: correct it by hand", key))
		}
		return parts[1] + storage + ":" + disks[i].to.Name + parts[3], true
	}
	isDrive := strings.Contains(parts[1]+parts[3]+",", "media=cdrom,")
	switch {
	case volume == "none" || isDrive && (!another || volume == "cdrom" || strings.HasPrefix(name, "iso/")):
		return value, true
	case isDrive:
		out.notes = append(out.notes, fmt.Sprintf("the drive %s is left out of the definition: what was in it is the old machine's", key))
		return "", false
	case !isStorage && !isDevice(volume): // a folder of the host that a container sees
		return value, true
	}
	out.unknown = append(out.unknown, key)
	return value, !another
}

// storage is that of Proxmox VE which a volume is in. It stays what it was, unless the volume is in another one.
func (b became) storage(was string) (is string, isAstray bool) {
	switch {
	case slices.Contains(b.storages, was):
		return was, false
	case len(b.storages) == 1:
		return b.storages[0], false
	}
	return was, b.from.VG != b.to.VG || len(b.storages) > 1
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
