package main

import (
	"os"
	"slices"
	"strings"

	"voltar/internal/config"
	"voltar/internal/mount"
)

// typeTools make the filesystems that are mounted on request.
var typeTools = map[string]struct {
	pkg   string
	names []string
}{
	"exfat": {"exfatprogs", []string{"mkfs.exfat", "tune.exfat"}}, "ntfs": {"ntfs-3g", []string{"mkfs.ntfs", "ntfslabel"}},
	"f2fs": {"f2fs-tools", []string{"mkfs.f2fs"}}, "jfs": {"jfsutils", []string{"mkfs.jfs", "jfs_tune"}},
}

// checkMountTypes looks whether the kernel can mount what mount_types asks for, and whether this host could restore it.
func (s *setup) checkMountTypes() []finding {
	wanted := map[string]bool{}
	for _, t := range s.config.Archive.MountTypes {
		wanted[t] = true
	}
	for _, v := range s.config.Volumes {
		if v.MountTypes != nil {
			for _, t := range *v.MountTypes {
				wanted[t] = true
			}
		}
	}
	var list []finding
	for _, t := range config.MountableTypes() {
		if !wanted[t] {
			continue
		}
		f := finding{Check: "mount_types", OK: true, Detail: t + " can be stored as files and restored"}
		if err := mount.Available(t); err != nil && os.Geteuid() == 0 { // asking takes privileges
			f = finding{f.Check, false, "the kernel cannot mount " + t + ": " + err.Error(),
				"install the kernel's module; until then it is stored as an image"}
		}
		list = append(list, f)
		tools := typeTools[t]
		if missing := slices.DeleteFunc(slices.Clone(tools.names), s.hasTool); len(missing) > 0 {
			list = append(list, finding{"tools", false, "missing: " + strings.Join(missing, ", ") + " (restoring " + t + ")",
				"apt-get install " + tools.pkg})
		}
	}
	return list
}

func (s *setup) hasTool(name string) bool {
	_, err := s.runner.LookPath(name)
	return err == nil
}
