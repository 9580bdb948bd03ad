# Runs in a throw-away machine: what a snapshot costs whoever writes to its origin. It rewrites a volume of 256 MiB in
# blocks of 64 KiB, past the page cache, and prints MiB a second.
set -eu
disk=/dev/ubda

rewrite() { # VOLUME WHAT: the median of three
	for try in 1 2 3; do
		if [ $try != 1 ] && [ -n "${3-}" ]; then $3 >/dev/null 2>&1; fi
		begin=$(date +%s%N)
		dd if=/dev/zero of="$1" bs=64k count=4096 oflag=direct conv=notrunc status=none
		echo $((268435456000000000 / ($(date +%s%N) - begin) / 1048576))
	done | sort -n | sed -n 2p | xargs printf '%-58s | %s\n' "$2"
}

anew_classic() { lvremove -qq -f bench/snap; lvcreate -qq -s -L 300M -n snap bench/classic; }
anew_thin() { lvremove -qq -f bench/snap; lvcreate -qq -s -kn -n snap bench/thin; }

pvcreate -qq $disk
vgcreate -qq bench $disk
lvcreate -qq -y -Wn -L 256M -n classic bench
lvcreate -qq -y -L 1G --poolmetadatasize 8M -T bench/pool
lvcreate -qq -y -V 256M -T bench/pool -n thin

echo 'writer                                                     | MiB/s'
echo ':--------------------------------------------------------- | --:'
rewrite /dev/bench/classic 'plain volume'
lvcreate -qq -s -L 300M -n snap bench/classic
rewrite /dev/bench/classic 'under a classic snapshot, first time over each place' anew_classic
rewrite /dev/bench/classic 'under a classic snapshot, over the same places again'
lvremove -qq -f bench/snap
rewrite /dev/bench/classic 'plain volume, the snapshot removed'
rewrite /dev/bench/thin 'thin volume, space given to it on the way'
rewrite /dev/bench/thin 'thin volume'
lvcreate -qq -s -kn -n snap bench/thin
rewrite /dev/bench/thin 'under a thin snapshot, first time over each place' anew_thin
rewrite /dev/bench/thin 'under a thin snapshot, over the same places again'
lvremove -qq -f bench/snap
rewrite /dev/bench/thin 'thin volume, the snapshot removed'
