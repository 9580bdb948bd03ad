package setup

import (
	"fmt"
	"slices"

	"voltar/lvm"
)

// Unmatched lists the patterns of the configuration that match none of the host's volumes, as the file writes them. What is meant
// to hold for a volume does not hold for any then. Patterns that exclude are for volumes that may come, and are left out.
func (s *Setup) Unmatched(volumes []lvm.Volume) []string {
	var list []string
	look := func(what, pattern string) {
		matches := func(v lvm.Volume) bool { return s.matches(pattern, v) }
		if !slices.ContainsFunc(volumes, matches) {
			list = append(list, fmt.Sprintf(what, pattern))
		}
	}
	for _, v := range s.Config.Volumes {
		look("[[volume]] with match = %q", v.Match)
	}
	for _, g := range s.Config.Groups {
		for _, pattern := range g.Volumes {
			look("[[group]] "+g.Name+" with volumes = [%q]", pattern)
		}
	}
	for _, h := range s.Config.Hooks {
		for _, pattern := range h.Volumes {
			look("[[hook]] "+h.Name+" with volumes = [%q]", pattern)
		}
	}
	for _, d := range s.Config.Dumps {
		for _, pattern := range d.Volumes {
			look("[[dump]] "+d.Name+" with volumes = [%q]", pattern)
		}
	}
	chosen := s.Config.Select
	for _, pattern := range chosen.Include {
		look("select.include with %q", pattern)
	}
	for _, pattern := range chosen.VolumeGroups {
		if !slices.ContainsFunc(volumes, func(v lvm.Volume) bool { return matchesGroup(pattern, v.VG) }) {
			list = append(list, fmt.Sprintf("select.volume_groups with %q", pattern))
		}
	}
	for _, tag := range chosen.IncludeTags {
		if !slices.ContainsFunc(volumes, func(v lvm.Volume) bool { return slices.Contains(v.Tags, tag) }) {
			list = append(list, fmt.Sprintf("select.include_tags with %q", tag))
		}
	}
	return list
}
