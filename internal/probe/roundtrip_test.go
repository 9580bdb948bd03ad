package probe

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"voltar/internal/hostcmd"
)

// original is a filesystem as some guest may have made it.
type original struct {
	name     string
	fsType   string
	sizeMiB  int64
	env      []string
	commands [][]string
}

func originals() []original {
	ext := func(name, fsType string, sizeMiB int64, args ...string) original {
		return original{name, fsType, sizeMiB, nil, [][]string{append([]string{"mke2fs", "-q", "-F"}, append(args, Device)...)}}
	}
	then := func(o original, command ...string) original {
		o.commands = append(o.commands, command)
		return o
	}
	// The oldest of them as the tools of the day made them: no configuration, features named one by one.
	old := func(o original) original {
		o.env = []string{"MKE2FS_CONFIG=/dev/null"}
		return o
	}
	xfs := func(name string, sizeMiB int64, args ...string) original {
		return original{name, "xfs", sizeMiB, xfsTinyEnv,
			[][]string{append([]string{"mkfs.xfs", "-q", "-f"}, append(args, Device)...)}}
	}
	fat := func(name string, sizeMiB int64, args ...string) original {
		return original{name, "vfat", sizeMiB, nil,
			[][]string{append([]string{"mkfs.vfat"}, append(args, Device)...)}}
	}
	btrfs := func(name string, sizeMiB int64, args ...string) original {
		return original{name, "btrfs", sizeMiB, nil, [][]string{append([]string{"mkfs.btrfs", "-q", "-f"}, append(args, Device)...)}}
	}
	swap := func(name string, sizeMiB int64, args ...string) original {
		return original{name, "swap", sizeMiB, nil, [][]string{append([]string{"mkswap", "-q"}, append(args, Device)...)}}
	}
	return []original{
		old(ext("ext2 revision 0", "ext2", 16, "-r", "0", "-O", "none")),
		old(ext("ext2 of 2002", "ext2", 40, "-O", "none,filetype,sparse_super", "-I", "128", "-b", "1024", "-L", "/boot")),
		then(old(ext("ext3 of 2008", "ext3", 200, "-j", "-O", "none,has_journal,ext_attr,resize_inode,dir_index,filetype,sparse_super,large_file",
			"-I", "128", "-b", "4096", "-L", "/1")), "tune2fs", "-c", "37", "-i", "180d", "-E", "hash_alg=tea", "-o", "^acl", Device),
		old(ext("ext4 of 2010", "ext4", 256, "-O", "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,"+
			"sparse_super,large_file,huge_file,uninit_bg,dir_nlink,extra_isize", "-I", "256")),
		ext("ext4 of today", "ext4", 300, "-t", "ext4"),
		ext("ext4 large", "ext4", 9000, "-t", "ext4"),
		ext("ext4 tiny", "ext4", 3, "-t", "ext4"),
		ext("ext4 1k blocks", "ext4", 64, "-t", "ext4", "-b", "1024"),
		ext("ext4 2k blocks", "ext4", 64, "-t", "ext4", "-b", "2048"),
		ext("ext4 no journal", "ext4", 64, "-t", "ext4", "-O", "^has_journal"),
		ext("ext4 no 64bit", "ext4", 300, "-t", "ext4", "-O", "^64bit,^metadata_csum,uninit_bg"),
		ext("ext4 inodes", "ext4", 300, "-t", "ext4", "-N", "123457"),
		ext("ext4 usage news", "ext4", 300, "-t", "ext4", "-T", "news"),
		ext("ext4 big inodes", "ext4", 300, "-t", "ext4", "-I", "1024", "-b", "4096"),
		ext("ext4 bigalloc", "ext4", 300, "-t", "ext4", "-O", "bigalloc", "-C", "65536"),
		ext("ext4 inline", "ext4", 300, "-t", "ext4", "-O", "inline_data,large_dir,ea_inode"),
		ext("ext4 casefold", "ext4", 300, "-t", "ext4", "-O", "casefold", "-E", "encoding=utf8,encoding_flags=strict"),
		ext("ext4 quota", "ext4", 300, "-t", "ext4", "-O", "quota,project", "-E", "quotatype=usrquota:grpquota:prjquota"),
		ext("ext4 project quota", "ext4", 300, "-t", "ext4", "-O", "quota,project", "-E", "quotatype=prjquota"),
		ext("ext4 mmp", "ext4", 300, "-t", "ext4", "-O", "mmp", "-E", "mmp_update_interval=9"),
		ext("ext4 sparse2", "ext4", 600, "-t", "ext4", "-O", "sparse_super2,^resize_inode", "-E", "num_backup_sb=1"),
		ext("ext4 meta_bg", "ext4", 300, "-t", "ext4", "-O", "meta_bg,^resize_inode"),
		ext("ext4 csum seed", "ext4", 300, "-t", "ext4", "-O", "metadata_csum_seed,stable_inodes,verity"),
		ext("ext4 orphan file", "ext4", 300, "-t", "ext4", "-O", "orphan_file"),
		ext("ext4 fast commit", "ext4", 300, "-t", "ext4", "-O", "fast_commit", "-J", "size=16,fast_commit_size=512"),
		ext("ext4 encrypt", "ext4", 300, "-t", "ext4", "-O", "encrypt"),
		ext("ext4 journal", "ext4", 300, "-t", "ext4", "-J", "size=37"),
		ext("ext4 flex", "ext4", 600, "-t", "ext4", "-G", "64", "-E", "stride=16,stripe_width=64"),
		ext("ext4 resize", "ext4", 300, "-t", "ext4", "-E", "resize=8000000"),
		ext("ext4 groups", "ext4", 300, "-t", "ext4", "-b", "4096", "-g", "16384"),
		{"ext4 part of device", "ext4", 300, nil, [][]string{{"mke2fs", "-q", "-F", "-t", "ext4", Device, "51111"}}},
		then(ext("ext4 tuned", "ext4", 300, "-t", "ext4", "-m", "0.37", "-e", "panic", "-L", "a b\"'\\$`=,\n"),
			"tune2fs", "-r", "1234", "-u", "7", "-g", "99", "-o", "journal_data_writeback,discard,^user_xattr", "-E",
			"mount_opts=delalloc", Device),
		ext("ext4 label not UTF-8", "ext4", 64, "-t", "ext4", "-L", "caf\xe9\xff -x"),

		then(ext("ext4 read-only", "ext4", 64, "-t", "ext4"), "tune2fs", "-O", "read-only", Device),

		xfs("xfs of today", 512),
		xfs("xfs v4", 512, "-m", "crc=0,finobt=0", "-n", "ftype=0", "-i", "size=256,attr=2,projid32bit=0"),
		xfs("xfs v4 ancient", 512, "-m", "crc=0,finobt=0", "-n", "ftype=0,version=ci", "-i", "size=512,attr=1,projid32bit=0",
			"-l", "version=1,lazy-count=0,size=10m"),
		xfs("xfs of 2014", 512, "-m", "crc=1,finobt=0,rmapbt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0,nrext64=0", "-l",
			"size=10m"),
		xfs("xfs no reflink", 512, "-m", "reflink=0"),
		xfs("xfs everything", 512, "-m", "rmapbt=1,reflink=1,bigtime=1,inobtcount=1,finobt=1", "-i", "nrext64=1"),
		xfs("xfs no bigtime", 512, "-m", "bigtime=0,inobtcount=0"),
		xfs("xfs 4k sectors", 512, "-s", "size=4096"),
		xfs("xfs 1k blocks", 512, "-b", "size=1024", "-n", "size=8192", "-L", "a b\"'\\$=,"),
		xfs("xfs stripes", 1024, "-d", "su=64k,sw=4", "-i", "size=1024,maxpct=50"),
		xfs("xfs many groups", 600, "-d", "agsize=16m", "-L", "twelve bytes"),
		xfs("xfs odd size", 513, "-d", "size=537022464"),
		xfs("xfs small", 64),

		fat("FAT12", 3, "-F", "12", "-n", "EFI", "-i", "deadbeef"),
		fat("FAT12 floppy", 1, "-F", "12", "-r", "112", "-s", "2", "-M", "0xf9", "-f", "1", "-g", "2/9"),
		fat("FAT16", 64, "-F", "16", "-n", "My Disk", "-h", "63"),
		fat("FAT16 aligned", 100, "-F", "16", "-s", "8", "-R", "8"),
		fat("FAT16 unaligned", 100, "-F", "16", "-s", "32", "-R", "3", "-a", "-r", "1024"),
		fat("FAT32", 300, "-F", "32", "-n", "CAFE"),
		fat("FAT32 odd", 300, "-F", "32", "-s", "2", "-R", "35", "-b", "9", "-f", "1", "-a", "-D", "0x81"),
		fat("FAT32 no backup", 300, "-F", "32", "-b", "0", "-s", "16"),
		fat("FAT32 4k sectors", 300, "-F", "32", "-S", "4096"),
		fat("FAT32 small", 40, "-F", "32", "-s", "1"),

		btrfs("btrfs of today", 300, "-L", "a b\"'\\$=,"),
		btrfs("btrfs of 2013", 300, "-O", "^extref,^skinny-metadata,^no-holes", "-R", "^free-space-tree", "-n", "4096", "-m", "single"),
		btrfs("btrfs mixed", 200, "-M", "-n", "4096", "-s", "4096"),
		btrfs("btrfs sha256", 300, "--csum", "sha256", "-b", "209715200", "-n", "32768"),

		swap("swap", 16, "-L", "swap space-12345"),
		swap("swap no label", 16, "-U", "f0000000-0000-4000-8000-00000000000f"),
		swap("swap 64k pages", 16, "-p", "65536"),
	}
}

func run(t testing.TB, env []string, file string, command []string) []byte {
	t.Helper()
	args := slices.Clone(command[1:])
	for i, arg := range args {
		if arg == Device {
			args[i] = file
		}
	}
	res, err := hostcmd.New(hostcmd.Options{}).Run(context.Background(), hostcmd.Cmd{Name: command[0], Args: args, Env: env})
	if err != nil {
		t.Fatalf("%q: %v\n%s", command, err, res.Stderr)
	}
	return res.Stdout
}

func blankFile(t *testing.T, name string, sizeBytes int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(sizeBytes); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path, fsType string) *Filesystem {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	fs, err := ReadFilesystem(file, info.Size(), fsType)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// changing are the lines of dumpe2fs and the like that tell when and not what.
var changing = regexp.MustCompile(`(?m)^(Filesystem created|Last mount time|Last write time|Last checked|Next check after|Lifetime writes|` +
	`Checksum|Journal checksum|crc|lsn):? .*\n|^ *mmp_update_(date|time): .*\n|^(csum|dev_item.uuid)\t.*\n|^superblock: .*\n|^Image: .*\n|^meta-data=\S+|^/.*: |^fsck.fat .*\n`)

// describe has the filesystem's own tools tell everything about it.
func describe(t *testing.T, path, fsType string) string {
	t.Helper()
	var out []byte
	switch fsType {
	case "ext2", "ext3", "ext4":
		out = run(t, nil, path, []string{"dumpe2fs", "-h", Device})
	case "xfs":
		out = run(t, nil, path, []string{"xfs_db", "-r", "-c", "sb 0", "-c", "print", "-c", "info", Device})
	case "vfat":
		// Status 1 says "has oddities": few clusters, no backup sector.
		res, err := hostcmd.New(hostcmd.Options{}).Run(t.Context(), hostcmd.Cmd{Name: "fsck.fat", Args: []string{"-n", "-v", path}})
		if hostcmd.ExitCode(err) > 1 {
			t.Fatal(err)
		}
		out = res.Stdout
		boot, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, boot[:90]...) // the whole BIOS parameter block
	case "btrfs":
		out = run(t, nil, path, []string{"btrfs", "inspect-internal", "dump-super", Device})
	case "swap":
		boot, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out = boot[:64<<10]
	}
	return changing.ReplaceAllString(string(out), "")
}

// A filesystem made by the commands of Mkfs is, to its own tools, the same as the original.
func TestMkfsMakesTheSameFilesystem(t *testing.T) {
	for _, o := range originals() {
		t.Run(o.name, func(t *testing.T) {
			path := blankFile(t, "original", o.sizeMiB<<20)
			for _, command := range o.commands {
				run(t, o.env, path, command)
			}
			fs := read(t, path, o.fsType)
			stored, err := json.Marshal(fs.Params())
			if err != nil {
				t.Fatal(err)
			}
			var params map[string]string
			if err := json.Unmarshal(stored, &params); err != nil {
				t.Fatal(err)
			}
			if fs, err = FromParams(o.fsType, params); err != nil {
				t.Fatal(err)
			}
			recipe, err := fs.Mkfs(MkfsOptions{})
			if err != nil {
				t.Fatal(err)
			}
			again := blankFile(t, "again", o.sizeMiB<<20)
			for _, command := range slices.Concat(recipe.Commands, recipe.Last) {
				run(t, recipe.Env, again, command)
			}
			if want, got := describe(t, path, o.fsType), describe(t, again, o.fsType); got != want {
				t.Errorf("%q %q made another filesystem:\n%s", recipe.Env, recipe.Commands, lineDiff(want, got))
			}
			if want := strings.Contains(o.name, "quota"); slices.Contains(recipe.Notes, quotaNote) != want {
				t.Errorf("that limits of quotas are lost is said: %t, want %t", !want, want)
			}
			others := slices.DeleteFunc(slices.Clone(recipe.Notes), func(note string) bool { return note == quotaNote })
			if len(others) > 0 && !strings.Contains(o.name, "csum seed") && fs.Btrfs == nil {
				t.Errorf("notes of a filesystem that came out the same: %q", others)
			}
		})
	}
}

// Mkfs makes one of another size of the same features and identifiers.
func TestMkfsMakesAnotherSize(t *testing.T) {
	for _, o := range originals() {
		for _, factor := range []struct {
			name     string
			mul, div int64
		}{{"larger", 3, 1}, {"smaller", 2, 3}} {
			t.Run(o.name+" "+factor.name, func(t *testing.T) {
				path := blankFile(t, "original", o.sizeMiB<<20)
				for _, command := range o.commands {
					run(t, o.env, path, command)
				}
				fs := read(t, path, o.fsType)
				size := (o.sizeMiB << 20) * factor.mul / factor.div
				recipe, err := fs.Mkfs(MkfsOptions{SizeBytes: size})
				if err != nil {
					t.Fatal(err)
				}
				again := blankFile(t, "again", size)
				for _, command := range slices.Concat(recipe.Commands, recipe.Last) {
					run(t, recipe.Env, again, command)
				}
				made := read(t, again, o.fsType)
				if made.UUID != fs.UUID || made.Label != fs.Label {
					t.Errorf("UUID %q, label %q; want %q, %q", made.UUID, made.Label, fs.UUID, fs.Label)
				}
				if made.SizeBytes > size || made.SizeBytes < size*9/10 {
					t.Errorf("%d bytes, want about %d", made.SizeBytes, size)
				}
				switch {
				case fs.Ext != nil:
					if got, want := strings.Join(made.Ext.Features(), " "), strings.Join(fs.Ext.Features(), " "); got != want {
						t.Errorf("features %s\nwant     %s", got, want)
					}
				case fs.Btrfs != nil:
					if diff := cmp.Diff(fs.Btrfs, made.Btrfs); diff != "" {
						t.Error(diff)
					}
				case fs.XFS != nil:
					x, y := *made.XFS, *fs.XFS
					if x.Version != y.Version || x.VersionFlags != y.VersionFlags || x.Features2 != y.Features2 ||
						x.ROCompat != y.ROCompat || x.Incompat != y.Incompat {
						t.Errorf("features %+v\nwant     %+v", x, y)
					}
				}
			})
		}
	}
}

func lineDiff(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out strings.Builder
	for _, line := range a {
		if !slices.Contains(b, line) {
			out.WriteString("- " + line + "\n")
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			out.WriteString("+ " + line + "\n")
		}
	}
	return out.String()
}
