# Makes two guests on the logical volumes of a host, backs them up and brings them back onto other disks, whose images it
# leaves in /out. Runs as root in the lab machine; its disk is /dev/ubda. The test sets
#
#     VOLTAR    the program
#     ROOT      the guests' root file system, a tar file
set -eu

say() { printf '== %s: %s\n' "$(cut -d ' ' -f 1 /proc/uptime)" "$*"; }
uuid() { blkid -p -o value -s UUID "$1"; }

# attach VOLUME gives a volume's partitions devices, as the guest has them; their common part is $disk.
attach() { disk=$(losetup --find --show --partscan "/dev/guests/$1"); }
detach() { umount --recursive /mnt && losetup --detach "$disk"; }

# settle FOLDER NAME makes an installation a guest of that name, whose boot messages and login are on the serial console. To
# GRUB, what is in /boot is in FOLDER.
settle() {
	echo "$2" >/mnt/etc/hostname
	kernel=$(basename /mnt/boot/vmlinuz-*)
	cat >/mnt/boot/grub/grub.cfg <<-CFG
		serial --unit=0 --speed=115200
		terminal_input serial
		terminal_output serial
		echo "GRUB of $2 reads its configuration"
		search --no-floppy --fs-uuid --set=root $(uuid "$(findmnt -n -o SOURCE -T /mnt/boot)")
		linux $1/$kernel root=UUID=$(uuid "$(findmnt -n -o SOURCE -T /mnt)") ro console=ttyS0,115200
		initrd $1/initrd.img-${kernel#vmlinuz-}
		boot
	CFG
}

say "a guest of today: MBR, ext4, swap in a logical partition"
vgcreate -q -y guests /dev/ubda
lvcreate -q -y -L 1200M -n mbr guests
printf 'label: dos\nsize=1000M, type=83, bootable\ntype=5\ntype=82\n' |
	sfdisk -q --no-reread --no-tell-kernel /dev/guests/mbr
attach mbr
mkfs.ext4 -q -L root "${disk}p1"
mkswap -q "${disk}p5"
mount "${disk}p1" /mnt
tar -C /mnt --xattrs --xattrs-include='*' --numeric-owner -xpf "$ROOT"
cat >/mnt/etc/fstab <<-TAB
	UUID=$(uuid "${disk}p1") / ext4 errors=remount-ro 0 1
	UUID=$(uuid "${disk}p5") none swap sw 0 0
TAB
grub-install --target=i386-pc --boot-directory=/mnt/boot "$disk"
settle /boot guest-mbr
detach

say "a guest of another kind: GPT, EFI system partition, /boot on an ext3 as it was made long ago, XFS"
lvcreate -q -y -L 1400M -n gpt guests
printf 'label: gpt\nsize=64M, type=U, name="EFI System Partition"\nsize=200M, type=L\ntype=L, name=root\n' |
	sfdisk -q --no-reread --no-tell-kernel /dev/guests/gpt
attach gpt
mkfs.vfat -n ESP "${disk}p1"
mke2fs -q -t ext3 -I 128 -O none,has_journal,filetype,sparse_super -L boot "${disk}p2"
mkfs.xfs -q -L root "${disk}p3"
mount "${disk}p3" /mnt
mkdir /mnt/boot
mount "${disk}p2" /mnt/boot
mkdir /mnt/boot/efi
mount "${disk}p1" /mnt/boot/efi
tar -C /mnt --xattrs --xattrs-include='*' --numeric-owner -xpf "$ROOT"
# A file system that is missing here is one that the guest does not start without.
cat >/mnt/etc/fstab <<-TAB
	UUID=$(uuid "${disk}p3") / xfs defaults 0 0
	UUID=$(uuid "${disk}p2") /boot ext3 defaults 0 2
	UUID=$(uuid "${disk}p1") /boot/efi vfat umask=0077 0 1
TAB
grub-install --target=x86_64-efi --removable --no-nvram --boot-directory=/mnt/boot --efi-directory=/mnt/boot/efi
settle '' guest-gpt
detach

say "voltar run"
cat >/run/voltar.toml <<-TOML
	host = "volume-host"
	state_dir = "/run/voltar-state"
	[[destination]]
	name = "backups"
	type = "disk"
	path = "/out/backups"
	require_mount = "none"
TOML
export VOLTAR_CONFIG=/run/voltar.toml
"$VOLTAR" run
"$VOLTAR" list

say "voltar restore of the first guest to a new volume, which is taken to another machine"
"$VOLTAR" restore guests/mbr --to-lv guests/mbr-restored
dd if=/dev/guests/mbr-restored of=/out/mbr.img bs=1M conv=sparse status=none
lvremove -q -y guests/mbr-restored

say "voltar restore of the second guest to an image file"
"$VOLTAR" restore guests/gpt --to-image /out/gpt.img

say "the second guest by hand, as its RESTORE.txt says"
lvcreate -q -y -L 1400M -n by-hand guests
cd /out/backups/volume-host/guests/gpt/*/
grep '^    ' RESTORE.txt | TARGET=/dev/guests/by-hand sh -eu
dd if=/dev/guests/by-hand of=/out/by-hand.img bs=1M conv=sparse status=none
say "done"
