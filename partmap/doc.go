// Package partmap reads the partition tables of volumes, and maps partitions as device-mapper devices under the names
// that kpartx gives them.
//
// Read knows the MBR with its extended and logical partitions, the GPT in any state of repair, and volumes without a
// table. It trusts nothing that it reads: a volume belongs to a guest. A table that contradicts itself or its disk
// is an *InvalidError, which says what is wrong, and such a volume can still be stored whole. Reading is bounded in
// bytes and in steps, whatever the table says.
//
// Where a table and something else on the disk contradict each other, Read prefers the reading under which nothing is
// lost: a table that claims space wrongly only leads to extents that hold no filesystem and are stored as they are,
// whereas a stale filesystem taken for the content of a disk would hide its partitions.
//
// The formats: UEFI specification 2.10, chapter 5 (GPT and protective MBR); the MBR and its chain of extended boot
// records as block/partitions/msdos.c of Linux reads them; sfdisk(8) for the dump; kpartx(8) and lvm(8) for names;
// dmsetup(8) and the kernel's Documentation/admin-guide/device-mapper/{linear,striped}.rst for maps.
package partmap
