package probe

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Default mount flags of the superblock, as tune2fs -o names them.
var extMountFlagNames = map[uint32]string{
	0x1: "debug", 0x2: "bsdgroups", 0x4: "user_xattr", 0x8: "acl", 0x10: "uid16",
	0x100: "nobarrier", 0x200: "block_validity", 0x400: "discard", 0x800: "nodelalloc",
}

// The mode of data journalling is a number in two bits among the flags.
const extMountJournalMask = 0x60

var extMountJournalNames = map[uint32]string{0x20: "journal_data", 0x40: "journal_data_ordered", 0x60: "journal_data_writeback"}

var extErrorsNames = map[uint32]string{1: "continue", 2: "remount-ro", 3: "panic"}

var extHashNames = map[uint32]string{0: "legacy", 1: "half_md4", 2: "tea"}

// plainMountOptions are those that tune2fs takes: it splits its argument at commas.
var plainMountOptions = regexp.MustCompile(`^[A-Za-z0-9_=.:-]+$`)

// extPlan is what mke2fs is to make: the original's superblock, scaled when the size is another.
type extPlan struct {
	*Ext
	blockBytes   int64
	blocks       int64
	inodes       int64
	journalBytes int64
	sameSize     bool
	notes        []string
}

func (f *Filesystem) planExt(opts MkfsOptions) (*extPlan, error) {
	copied := *f.Ext
	p := &extPlan{Ext: &copied, blockBytes: f.BlockBytes, blocks: copied.BlockCount, inodes: int64(copied.InodeCount),
		journalBytes: copied.JournalBytes}
	if opts.SizeBytes != 0 {
		p.blocks = opts.SizeBytes / f.BlockBytes
	}
	p.sameSize = p.blocks == copied.BlockCount
	if p.sameSize {
		return p, nil
	}
	if p.blocks < 64 {
		return nil, fmt.Errorf("cannot make an ext filesystem in %d bytes", opts.SizeBytes)
	}
	ratio := float64(p.blocks) / float64(copied.BlockCount)
	used := int64(copied.InodeCount) - int64(copied.FreeInodes)
	p.inodes = min(max(int64(float64(p.inodes)*ratio), used+16), math.MaxUint32)
	// mke2fs refuses a journal of less than 1,024 blocks and one of more than half of the free ones.
	if p.journalBytes > p.blocks*p.blockBytes/8 {
		p.journalBytes = max(p.blocks*p.blockBytes/8>>20<<20, 1024*p.blockBytes)
		p.note("the journal is smaller, as the filesystem is")
	}
	if p.blocks > math.MaxUint32 && p.Incompat&extIncompat64Bit == 0 {
		p.Incompat |= extIncompat64Bit
		p.note("the feature 64bit is added: so large a filesystem needs it")
	}
	p.ReservedBlocks = int64(float64(p.ReservedBlocks) * ratio)
	p.BackupGroup1, p.BackupGroup2 = min(p.BackupGroup1, 1), min(p.BackupGroup2, 1) // how many is all that is kept
	return p, nil
}

func (p *extPlan) note(format string, args ...any) {
	p.notes = append(p.notes, fmt.Sprintf(format, args...))
}

func (p *extPlan) has(bits, feature uint32) bool { return bits&feature != 0 }

// mkfsExt follows mke2fs(8) and tune2fs(8) of e2fsprogs 1.47; MKE2FS_CONFIG=/dev/null keeps the host's /etc/mke2fs.conf
// out, and `-O none` what mke2fs would switch on by itself.
func (f *Filesystem) mkfsExt(opts MkfsOptions) (Recipe, error) {
	p, err := f.planExt(opts)
	if err != nil {
		return Recipe{}, err
	}
	argv := []string{"mke2fs", "-q", "-F", "-r", itoa(int64(p.Revision)), "-O", p.featureArgument()}
	argv = append(argv, "-b", itoa(p.blockBytes), "-I", itoa(int64(p.InodeBytes)), "-N", itoa(p.inodes))
	if p.has(p.ROCompat, extROBigalloc) {
		argv = append(argv, "-C", itoa(p.ClusterBytes))
		if int64(p.ClustersPerGroup) != min(8*p.blockBytes, 65528) {
			argv = append(argv, "-g", itoa(int64(p.ClustersPerGroup)))
		}
	} else if int64(p.BlocksPerGroup) != min(8*p.blockBytes, 65528) {
		argv = append(argv, "-g", itoa(int64(p.BlocksPerGroup)))
	}
	if p.FlexGroups > 0 {
		argv = append(argv, "-G", itoa(int64(p.FlexGroups)))
	}
	argv = append(argv, p.journalArguments()...)
	reserved, exact := reservedPercent(p.ReservedBlocks, p.blocks)
	argv = append(argv, "-m", reserved)
	if name := extErrorsNames[p.Errors]; name != "" {
		argv = append(argv, "-e", name)
	}
	if p.CreatorOS != 0 {
		argv = append(argv, "-o", itoa(int64(p.CreatorOS)))
	}
	if f.UUID != "" {
		argv = append(argv, "-U", f.UUID)
	}
	if f.Label != "" {
		argv = append(argv, "-L", f.Label)
	}
	if extended := p.extendedOptions(); len(extended) > 0 {
		argv = append(argv, "-E", strings.Join(extended, ","))
	}
	argv = append(argv, Device, itoa(p.blocks))

	recipe := Recipe{Commands: [][]string{argv}, Env: []string{"MKE2FS_CONFIG=/dev/null"}}
	if tune := p.tuneArguments(exact); len(tune) > 0 {
		recipe.Commands = append(recipe.Commands, append(append([]string{"tune2fs"}, tune...), Device))
	}
	if p.has(p.ROCompat, extROReadOnly) {
		recipe.Last = [][]string{{"tune2fs", "-O", "read-only", Device}} // it could not be filled after that
	}
	p.noteDifferences()
	recipe.Notes = p.notes
	return recipe, nil
}

func (p *extPlan) featureArgument() string {
	names := bitNames([]string{"none"}, p.Compat&extCompatMakeable, extCompatNames, 'C')
	names = bitNames(names, p.Incompat&extIncompatMakeable, extIncompatNames, 'I')
	return strings.Join(bitNames(names, p.ROCompat&extROMakeable, extROCompatNames, 'R'), ",")
}

// journalArguments give the size in whole MiB, which is how mke2fs takes it and how all tools have made them.
func (p *extPlan) journalArguments() []string {
	if !p.has(p.Compat, extCompatHasJournal) || p.journalBytes == 0 {
		return nil
	}
	// A small filesystem has a journal of 1,024 blocks by default, but mke2fs refuses to be asked for half of what is free.
	if p.journalBytes == 1024*p.blockBytes && p.blocks >= 2048 && p.blocks < 8192 && p.JournalFastCommit == 0 {
		return nil
	}
	fastCommit := int64(p.JournalFastCommit) * p.blockBytes
	settings := "size=" + itoa(max((p.journalBytes-fastCommit)>>20, 1))
	if p.has(p.Compat, extCompatFastCommit) && fastCommit > 0 {
		settings += ",fast_commit_size=" + itoa(max(fastCommit>>10, 1)) // in KiB
	}
	return []string{"-J", settings}
}

// reservedPercent finds the shortest percentage from which mke2fs computes the number of reserved blocks. exact is false
// when there is none: mke2fs accepts no more than 50.
func reservedPercent(reserved, blocks int64) (percent string, exact bool) {
	for digits := range 18 {
		text := strconv.FormatFloat(float64(reserved)*100/float64(blocks), 'f', digits, 64)
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || value > 50 {
			return "5", false
		}
		if int64(value*float64(blocks)/100) == reserved {
			return text, true
		}
	}
	return "5", false
}

func (p *extPlan) extendedOptions() []string {
	var list []string
	add := func(name string, value any) { list = append(list, fmt.Sprintf("%s=%v", name, value)) }
	if p.HashSeed != "" {
		add("hash_seed", p.HashSeed)
	}
	// 0 is named too: mke2fs would take both from the device that it runs on, such as a thin volume.
	add("stride", p.Stride)
	add("stripe_width", p.StripeWidth)
	if p.has(p.Compat, extCompatResizeInode) && p.sameSize {
		if limit := p.resizeLimit(); limit > p.blocks && int64(p.ReservedGDT) != p.defaultReservedGDT() {
			add("resize", limit)
		}
	}
	if p.has(p.Compat, extCompatSparse2) {
		add("num_backup_sb", min(p.BackupGroup1, 1)+min(p.BackupGroup2, 1))
	}
	if p.MMPInterval > 0 {
		add("mmp_update_interval", p.MMPInterval)
	}
	if quotas := p.quotaTypes(); quotas != "" && p.has(p.ROCompat, extROQuota) {
		add("quotatype", quotas)
	}
	if p.has(p.Incompat, extIncompatCasefold) {
		if p.Encoding == 1 {
			add("encoding", "utf8-12.1")
		}
		if p.EncodingFlags&1 != 0 {
			add("encoding_flags", "strict")
		}
	}
	return list
}

func (p *extPlan) quotaTypes() string {
	var types []string
	for _, q := range []struct {
		on   bool
		name string
	}{{p.UserQuota, "usrquota"}, {p.GroupQuota, "grpquota"}, {p.ProjectQuota, "prjquota"}} {
		if q.on {
			types = append(types, q.name)
		}
	}
	return strings.Join(types, ":")
}

// descriptors returns how many group descriptors fit a block and how many blocks they fill.
func (p *extPlan) descriptors() (perBlock, blocks int64) {
	perBlock = p.blockBytes / int64(p.DescBytes)
	groups := ceilDiv(p.blocks-int64(p.FirstBlock), int64(p.BlocksPerGroup))
	return perBlock, ceilDiv(groups, perBlock)
}

// defaultReservedGDT is what mke2fs reserves when not asked: for growing 1,024 times, or to 2^32 blocks.
func (p *extPlan) defaultReservedGDT() int64 {
	perBlock, used := p.descriptors()
	most := int64(math.MaxUint32)
	if p.blocks < most/1024 {
		most = p.blocks * 1024
	}
	groups := ceilDiv(most-int64(p.FirstBlock), int64(p.BlocksPerGroup))
	return min(ceilDiv(groups, perBlock)-used, p.blockBytes/4)
}

// resizeLimit is the size in blocks for which mke2fs reserves just as many blocks of descriptors as the original has.
func (p *extPlan) resizeLimit() int64 {
	perBlock, used := p.descriptors()
	return (used + int64(p.ReservedGDT)) * perBlock * int64(p.BlocksPerGroup)
}

// tuneArguments are for tune2fs: what mke2fs has no option for and would set otherwise.
func (p *extPlan) tuneArguments(reservedExact bool) []string {
	var args []string
	if !reservedExact {
		args = append(args, "-r", itoa(p.ReservedBlocks))
	}
	if p.ReservedUID != 0 {
		args = append(args, "-u", itoa(int64(p.ReservedUID)))
	}
	if p.ReservedGID != 0 {
		args = append(args, "-g", itoa(int64(p.ReservedGID)))
	}
	if p.MaxMounts > 0 {
		args = append(args, "-c", itoa(p.MaxMounts))
	}
	if p.CheckInterval != 0 {
		args = append(args, "-i", itoa(int64(p.CheckInterval))+"s")
	}
	if flags := p.mountFlagArgument(); flags != "" {
		args = append(args, "-o", flags)
	}
	var extended []string
	if name, ok := extHashNames[p.HashVersion]; ok && name != "half_md4" && p.HashSeed != "" {
		extended = append(extended, "hash_alg="+name)
	}
	if plainMountOptions.MatchString(p.MountOptions) {
		extended = append(extended, "mount_opts="+p.MountOptions)
	}
	if len(extended) > 0 {
		args = append(args, "-E", strings.Join(extended, ","))
	}
	return args
}

// mountFlagArgument changes what mke2fs sets without a configuration (user_xattr and acl) into what the original has.
func (p *extPlan) mountFlagArgument() string {
	const made = 0x4 | 0x8
	var changes []string
	for bit := uint32(1); bit != 0 && bit <= 0x800; bit <<= 1 {
		name := extMountFlagNames[bit]
		switch {
		case name == "":
		case p.MountFlags&bit != 0 && made&bit == 0:
			changes = append(changes, name)
		case p.MountFlags&bit == 0 && made&bit != 0:
			changes = append(changes, "^"+name)
		}
	}
	if name := extMountJournalNames[p.MountFlags&extMountJournalMask]; name != "" {
		changes = append(changes, name)
	}
	return strings.Join(changes, ",")
}

// noteDifferences says what no tool sets.
func (p *extPlan) noteDifferences() {
	if p.quotaTypes() != "" {
		p.note(quotaNote)
	}
	lost := bitNames(nil, p.Compat&^extCompatMakeable, extCompatNames, 'C')
	lost = bitNames(lost, p.Incompat&^(extIncompatMakeable|extIncompatTransient), extIncompatNames, 'I')
	lost = bitNames(lost, p.ROCompat&^(extROMakeable|extROReadOnly|extROTransient), extROCompatNames, 'R')
	if len(lost) > 0 {
		p.note("features that mke2fs cannot make: %s", strings.Join(lost, ", "))
	}
	if p.MountOptions != "" && !plainMountOptions.MatchString(p.MountOptions) {
		p.note("the default mount options %q must be set with debugfs (set_super_value mount_opts)", p.MountOptions)
	}
	if p.has(p.Incompat, extIncompatCsumSeed) {
		p.note("the checksum seed follows from the UUID; the original's may differ if its UUID was changed")
	}
	if p.InodeBytes > 128 && (p.WantExtraIsize != 32 || p.MinExtraIsize != 32) {
		p.note("inodes reserve %d and want %d extra bytes in the original, 32 in the new one", p.MinExtraIsize,
			p.WantExtraIsize)
	}
}
