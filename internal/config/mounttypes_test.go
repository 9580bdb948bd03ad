package config

import (
	"slices"
	"testing"
)

// A volume that names none has none, whatever the general setting; one that says nothing has that.
func TestMountTypesOfVolumes(t *testing.T) {
	c, err := Parse([]byte("[archive]\nmount_types = [\"f2fs\"]\n[[volume]]\nmatch = \"a\"\nmount_types = []\n[[volume]]\nmatch = \"b\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.Archive.MountTypes, []string{"f2fs"}) {
		t.Errorf("%q", c.Archive.MountTypes)
	}
	if a := c.Volumes[0].MountTypes; a == nil || len(*a) != 0 {
		t.Errorf("a volume with none has %v", a)
	}
	if b := c.Volumes[1].MountTypes; b != nil {
		t.Errorf("a volume that says nothing has %q", *b)
	}
}
