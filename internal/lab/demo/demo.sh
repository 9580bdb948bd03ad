# Two nights on a volume host, on /dev/ubda. Runs as root in a throw-away machine, whose folder /out gets the backups and mails.
# Its arguments are the paths of voltar, of versitygw, which serves S3, and of the mail server in this folder. All that is
# backed up is made here: of the host it takes nothing but these and the packages that the Makefile names.
set -eu
VOLTAR=$1 VERSITYGW=$2 MAIL_SERVER=$3

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

hostname volume-host
mkdir -p /etc/voltar /backups /out/backups /mnt/origin
mount --bind /out/backups /backups
cat >/etc/voltar/voltar.toml <<CONF
host = "volume-host"
[select]
volume_groups = ["nova-volumes"]
[retention]
days = 3
[mail]
to = ["operator@localhost"]
from = "voltar@volume-host.localdomain"
server = "127.0.0.1"
tls = "none"
[[destination]]
name = "backups"
type = "disk"
path = "/backups"
[[destination]]
name = "offsite"
type = "s3"
endpoint = "http://127.0.0.1:9000"
bucket = "volume-backups"
region = "us-east-1"
access_key = "demo"
secret_key = { file = "/etc/voltar/s3.secret" }
CONF
(umask 077 && echo demo-secret >/etc/voltar/s3.secret)
[ -s /etc/machine-id ] || echo 0123456789abcdef0123456789abcdef >/etc/machine-id

"$MAIL_SERVER" /run/mail.eml &
# An S3 server, with its objects in memory. A folder of its data is a bucket.
mkdir -p /run/s3/data/volume-backups /run/s3/attributes
"$VERSITYGW" --port 127.0.0.1:9000 --access demo --secret demo-secret --quiet posix --sidecar /run/s3/attributes /run/s3/data &

# fill FOLDER puts the files of a user into a filesystem.
fill() {
	mkdir -p "$1/home/user/texts"
	head -c 3000000 /dev/urandom >"$1/home/user/photo"
	printf 'written before the first night\n' >"$1/home/user/notes"
	seq 1 60000 | split -l 3000 -a 3 -d - "$1/home/user/texts/numbers."
}

# fill_further FOLDER adds what FAT cannot hold: links, owners, modes, and a file with more room in it than there is.
fill_further() {
	ln "$1/home/user/photo" "$1/home/user/the same photo"
	ln -s ../user/notes "$1/home/user/link"
	chown -R 1000:1000 "$1/home/user"
	chmod 600 "$1/home/user/notes"
	truncate -s 100M "$1/home/user/sparse"
}

# make DEVICE MKFS... makes a filesystem and fills it.
make() {
	device=$1
	shift
	"$@" "$device" >/dev/null
	mount "$device" /mnt/origin
	fill /mnt/origin
	[ "$1" = mkfs.vfat ] || fill_further /mnt/origin
	umount /mnt/origin
}

say "Volumes of three guests: nova-volumes/volume-00000001, -2 and -3"
vgcreate -q -y nova-volumes /dev/ubda
lvcreate -q -y -L 768M -n volume-00000001 nova-volumes
lvcreate -q -y -L 192M -n volume-00000002 nova-volumes
lvcreate -q -y --type thin-pool -L 256M -n pool nova-volumes
lvcreate -q -y -V 1G -T nova-volumes/pool -n volume-00000003

printf 'label: gpt\nsize=256M, type=L, name=root\nsize=320M, type=L, name=data\ntype=S\n' |
	sfdisk -q --no-reread --no-tell-kernel /dev/nova-volumes/volume-00000001
printf 'label: dos\nsize=64M, type=c, bootable\ntype=5\nsize=100M, type=83\n' |
	sfdisk -q --no-reread --no-tell-kernel /dev/nova-volumes/volume-00000002
kpartx -as /dev/nova-volumes/volume-00000001
kpartx -as /dev/nova-volumes/volume-00000002
maps=/dev/mapper/nova--volumes-volume--0000000
make "${maps}1p1" mkfs.ext4 -q -L root
make "${maps}1p2" mkfs.xfs -q -L data
mkswap -q -L swap "${maps}1p3"
make "${maps}2p1" mkfs.vfat -n BOOT
make "${maps}2p5" mkfs.ext4 -q -L logical
make /dev/nova-volumes/volume-00000003 mkfs.ext4 -q -L thin
kpartx -ds /dev/nova-volumes/volume-00000002
lvs -o vg_name,lv_name,lv_size,pool_lv

# What libvirt knows: web1 has the first two volumes, and db1 the third.
mkdir -p /etc/libvirt/qemu
domain() {
	printf "<domain type='kvm'><name>%s</name><uuid>%s</uuid><devices>" "$1" "$2"
	shift 2
	for disk; do
		printf "<disk type='block'><source dev='/dev/nova-volumes/volume-%s'/><target dev='%s'/></disk>" "${disk#*:}" "${disk%:*}"
	done
	printf '</devices></domain>\n'
}
domain web1 dcf47dbd-46d1-4d5b-b442-262a806a333a vda:00000001 vdb:00000002 >/etc/libvirt/qemu/web1.xml
domain db1 0a3f2d4e-1111-4222-8333-444455556666 vda:00000003 >/etc/libvirt/qemu/db1.xml

say "A guest goes on writing to volume-00000001 all the while"
mount "${maps}1p1" /mnt/origin
while :; do date >>/mnt/origin/home/user/log; sync -f /mnt/origin; sleep 1; done &
writer=$!

say "The first night: voltar run, to disk and to S3 at once"
date -s '2026-11-20 01:00:00' >/dev/null
"$VOLTAR" volumes
"$VOLTAR" run >/dev/null

say "The second night, four days later: retention lets the first one go"
date -s '2026-11-24 01:00:00' >/dev/null
printf 'written between the nights\n' >>/mnt/origin/home/user/notes
"$VOLTAR" run --dry-run
"$VOLTAR" run >/dev/null

say "The mail of the second night"
busybox awk '/^MIME-Version|^Subject|^From:|^To:|^Date:/ && !body {print}' /run/mail.eml | tail -5
"$VOLTAR" report | tee /out/mail.txt
cp /run/mail.eml /out/mail.eml

say "What there is now: voltar list, and of one guest"
"$VOLTAR" list
"$VOLTAR" list web1

say "Looking into the newest backup: voltar ls, cat and verify"
"$VOLTAR" ls web1:vda
"$VOLTAR" ls -l volume-00000001 p1:/home/user
"$VOLTAR" cat volume-00000001 p1:/home/user/notes
"$VOLTAR" verify --full --from offsite

say "With standard tools alone: sha1sum -c and gzip -t on the newest backups"
for folder in /backups/volume-host/nova-volumes/*/*/; do
	(cd "$folder" && sha1sum --quiet -c ./*.checksum && gzip -t ./*.gz && echo "good: $folder")
done

kill "$writer"
umount /mnt/origin
kpartx -ds /dev/nova-volumes/volume-00000001

say "A dead volume comes back from S3: voltar restore --from offsite"
# listing FOLDER prints what makes a tree: names, types, owners, modes, times, and the sum of each file.
listing() {
	(cd "$1" && find . -printf '%p %y %U:%G %m %s %T@ %l\n' | sort && find . -type f -exec sha1sum {} + | sort -k 2)
}
mkdir -p /mnt/restored
mount -o ro /dev/nova-volumes/volume-00000003 /mnt/origin
listing /mnt/origin >/run/before
umount /mnt/origin
lvremove -q -y nova-volumes/volume-00000003
"$VOLTAR" restore volume-00000003 --from offsite
mount -o ro /dev/nova-volumes/volume-00000003 /mnt/restored
listing /mnt/restored >/run/after
umount /mnt/restored
diff /run/before /run/after
echo "volume-00000003 is what it was: $(wc -l </run/after) lines of names, owners, modes, times and sums agree"

say "A guest comes back beside itself, as another one: voltar restore --guest db1 --as db2"
"$VOLTAR" restore --guest db1 --as db2
mount -o ro /dev/nova-volumes/db2-vda /mnt/restored
listing /mnt/restored >/run/after
umount /mnt/restored
diff /run/before /run/after
busybox grep -o '<name>.*</name>\|/dev/nova-volumes/[a-z0-9-]*' "$(find /var/lib/voltar/guests -name domain.xml)"

say "A drill: voltar drill --next restores a backup where nobody sees it, and compares it"
"$VOLTAR" drill --next

say "Nothing is left on the host but the volumes"
lvs -o vg_name,lv_name,lv_size,data_percent
dmsetup ls

say "That was the demo. It leaves in demo/, to look at:"
echo "backups/volume-host/    the backups on disk: .tar.gz files, checksums, and RESTORE.txt, which says how to restore without voltar
mail.eml                the mail of the second night, for a mail program
mail.txt                the same as text"
