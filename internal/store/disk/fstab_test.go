package disk

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"voltar/internal/say"
)

func TestHostMount(t *testing.T) {
	root := t.TempDir()
	linked := filepath.Join(t.TempDir(), "linked")
	if err := os.Symlink("/srv/usb/deep", linked); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		"etc/fstab": "# UUID=0 /commented ext4\n\nUUID=1 / ext4 errors=remount-ro 0 1\nUUID=2 none swap sw 0 0\nUUID=3\n" +
			"UUID=4\t/srv/usb ext4 noauto 0 2\nUUID=5 /srv/usb/deep ext4\n//nas/a /srv/with\\040space cifs\nUUID=6 /srv/odd\\9 ext4\n",
		"etc/systemd/system/srv-nas.mount":                   "[Mount]\nWhat=nas:/\nWhere=/srv/nas\n",
		"etc/systemd/system/srv-nas.mount.d/more.conf":       "",
		`run/systemd/system/srv-with\x2dhyphen.mount`:        "",
		"usr/lib/systemd/system/srv-of-another-host.mount":   "",
		"etc/systemd/system/multi-user.target.wants/a.mount": "",
	} {
		path = filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(os.DevNull, filepath.Join(root, "etc/systemd/system/srv-masked.mount")); err != nil {
		t.Fatal(err)
	}
	points, err := hostMounts(root)
	want := []string{"/", "/srv/nas", `/srv/odd\9`, "/srv/usb", "/srv/usb/deep", "/srv/with space", "/srv/with-hyphen"}
	if got := slices.Sorted(maps.Keys(points)); err != nil || !slices.Equal(got, want) {
		t.Fatalf("%q, %v, want %q", got, err, want)
	}

	for _, c := range []struct{ path, mounted, want, missing string }{
		{"/srv/other", "/", "/", ""},
		{"/srv/usbstick", "/", "/", ""},
		{"/srv/usb", "/srv/usb", "/srv/usb", ""},
		{"/srv/usb/backups/new", "/srv/usb", "/srv/usb", ""},
		{"/srv/usb/backups/new", "/", "", "/srv/usb is not mounted, and is a mountpoint by /etc/fstab"},
		{"/srv/usb/deep/backups", "/srv/usb", "", "/srv/usb/deep is not mounted, and is a mountpoint by /etc/fstab"},
		{linked + "/backups", "/srv/usb", "", "/srv/usb/deep is not mounted, and is a mountpoint by /etc/fstab"},
		{"/srv/nas", "/", "", "/srv/nas is not mounted, and is a mountpoint by /etc/systemd/system/srv-nas.mount"},
	} {
		got, err := hostMount(root, c.path, func(point string) (bool, error) { return point == c.mounted, nil })
		if c.missing == "" {
			if got != c.want || err != nil {
				t.Errorf("%s: %q, %v, want %q", c.path, got, err, c.want)
			}
			continue
		}
		if !errors.Is(err, ErrNotMounted) || err.Error() != c.missing || len(say.Hints(err)) != 1 {
			t.Errorf("%s: %v, want %s", c.path, err, c.missing)
		}
	}
	if got, err := hostMount(t.TempDir(), "/srv", nil); got != "" || err != nil {
		t.Errorf("a host without fstab: %q, %v", got, err)
	}
}
