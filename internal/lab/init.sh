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
	busybox insmod "$MODULES_FOLDER/$(uname -r)/kernel/fs/overlayfs/overlay.ko"
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
	busybox mount --bind "$MODULES_FOLDER" usr/lib/modules
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
	own_settings
	# A source tree that lies under a folder just hidden comes back, writable in memory like everything else.
	if [ ! -d ".$SOURCE" ]; then
		mkdir -p ".$SOURCE" /mnt/source-upper /mnt/source-work
		busybox mount -t overlay -o "nosuid,lowerdir=$SOURCE,upperdir=/mnt/source-upper,workdir=/mnt/source-work" overlay ".$SOURCE"
	fi
	pivot_root . mnt
	exec chroot . /lab/init.sh inside <dev/console >dev/console 2>&1
}

# own_settings gives the machine a clean home and settings of its own, so that what an administrator of the host has set up
# changes neither what programs do in here nor how long they take to start. A shell that ssh starts, for one, reads root's
# .bashrc, and every program of lvm2 its hundred kilobytes of comments. Where a machine was started by a user who is not
# root, this also replaces what only root can read.
own_settings() {
	busybox mount -t tmpfs -o mode=700 tmpfs root
	busybox mount -t tmpfs -o mode=755 tmpfs usr/local
	mkdir usr/local/bin usr/local/sbin
	rm -rf etc/bash.bashrc etc/crypttab etc/environment etc/fstab etc/gai.conf etc/gshadow* etc/hosts etc/ld.so.preload \
		etc/localtime etc/lvm etc/mke2fs.conf etc/modprobe.d etc/modules-load.d/* etc/nsswitch.conf etc/profile.d/* \
		etc/.pwd.lock etc/resolv.conf etc/shadow* etc/ssh/* etc/sysctl.d/* etc/timezone etc/udev/rules.d/* etc/voltar \
		var/lib/voltar
	mkdir -p etc/lvm etc/modprobe.d etc/ssh etc/udev/rules.d
	echo 'root:*:20000:0:99999:7:::' >etc/shadow
	chmod 600 etc/shadow
	echo '127.0.0.1 localhost lab' >etc/hosts
	printf '%s: files\n' passwd group shadow gshadow hosts networks protocols services >etc/nsswitch.conf
	: >etc/resolv.conf
	: >etc/fstab
	# lvm2 does not know User-mode Linux's disks by itself. The memory that it locks while it suspends a device, touching
	# every page, took most of the time of lvcreate and lvremove; nothing is swapped out in here. In KiB.
	printf '%s\n' 'devices { types = [ "ubd", 16 ] }' 'activation { reserved_memory = 128 }' >etc/lvm/lvm.conf
}

# MASKED are units that would start by themselves and have nothing to do here: each costs a second or more.
MASKED="dev-mqueue.mount getty.target kmod-static-nodes.service modprobe@configfs.service modprobe@dm_mod.service
modprobe@fuse.service modprobe@loop.service proc-sys-fs-binfmt_misc.automount sys-fs-fuse-connections.mount
sys-kernel-config.mount systemd-binfmt.service systemd-journal-flush.service systemd-logind.service
systemd-modules-load.service systemd-pstore.service systemd-random-seed.service systemd-sysctl.service
systemd-tmpfiles-clean.timer systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup.service
systemd-update-utmp-runlevel.service systemd-update-utmp.service systemd-user-sessions.service"

# ready_devices sets up what udev and the boot scripts of a real host would.
ready_devices() {
	busybox umount -l /mnt
	echo lab >/proc/sys/kernel/hostname
	busybox ip link set lo up
	mkdir -p /run/lock /run/lvm
	modprobe -a $MODULES
}

# run_script runs the machine's script, by sh unless its first line names another shell, with its output on the second console, which carries nothing else. Without udevd
# every tool of device-mapper has to make its own nodes.
run_script() {
	busybox stty -F /dev/tty1 raw -echo
	cd "$WORKDIR"
	status=0
	[ "$SYSTEMD" ] || export DM_DISABLE_UDEV=1
	. /lab/arguments
	HOME=/root TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		/lab/script "$@" </dev/null >/dev/tty1 2>&1 || status=$?
	sync
	echo "$status" >/lab/rc.new
	mv /lab/rc.new /lab/rc
}

# become_systemd hands over to the init system of the host, which runs the machine's script as lab.service. Of what the
# host itself has enabled, only what belongs to LVM is; logins, networks and clocks have no place here. An empty file
# masks a unit or a generator. What is written here, the shell writes by itself: each program costs time.
become_systemd() {
	rm -rf /etc/systemd/system/*.wants /etc/systemd/system/*.requires /etc/systemd/system/default.target \
		/.dockerenv /run/.containerenv # with which systemd would take the machine for a container
	echo lab >/etc/hostname
	IFS=- read -r a b c d e </proc/sys/kernel/random/uuid
	echo "$a$b$c$d$e" >/etc/machine-id
	touch /etc/.updated /var/.updated # nothing is to be brought up to date with /usr
	cd /etc/systemd
	mkdir -p system-generators system.conf.d journald.conf.d system/sysinit.target.d \
		system/systemd-udev-trigger.service.d
	for generator in /lib/systemd/system-generators/*; do
		: >"system-generators/${generator##*/}"
	done
	for unit in $MASKED; do
		: >"system/$unit"
	done
	echo '[Manager]
DefaultTimeoutStartSec=5min' >system.conf.d/lab.conf
	echo '[Journal]
Storage=volatile
RateLimitBurst=0' >journald.conf.d/lab.conf
	echo '[Unit]
Wants=blk-availability.service lvm2-lvmpolld.socket lvm2-monitor.service' >system/sysinit.target.d/lab.conf
	# Of the devices that there are before udevd, most are terminals.
	echo '[Service]
ExecStart=
ExecStart=udevadm trigger --action=add --subsystem-match=block' >system/systemd-udev-trigger.service.d/lab.conf
	echo '[Unit]
Description=The script of the lab machine, and what runs on a server
Requires=multi-user.target
Wants=lab.service
AllowIsolate=yes' >system/default.target
	echo '[Unit]
Description=The script of the lab machine
After=basic.target
FailureAction=poweroff-immediate
[Service]
Type=exec
ExecStartPre=udevadm settle
ExecStart=/lab/init.sh script
StandardOutput=journal+console' >system/lab.service
	cd /
	trap - EXIT
	exec /lib/systemd/systemd
}

case ${1-} in
"")
	enter_root
	;;
inside)
	ready_devices
	[ ! "$SYSTEMD" ] || become_systemd
	run_script
	;;
script)
	run_script
	;;
esac
