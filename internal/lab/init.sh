#!/bin/sh
# PID 1 of a lab machine. The root that the kernel mounts is the host's own file system, read-only, through hostfs; this
# script lays an overlay in memory over it, moves there, loads what the tests need and runs the machine's script. Its
# settings are in machine.env beside it. The script's status goes to the file rc; no such file means that the machine
# stopped on its way.
set -eu
trap 'busybox poweroff -f' EXIT
machine=${0%/*}
. "$machine/machine.env"

# enter_root makes the overlay and starts this script again inside it.
#
# For a user who is not root, root's files on the host belong to nobody in here: set-user-id bits on them would take root
# away. So mount, which has one, is not used before the overlay, and the overlay ignores them.
enter_root() {
	busybox mount -t proc proc /proc
	insmod "/usr/lib/uml/modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko"
	busybox mount -t tmpfs -o mode=755,size=75% tmpfs /mnt
	mkdir /mnt/upper /mnt/work /mnt/root
	# Each layer is a mount of its own: an overlay takes no folder that lies within another of its layers.
	lower=
	count=0
	for layer in $LAYERS; do
		count=$((count + 1))
		mkdir "/mnt/layer$count"
		busybox mount -t hostfs -o "ro,$layer" hostfs "/mnt/layer$count"
		lower=$lower/mnt/layer$count:
	done
	busybox mount -t overlay -o "nosuid,lowerdir=$lower/,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
	cd /mnt/root
	mkdir -p usr/lib/modules lab out host
	busybox mount --bind /usr/lib/uml/modules usr/lib/modules
	busybox mount -t hostfs -o "nosuid,$machine" hostfs lab
	busybox mount -t hostfs -o "nosuid,$SHARE" hostfs out
	busybox mount -t hostfs -o ro,nosuid,/ hostfs host
	busybox mount -t proc proc proc
	busybox mount -t sysfs sysfs sys
	busybox mount -t devtmpfs devtmpfs dev
	mkdir -p dev/pts dev/shm
	ln -s /proc/self/fd dev/fd
	busybox mount -t devpts devpts dev/pts
	for dir in dev/shm run tmp; do
		busybox mount -t tmpfs -o mode=1777,size=75% tmpfs "$dir"
	done
	# A source tree that lies under a folder just hidden comes back, writable in memory like everything else.
	if [ ! -d ".$SOURCE" ]; then
		mkdir -p ".$SOURCE" /mnt/source-upper /mnt/source-work
		busybox mount -t overlay -o "nosuid,lowerdir=$SOURCE,upperdir=/mnt/source-upper,workdir=/mnt/source-work" overlay ".$SOURCE"
	fi
	pivot_root . mnt
	exec chroot . /lab/init.sh inside <dev/console >dev/console 2>&1
}

# ready_devices sets up what udev and the boot scripts of a real host would.
ready_devices() {
	umount -l /mnt
	hostname lab
	ip link set lo up
	mkdir -p /run/lock /run/lvm
	# lvm2 does not know User-mode Linux's disks by itself.
	printf 'devices { types = [ "ubd", 16 ] }\n' >/etc/lvm/lvmlocal.conf
	modprobe -a $MODULES
}

# run_script runs the machine's script with its output on the second console, which carries nothing else.
run_script() {
	stty -F /dev/tty1 raw -echo
	cd "$WORKDIR"
	status=0
	HOME=/root TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		/bin/sh /lab/script </dev/null >/dev/tty1 2>&1 || status=$?
	sync
	echo "$status" >/lab/rc.new
	mv /lab/rc.new /lab/rc
}

# become_systemd hands over to systemd, which boots as it would on a real host as far as the tests care, and then runs
# this script again as a service.
become_systemd() {
	units=/run/systemd/system
	mkdir -p "$units"
	cat >"$units/lab.target" <<-'END'
		[Unit]
		Requires=basic.target lab.service
		After=basic.target
		AllowIsolate=yes
	END
	cat >"$units/lab.service" <<-'END'
		[Unit]
		After=basic.target systemd-udev-settle.service
		[Service]
		ExecStart=/lab/init.sh script
		TimeoutStartSec=infinity
	END
	# What the host has enabled for itself, and work that a machine of minutes need not do.
	rm -rf /etc/systemd/system/timers.target.wants
	for unit in ldconfig systemd-binfmt systemd-firstboot systemd-hwdb-update systemd-journal-catalog-update \
		systemd-journal-flush systemd-machine-id-commit systemd-pcrphase-sysinit systemd-random-seed systemd-sysusers \
		systemd-timesyncd systemd-update-done systemd-vconsole-setup; do
		ln -sf /dev/null "$units/$unit.service"
	done
	: >/etc/fstab
	tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
	trap - EXIT
	exec /usr/lib/systemd/systemd --unit=lab.target
}

case ${1-} in
inside)
	ready_devices
	if [ "$SYSTEMD" = true ]; then
		become_systemd
	fi
	# Without udevd every tool of device-mapper has to make its own nodes.
	export DM_DISABLE_UDEV=1
	run_script
	;;
script) run_script ;;
*) enter_root ;;
esac
