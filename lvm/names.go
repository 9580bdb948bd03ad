package lvm

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Rules of lvm(8), "VALID NAMES", and of lib/misc/lvm-string.c: the device-mapper name of VG and LV together, with
// each hyphen doubled and one between them, has to fit into DM_NAME_LEN (128 with its zero byte).
const (
	maxNameBytes   = 127
	maxDMNameBytes = 127
	maxTagBytes    = 1024
	// lvm2 appends to a volume's name for its layers; the longest suffix of a snapshot's is "-cow", a pool's "-tpool".
	layerSuffixBytes = len("-tpool")
)

var (
	nameRE = regexp.MustCompile(`^[a-zA-Z0-9_.+][a-zA-Z0-9_.+-]*$`)
	tagRE  = regexp.MustCompile(`^[a-zA-Z0-9_+./=!:&#][a-zA-Z0-9_+./=!:&#-]*$`)

	reservedPrefixes = []string{"snapshot", "pvmove"}
	reservedParts    = []string{
		"_cdata", "_cmeta", "_corig", "_iorig", "_imeta", "_mimage", "_mlog", "_pmspare", "_rimage", "_rmeta",
		"_tdata", "_tmeta", "_vdata", "_vorigin",
	}
	reservedSuffixes = []string{"_cvol", "_wcorig", "_mlogtmp"}
)

// ValidName returns nil when lvm2 accepts name as that of a new logical volume, or why it does not.
func ValidName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("cannot use %q as a volume's name: it is empty or a folder's", name)
	case len(name) > maxNameBytes:
		return fmt.Errorf("cannot use %q as a volume's name: it is longer than %d characters", name, maxNameBytes)
	case !nameRE.MatchString(name):
		return fmt.Errorf("cannot use %q as a volume's name: only a-z A-Z 0-9 _ . + - are allowed, no - first", name)
	case hasAnyPrefix(name, reservedPrefixes):
		return fmt.Errorf("cannot use %q as a volume's name: lvm2 keeps names that begin with snapshot or pvmove", name)
	}
	for _, part := range reservedParts {
		if strings.Contains(name, part) {
			return fmt.Errorf("cannot use %q as a volume's name: lvm2 keeps names with %q in them", name, part)
		}
	}
	for _, suffix := range reservedSuffixes {
		if strings.HasSuffix(name, suffix) {
			return fmt.Errorf("cannot use %q as a volume's name: lvm2 keeps names that end in %q", name, suffix)
		}
	}
	return nil
}

// ValidVolumeName is ValidName for a name in the volume group vg, whose own name counts towards the limit.
func ValidVolumeName(vg, name string) error {
	if err := ValidName(name); err != nil {
		return err
	}
	if n := len(DMName(vg, name)) + layerSuffixBytes; n > maxDMNameBytes {
		return fmt.Errorf("cannot use %q as a volume's name in %s: together they are %d characters too long",
			name, vg, n-maxDMNameBytes)
	}
	return nil
}

// ValidTag returns nil when lvm2 accepts tag, or why it does not. A tag cannot hold @, a space or a comma.
func ValidTag(tag string) error {
	if len(tag) > maxTagBytes {
		return fmt.Errorf("cannot use a tag of %d characters: lvm2 takes %d", len(tag), maxTagBytes)
	}
	if !tagRE.MatchString(tag) {
		return fmt.Errorf("cannot use %q as a tag: only a-z A-Z 0-9 _ + . - / = ! : & # are allowed, no - first", tag)
	}
	return nil
}

// DMName is the device-mapper name of a logical volume: hyphens doubled, one between the two names.
func DMName(vg, name string) string {
	double := strings.NewReplacer("-", "--")
	return double.Replace(vg) + "-" + double.Replace(name)
}

func hasAnyPrefix(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}
