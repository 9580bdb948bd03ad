package probe

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// describeOther shows the raw superblock, without what is a time or in use, and what the filesystem's tool tells.
func describeOther(t *testing.T, path, fsType string) string {
	t.Helper()
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	show := func(from, to int) { fmt.Fprintf(&text, "%d: % x\n", from, image[from:to]) }
	utf8 := []string{"LC_ALL=C.UTF-8"}
	switch fsType {
	case "exfat":
		show(0, 112)
		text.Write(run(t, utf8, path, []string{"tune.exfat", "-l", Device}))
	case "ntfs":
		show(0, 80)
		text.Write(run(t, utf8, path, []string{"ntfslabel", "-f", Device}))
	case "f2fs":
		const sb = f2fsSuperOffset
		show(sb, sb+1668)
		show(sb+2180, sb+2762)
	case "jfs":
		const sb = jfsSuperOffset
		show(sb, sb+4) // behind it the version: jfs_tune makes 2 of 1
		show(sb+8, sb+64)
		show(sb+72, sb+88)
		show(sb+96, sb+184)
	}
	return text.String()
}
