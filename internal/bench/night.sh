# Nights of more and more volumes, to see what grows faster than their number. Runs as root in a throw-away machine (make bench-night).
# Arguments: the path of voltar, and numbers of volumes.
#
# lvm2 is a fake behind voltar's commands, whose cost does not depend on the number of volumes: it shows a thin pool with so many volumes,
# all of which are one small filesystem. A snapshot is a map of that. Everything else is real: device-mapper, blkid, mounts, archives,
# a destination on disk, journal, retention, report.
set -eu
VOLTAR=$1
shift

group=$(printf 'G%.0s' $(seq 32))
uuid_of() { printf 'V%031d' "$1"; }                                                    # of a volume, as the device-mapper has it
dashed() { echo "$1" | sed -E 's/(.{6})(.{4})(.{4})(.{4})(.{4})(.{4})(.{6})/\1-\2-\3-\4-\5-\6-\7/'; } # as lvm2 writes it

hostname volume-host
[ -s /etc/machine-id ] || echo 0123456789abcdef0123456789abcdef >/etc/machine-id
mkdir -p /etc/voltar /run/fake /mnt/small
cat >/etc/voltar/voltar.toml <<CONF
host = "volume-host"
[retention]
days = 7
[[destination]]
name = "backups"
type = "disk"
path = "/run/backups"
require_mount = "none"
CONF
mkfs.ext4 -q /dev/ubda 8M
mount /dev/ubda /mnt/small
for i in 1 2 3 4 5 6 7 8; do echo "file $i" >/mnt/small/file$i; done
umount /mnt/small
disk=$(printf '%d:%d' $(stat -c '0x%t 0x%T' /dev/ubda))

# A pool that can be asked for its state, and holds nothing.
truncate -s 4M /run/fake/metadata
truncate -s 64M /run/fake/data
pool="0 131072 thin-pool $(losetup -f --show /run/fake/metadata) $(losetup -f --show /run/fake/data) 128 0"
dmsetup create vg-pool-tpool --uuid "LVM-$group$(uuid_of 0)-tpool" --table "$pool"

for name in lvm lvcreate lvremove; do rm -f /usr/sbin/$name; done
echo 'cat /run/fake/report' >/run/fake/lvm
cat >/run/fake/lvcreate <<'FAKE'
while [ "$1" != -n ]; do shift; done
n=$(cat /run/fake/made); echo $((n + 1)) >/run/fake/made
echo "0 16384 linear $DISK 0" | dmsetup create "vg-$(echo "$2" | sed s/-/--/g)" --uuid "LVM-$GROUP$(printf 'S%031d' "$n")"
FAKE
cat >/run/fake/lvremove <<'FAKE'
for last; do :; done
dmsetup remove "vg-$(echo "${last#vg/}" | sed s/-/--/g)" && echo "  Logical volume \"${last#vg/}\" successfully removed."
FAKE
for name in lvm lvcreate lvremove; do
	{ printf '#!/bin/sh\nset -eu\nDISK=%s GROUP=%s\nexec 9>/run/fake/lock; flock 9\n' "$disk" "$group"; cat /run/fake/$name; } >/usr/sbin/$name
	chmod 755 /usr/sbin/$name
done
echo 1 >/run/fake/made

# report N: what lvm2 shows of a host with N volumes.
report() {
	vg=$(dashed "$group")
	p=$(dashed "$(uuid_of 0)")
	echo '{"report":[{"vg":[{"vg_name":"vg","vg_uuid":"'$vg'","vg_size":"1000000000","vg_free":"0","vg_extent_size":"4194304"}],'
	echo '"pv":[{"pv_name":"/dev/ubda","pv_uuid":"x","vg_uuid":"'$vg'","pv_major":"'"${disk%:*}"'","pv_minor":"'"${disk#*:}"'"}],"lv":['
	echo '{"lv_name":"pool","vg_name":"vg","vg_uuid":"'$vg'","lv_uuid":"'$p'","lv_size":"67108864","lv_layout":"thin,pool","lv_role":"private","lv_kernel_major":"-1"}'
	for i in $(seq "$1"); do
		echo ',{"lv_name":"v'"$i"'","vg_name":"vg","vg_uuid":"'"$vg"'","lv_uuid":"'"$(dashed "$(uuid_of "$i")")"'","lv_size":"8388608","lv_layout":"thin,sparse",'
		echo '"lv_role":"public","pool_lv":"pool","pool_lv_uuid":"'"$p"'","lv_dm_path":"/dev/mapper/vg-v'"$i"'","lv_path":"/dev/vg/v'"$i"'",'
		echo '"lv_kernel_major":"254","lv_kernel_minor":"'"$(cat /run/fake/minor.$i)"'"}'
	done
	echo ']}]}'
}

# night NAME N: a run, with the CPU seconds of voltar itself (fields 14 and 15 of proc_pid_stat(5), in hundredths) and its memory.
night() {
	began=$(date +%s.%N)
	"$VOLTAR" run >/run/fake/out 2>&1 &
	pid=$!
	while state=$(cat /proc/$pid/stat 2>/dev/null) && case $state in *") Z "*) false ;; esac; do
		ticks=$(echo "${state##*) }" | awk '{print $12 + $13}')
		memory=$(awk '/VmHWM/ {print int($2 / 1024)}' /proc/$pid/status 2>/dev/null) || :
		sleep 0.5
	done
	wait $pid || { tail -5 /run/fake/out; exit 1; }
	echo "$1 $2 $(date +%s.%N) $began $ticks ${memory:-0}" |
		awk '{printf "%s %d: %.1f s, %.0f ms each; voltar itself %.1f s of CPU, %.1f ms each; %d MiB\n", $1, $2, $3-$4, 1000*($3-$4)/$2, $5/100, 10*$5/$2, $6}'
	found=$(find /run/backups -name manifest.json | wc -l)
	[ "$found" = "$3" ] || { echo "$found backups, want $3"; exit 1; }
}

have=0
for want in "$@"; do
	while [ $have -lt "$want" ]; do
		have=$((have + 1))
		echo "0 16384 linear $disk 0" | dmsetup create vg-v$have --uuid "LVM-$group$(uuid_of $have)"
		stat -c %T /dev/mapper/vg-v$have | { read -r minor; echo $((0x$minor)); } >/run/fake/minor.$have
	done
	report "$want" >/run/fake/report
	rm -rf /run/backups /var/lib/voltar
	mkdir /run/backups
	night first "$want" "$want"
	night second "$want" $((2 * want))
done
