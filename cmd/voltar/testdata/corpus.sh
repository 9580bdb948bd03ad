#!/bin/sh
# Makes one odd disk of the corpus on a device or a file that is there, filled with zeros:
#
#     corpus.sh NAME DISK
#
# Each name below is a layout that guests have been seen with. Standard tools make what they can; of filesystems whose tools
# few hosts have, the superblock is written by hand, as far as libblkid(3) wants it to know them.
set -eu
disk=$2

table() { sfdisk -q --no-reread --no-tell-kernel "$disk"; }
# at OFFSET: writes standard input there; the offset is in bytes.
at() { dd of="$disk" bs=64k seek="$1" oflag=seek_bytes conv=notrunc,fsync status=none; }
zeros() { head -c "$1" /dev/zero; }
random() { head -c "$1" /dev/urandom; }
size() { blockdev --getsize64 "$disk" 2>/dev/null || stat -c %s "$disk"; }
# filesystem OFFSET SIZE-IN-KIB: an ext4 there, with a file in it.
filesystem() {
	folder=$(mktemp -d) image=$(mktemp)
	echo content > "$folder/file"
	truncate -s "${2}K" "$image"
	mke2fs -q -F -t ext4 -L corpus -d "$folder" "$image"
	at "$1" < "$image"
	rm -r "$folder" "$image"
}
M=1048576

case $1 in
odd-content) # a good table around all sorts of content
	# LUKS, md, NTFS, exFAT, F2FS, nothing, random, damaged ext4, good ext4, swap, JFS
	{ echo 'label: gpt'; for n in 1 2 3 4 5 6 7 8 9 10; do echo size=2M; done; echo size=16M; } | table
	{ printf 'LUKS\272\276\0\1aes\0'; zeros 60; printf 'xts-plain64\0'; zeros 100; } | at $((1*M))
	printf '12345678-1234-1234-1234-123456789abc' | at $((1*M + 168))
	random 500000 | at $((1*M + 4096))
	{ printf '\374\116\053\251\1\0\0\0'; zeros 136; printf '\10\0\0\0'; zeros 108; } | at $((3*M + 4096)) # md, version 1.2
	{ printf '\353\122\220NTFS    \0\2\10'; zeros 7; printf '\370'; zeros 18; printf '\0\20\0\0\0\0\0\0\4\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\366\0\0\0\1\0\0\0'; } | at $((5*M))
	printf '\125\252' | at $((5*M + 510))
	printf 'FILE' | at $((5*M + 4*4096))        # the first record of its table of files
	printf 'FILE' | at $((5*M + 4*4096 + 3072)) # and that of its name
	{ printf '\353\166\220EXFAT   '; zeros 53; printf '\0\0\0\0\0\0\0\0\0\20\0\0\0\0\0\0\200\0\0\0\10\0\0\0\210\0\0\0\364\1\0\0\4\0\0\0\1\2\3\4\0\1\0\0\11\3\1\200'; } | at $((7*M))
	printf '\125\252' | at $((7*M + 510))
	{ printf '\20\40\365\362\1\0\17\0\11\0\0\0\3\0\0\0\14\0\0\0'; } | at $((9*M + 1024)) # F2FS
	{ printf 'JFS1\1\0\0\0'; zeros 8; printf '\0\20\0\0\14\0\3\0\0\2\0\0\11\0\0\0'; } | at $((21*M + 32768))
	random $((2*M)) | at $((13*M))
	filesystem $((15*M)) 2048 # damaged: its superblock claims what is not there
	random 300000 | at $((15*M + 8192))
	printf '\0\0\0\0' | at $((15*M + 1024 + 88)) # inodes of no bytes
	filesystem $((17*M)) 2048 # good
	s=$(mktemp); truncate -s 2M "$s"; mkswap -q -U 11111111-2222-3333-4444-555555555555 "$s"; at $((19*M)) < "$s"; rm "$s"
	;;
hybrid-mbr)
	printf 'label: gpt\nsize=4M\nsize=4M\n' | table
	filesystem $((1*M)) 4096
	printf '\200\0\2\0\203\0\0\0\0\10\0\0\0\40\0\0' | at 462 # the second entry of the MBR: sectors 2048 to 10239
	;;
gpt-head-lost)
	printf 'label: gpt\nsize=4M\n' | table
	filesystem $((1*M)) 4096
	random 512 | at 512
	;;
gpt-tail-lost)
	printf 'label: gpt\nsize=4M\n' | table
	filesystem $((1*M)) 4096
	zeros 16896 | at $(($(size) - 16896))
	;;
gpt-both-lost)
	printf 'label: gpt\nsize=4M\n' | table
	filesystem $((1*M)) 4096
	random 512 | at 512
	random 512 | at $(($(size) - 512))
	;;
many-entries)
	printf 'label: gpt\ntable-length: 200\n180: size=4M\n' | sed "s|^180|${disk}180|" | table
	filesystem $((1*M)) 4096
	;;
many-logicals)
	{ printf 'label: dos\nsize=1M\nstart=4096,type=5\n'; n=5; while [ $n -le 60 ]; do echo "start=$((4098 + 300*(n - 5))),size=200"; n=$((n + 1)); done; } | table
	;;
bsd-disklabel) # in a partition of an MBR: its own partitions are unknown here
	printf 'label: dos\nsize=4M, type=a5\nsize=4M\n' | table
	printf '\127\105\126\202' | at $((1*M + 512))
	printf '\127\105\126\202' | at $((1*M + 512 + 132))
	filesystem $((5*M)) 4096
	;;
wide-sectors) # written on a disk with sectors of 4096 bytes
	image=$(mktemp); truncate -s "$(size)" "$image"
	loop=$(losetup -f --show -b 4096 "$image")
	printf 'label: gpt\nsize=4M\n' | sfdisk -q --no-reread --no-tell-kernel "$loop"
	losetup -d "$loop"
	at 0 < "$image"; rm "$image"
	filesystem $((1*M)) 4096
	;;
past-the-end)
	printf 'label: dos\nsize=4M\n' | table
	filesystem $((1*M)) 4096
	printf '\0\0\0\0\203\0\0\0\0\50\0\0\0\0\0\20' | at 462 # the second partition has 128 GiB
	;;
overlapping)
	printf 'label: dos\nsize=4M\n' | table
	printf '\0\0\0\0\203\0\0\0\0\14\0\0\0\40\0\0' | at 462
	;;
whole-over-stale-gpt)
	printf 'label: gpt\nsize=4M\n' | table
	zeros 17408 | at 0
	filesystem 0 8192
	;;
wrong-protective-mbr)
	printf 'label: gpt\nsize=4M\n' | table
	filesystem $((1*M)) 4096
	printf '\0\0\0\0\356\0\0\0\5\0\0\0\1\0\0\0' | at 446
	;;
random) random "$(size)" | at 0 ;;
*)
	echo "corpus.sh: there is no disk $1" >&2
	exit 2
	;;
esac
