package lab

import "testing"

// LibvirtDebs are the packages that Libvirt needs, for Debs.
var LibvirtDebs = []string{"libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-clients", "qemu-system-x86"}

// Libvirt starts libvirt's system daemon, which emulates, until the test ends: qemu:///system. What is defined goes with it.
func Libvirt(t testing.TB) {
	t.Helper()
	Do(t, "sh", "-c", `mkdir -p /etc/libvirt /run/libvirt /var/lib/libvirt/qemu/nvram /var/log/libvirt/qemu /var/cache/libvirt/qemu
printf 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nnamespaces = []\ncgroup_controllers = []\n' >/etc/libvirt/qemu.conf
printf 'auth_unix_rw = "none"\nunix_sock_group = "root"\nlog_outputs = "3:file:/tmp/libvirtd.log"\n' >/etc/libvirt/libvirtd.conf
getent passwd libvirt-qemu || useradd --system --user-group libvirt-qemu
getent group kvm || groupadd --system kvm
virtlogd -d; libvirtd -d --config /etc/libvirt/libvirtd.conf
until virsh -c qemu:///system version; do kill -0 "$(cat /run/libvirtd.pid)" || { cat /tmp/libvirtd.log >&2; exit 1; }; sleep 0.1; done`)
	t.Cleanup(func() {
		Do(t, "sh", "-c", "kill $(cat /run/libvirtd.pid /run/virtlogd.pid); rm -rf /etc/libvirt/qemu /run/libvirt /var/lib/libvirt/qemu/nvram")
	})
}
