package probe

import (
	"slices"
	"testing"
)

// A guest may call its filesystem DEVICE. It is a label all the same, and the device has its own place.
func TestALabelIsNotTakenForTheDevice(t *testing.T) {
	const device = "/dev/target"
	for _, c := range []struct {
		fsType string
		params map[string]string
	}{
		{"swap", map[string]string{"page_bytes": "4096", "version": "1", "last_page": "1000", "size_bytes": "4194304", "block_bytes": "4096"}},
		{"btrfs", map[string]string{"sector_bytes": "4096", "node_bytes": "16384", "devices": "1", "size_bytes": "134217728", "block_bytes": "4096"}},
		{"ext4", map[string]string{"block_bytes": "4096", "cluster_bytes": "4096", "inode_bytes": "256", "block_count": "262144",
			"blocks_per_group": "32768", "inodes_per_group": "8192", "inode_count": "65536", "group_descriptor_bytes": "64",
			"size_bytes": "1073741824"}},
	} {
		t.Run(c.fsType, func(t *testing.T) {
			c.params["label"] = Device
			fs, err := FromParams(c.fsType, c.params)
			if err != nil {
				t.Fatal(err)
			}
			recipe, err := fs.Mkfs(MkfsOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got := On(recipe.Commands[0], device)
			at := slices.Index(got, "-L")
			if at < 0 || got[at+1] != Device || slices.Index(got, device) < at || slices.Contains(got[at+2:], Device) {
				t.Errorf("%q", got)
			}
			if !slices.Contains(recipe.Commands[0], Device) {
				t.Errorf("the recipe was changed: %q", recipe.Commands[0])
			}
		})
	}
	if got := On([]string{"true"}, device); !slices.Equal(got, []string{"true"}) {
		t.Errorf("%q", got)
	}
}
