// Package probe finds out what is on an extent of a device, without anything being mapped or mounted.
//
// Two readers share the work. Prober asks libblkid through `blkid -p`, which knows several hundred signatures and says
// which one it is. ReadFilesystem then reads the superblocks of the few types that voltar makes again (ext2, ext3, ext4,
// xfs, vfat, btrfs and swap), since mkfs needs far more than blkid tells. Both see
// what a guest wrote: no value is trusted.
package probe

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"voltar/internal/hostcmd"
)

// Result is what libblkid says of an extent. The zero value says that it knows no signature there. Strings are as the
// guest wrote them, but for trailing white space, and may hold any byte but NUL.
type Result struct {
	Type    string // ext4, LVM2_member, crypto_LUKS, linux_raid_member, swap, …
	Version string
	Usage   string // filesystem, raid, crypto, other
	UUID    string
	UUIDSub string
	Label   string
	PTType  string // kind of partition table that lies here: dos, gpt

	// Ambivalent says that several signatures fit and none can be preferred. Type is empty then, and Candidates has all
	// of them in the form USAGE:TYPE:VERSION.
	Ambivalent bool
	Candidates []string
}

// Found says whether there is any signature of a filesystem, a volume or the like; a partition table is not one.
func (r Result) Found() bool { return r.Type != "" || r.Ambivalent }

// Prober asks blkid. It is safe for concurrent use.
type Prober struct {
	runner *hostcmd.Runner
}

// New returns a Prober that finds blkid through r.
func New(r *hostcmd.Runner) *Prober { return &Prober{runner: r} }

// Exit statuses of `blkid -p`, from blkid(8).
const (
	blkidNothing    = 2
	blkidAmbivalent = 8
)

// headBytes is how much of an extent without a signature is read to tell "nothing there" from "cannot be read". It
// reaches past the superblock of btrfs, the deepest among those at the beginning.
const headBytes = 128 << 10

// Probe says what lies in the sizeBytes at offsetBytes of a device or an image file. Finding nothing is no error, nor is
// finding too much. The cache of blkid is neither read nor written.
func (p *Prober) Probe(ctx context.Context, device string, offsetBytes, sizeBytes int64) (Result, error) {
	if offsetBytes < 0 || sizeBytes <= 0 {
		return Result{}, fmt.Errorf("probe %s: cannot probe %d bytes at offset %d", device, sizeBytes, offsetBytes)
	}
	res, err := p.runner.Run(ctx, hostcmd.Cmd{Name: "blkid", Args: []string{
		"--probe", "--output", "udev",
		"--offset", strconv.FormatInt(offsetBytes, 10), "--size", strconv.FormatInt(sizeBytes, 10),
		"--", device,
	}})
	switch code := hostcmd.ExitCode(err); {
	case err == nil || code == blkidAmbivalent:
	case code == blkidNothing && len(bytes.TrimSpace(res.Stderr)) == 0:
		// blkid ends the same way when it cannot read: "nothing" counts only where reading works.
		if err := readable(device, offsetBytes, sizeBytes); err != nil {
			return Result{}, fmt.Errorf("probe %s: %w", device, err)
		}
		return Result{}, nil
	default:
		return Result{}, fmt.Errorf("probe %s: %w", device, err)
	}
	found, err := parseUdev(bytes.NewReader(res.Stdout))
	if err != nil {
		return Result{}, fmt.Errorf("probe %s: %w", device, err)
	}
	return found, nil
}

// DevicesOf returns the devices of the host with a filesystem of a UUID, as far as blkid sees them.
func (p *Prober) DevicesOf(ctx context.Context, uuid string) ([]string, error) {
	res, err := p.runner.Run(ctx, hostcmd.Cmd{Name: "blkid", Args: []string{
		"--cache-file", "/dev/null", "--match-token", "UUID=" + uuid, "--output", "device",
	}})
	if err != nil && hostcmd.ExitCode(err) != blkidNothing {
		return nil, fmt.Errorf("look for the filesystem %s: %w", uuid, err)
	}
	return strings.Fields(string(res.Stdout)), nil
}

// readable returns the error that reading the head of an extent meets.
func readable(device string, offsetBytes, sizeBytes int64) (err error) {
	file, err := os.Open(device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	head := io.NewSectionReader(file, offsetBytes, min(sizeBytes, headBytes))
	n, err := io.Copy(io.Discard, head)
	if err != nil {
		return err
	}
	if n < head.Size() {
		return fmt.Errorf("cannot read %d bytes at offset %d: the device ends before", head.Size(), offsetBytes)
	}
	return nil
}

// parseUdev reads the output of `blkid -o udev`: lines of KEY=VALUE. Of the forms that blkid has, this is the one that
// can be read without doubt: in the *_ENC values libblkid writes every byte outside a small set, the backslash among
// them, as \xHH (see blkid_encode_string), whereas `-o export` in the C locale writes 0xe9 and "M-i" alike. The values
// beside them that only replace unsafe characters are not looked at.
func parseUdev(r io.Reader) (Result, error) {
	var res Result
	fields := map[string]*string{
		"ID_FS_TYPE": &res.Type, "ID_FS_VERSION": &res.Version, "ID_FS_USAGE": &res.Usage,
		"ID_FS_UUID_ENC": &res.UUID, "ID_FS_UUID_SUB_ENC": &res.UUIDSub, "ID_FS_LABEL_ENC": &res.Label,
		"ID_PART_TABLE_TYPE": &res.PTType,
	}
	seen := map[string]bool{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), "=")
		if !ok {
			continue
		}
		if key == "ID_FS_AMBIVALENT" {
			res.Ambivalent, res.Candidates = true, strings.Fields(value)
			continue
		}
		field := fields[key]
		if field == nil {
			continue
		}
		if seen[key] {
			return Result{}, fmt.Errorf("cannot read the output of blkid: %s comes twice", key)
		}
		seen[key] = true
		*field = decodeUdev(value)
	}
	if err := lines.Err(); err != nil {
		return Result{}, fmt.Errorf("cannot read the output of blkid: %w", err)
	}
	if res.Ambivalent {
		res.Type, res.Version, res.Usage = "", "", ""
	}
	return res, nil
}

// decodeUdev turns \xHH back into bytes.
func decodeUdev(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if i+4 <= len(s) && s[i] == '\\' && s[i+1] == 'x' {
			if v, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// XFSProgs returns the version of mkfs.xfs on this host, for MkfsOptions.
func (p *Prober) XFSProgs(ctx context.Context) ([2]int, error) {
	out, err := p.runner.Output(ctx, "mkfs.xfs", "-V")
	if err != nil {
		return [2]int{}, fmt.Errorf("ask for the version of mkfs.xfs: %w", err)
	}
	var version [2]int
	if _, err := fmt.Sscanf(string(out), "mkfs.xfs version %d.%d", &version[0], &version[1]); err != nil {
		return [2]int{}, fmt.Errorf("cannot find the version in %.100q", out)
	}
	return version, nil
}
