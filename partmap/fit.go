package partmap

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Script is a partition table as SfdiskScript writes it, read back to be made to fit a disk of another size.
type Script struct {
	Label       Label
	SectorBytes int

	header     []string // lines before the partitions
	partitions []scriptLine
	entries    uint64 // GPT: that the table has room for
}

// scriptLine is one partition of a script.
type scriptLine struct {
	number      int
	start, size uint64
	kind        string // the type
	rest        string // what follows the size, as it stood
}

const (
	maxScriptBytes   = 1 << 20
	maxScriptSectors = 1 << 49 // of a start and of a size: both together in 4096 bytes are no more than 2^62
	fitAlignBytes    = 1 << 20 // what the end of a partition that is moved is aligned to
	gptTableSectors  = 1       // the backup header, behind the backup entries
)

var scriptPartition = regexp.MustCompile(`^(\S+) : start= *(\d{1,17}), size= *(\d{1,17}), type=([0-9A-Za-z-]+)(.*)$`)

// ParseScript reads what SfdiskScript wrote.
func ParseScript(r io.Reader) (*Script, error) {
	s := &Script{SectorBytes: 512, entries: sfdiskEntries}
	lines := bufio.NewScanner(io.LimitReader(r, maxScriptBytes))
	for lines.Scan() {
		line := lines.Text()
		var err error
		switch key, value, _ := strings.Cut(line, ": "); {
		case strings.TrimSpace(line) == "":
		case scriptPartition.MatchString(line):
			err = s.addPartition(scriptPartition.FindStringSubmatch(line))
		case len(s.partitions) > 0:
			err = errors.New("it stands behind the partitions")
		case key == "device" || key == "unit" || key == "first-lba" || key == "last-lba":
			s.header = append(s.header, line)
		default:
			err = s.addHeader(key, value)
			s.header = append(s.header, line)
		}
		if err != nil {
			return nil, fmt.Errorf("read partition script: cannot use the line %.80q: %w", line, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read partition script: %w", err)
	}
	if s.Label != LabelDOS && s.Label != LabelGPT {
		return nil, fmt.Errorf("read partition script: cannot use a table of the kind %q", s.Label)
	}
	return s, nil
}

func (s *Script) addHeader(key, value string) error {
	switch key {
	case "label":
		s.Label = Label(value)
	case "label-id":
	case "table-length":
		n, err := strconv.ParseUint(value, 10, 32)
		s.entries = n
		return err
	case "sector-size":
		n, err := strconv.Atoi(value)
		if err == nil && !slices.Contains([]int{512, 1024, 2048, 4096}, n) {
			err = errors.New("no disk has such sectors")
		}
		s.SectorBytes = n
		return err
	default:
		return errors.New("it is of no known kind")
	}
	return nil
}

func (s *Script) addPartition(fields []string) error {
	digits := fields[1][len(strings.TrimRight(fields[1], "0123456789")):]
	number, err := strconv.Atoi(digits)
	if err != nil {
		return errors.New("the partition has no number")
	}
	start, err := strconv.ParseUint(fields[2], 10, 64)
	if err != nil {
		return err
	}
	size, err := strconv.ParseUint(fields[3], 10, 64)
	if err != nil {
		return err
	}
	if start >= maxScriptSectors || size == 0 || size >= maxScriptSectors {
		return errors.New("the partition lies out of range")
	}
	p := scriptLine{number: number, start: start, size: size, kind: fields[4], rest: fields[5]}
	s.partitions = append(s.partitions, p)
	return nil
}

func (p scriptLine) end() uint64 { return p.start + p.size }

// isExtended knows the three types of containers.
func (s *Script) isExtended(p scriptLine) bool {
	return s.Label == LabelDOS && slices.Contains([]string{"5", "f", "85"}, strings.ToLower(p.kind))
}

// isLogical follows from the number, as in Linux.
func (s *Script) isLogical(p scriptLine) bool { return s.Label == LabelDOS && p.number > 4 }

// Fitted is the partition that Fit made larger or smaller; Number is 0 when it changed none.
type Fitted struct {
	Number    int
	SizeBytes int64
}

// NeedsBytes is the size of the least disk that the table fits on as it is.
func (s *Script) NeedsBytes() int64 {
	var end uint64
	for _, p := range s.partitions {
		end = max(end, p.end())
	}
	return int64(end+s.behind()) * int64(s.SectorBytes)
}

// behind is how many sectors behind the last partition belong to the table.
func (s *Script) behind() uint64 {
	if s.Label != LabelGPT {
		return 0
	}
	sector := uint64(s.SectorBytes)
	return (s.entries*minEntryBytes+sector-1)/sector + gptTableSectors
}

// Fit makes the table one for a disk of sizeBytes. The last partition gets smaller when the disk is too small for it,
// and with grow larger to take all of a larger disk; a container of logical partitions goes with it. Where a GPT begins
// and ends is left to sfdisk.
func (s *Script) Fit(sizeBytes int64, grow bool) (Fitted, error) {
	last := -1
	for i, p := range s.partitions {
		if !s.isExtended(p) && (last < 0 || p.start > s.partitions[last].start) {
			last = i
		}
	}
	s.header = slices.DeleteFunc(s.header, func(line string) bool {
		return strings.HasPrefix(line, "first-lba:") || strings.HasPrefix(line, "last-lba:")
	})
	needs := s.NeedsBytes()
	if sizeBytes >= needs && !grow || last < 0 {
		return Fitted{}, nil
	}
	end, err := s.endFor(sizeBytes)
	if err != nil {
		return Fitted{}, err
	}
	p := &s.partitions[last]
	if end <= p.start || end < p.end() && sizeBytes >= needs {
		if sizeBytes >= needs {
			return Fitted{}, nil // all of it is taken up to the alignment
		}
		return Fitted{}, fmt.Errorf("cannot make the partitions fit %d bytes: partition %d begins at byte %d, and only the last can shrink",
			sizeBytes, p.number, int64(p.start)*int64(s.SectorBytes))
	}
	p.size = end - p.start
	if s.isLogical(*p) || sizeBytes < needs {
		if err := s.fitContainers(end); err != nil {
			return Fitted{}, err
		}
	}
	return Fitted{Number: p.number, SizeBytes: int64(p.size) * int64(s.SectorBytes)}, nil
}

// endFor returns the sector at which the last partition of a disk may end.
func (s *Script) endFor(sizeBytes int64) (uint64, error) {
	sectors := uint64(max(sizeBytes, 0)) / uint64(s.SectorBytes)
	if sectors <= s.behind() {
		return 0, fmt.Errorf("cannot fit a %s partition table into %d bytes", s.Label, sizeBytes)
	}
	end := sectors - s.behind()
	if s.Label == LabelDOS {
		end = min(end, 1<<32-1)
	}
	align := uint64(fitAlignBytes / s.SectorBytes)
	return end / align * align, nil
}

// fitContainers lets those that reach past the end, or hold the partition that ends there, end there too.
func (s *Script) fitContainers(end uint64) error {
	for i := range s.partitions {
		p := &s.partitions[i]
		if !s.isExtended(*p) {
			continue
		}
		if p.start >= end {
			return fmt.Errorf("cannot make the partitions fit: the extended partition %d begins behind them", p.number)
		}
		holds := slices.ContainsFunc(s.partitions, func(q scriptLine) bool { return s.isLogical(q) && q.end() == end })
		if holds || p.end() > end {
			p.size = end - p.start
		}
	}
	return nil
}

// Write writes the script with device as the name of the disk.
func (s *Script) Write(w io.Writer, device string) error {
	b := bufio.NewWriter(w)
	for _, line := range s.header {
		if strings.HasPrefix(line, "device:") {
			line = "device: " + device
		}
		fmt.Fprintln(b, line)
	}
	b.WriteByte('\n')
	for _, p := range s.partitions {
		fmt.Fprintf(b, "%s : start=%12d, size=%12d, type=%s%s\n", MapName(device, p.number), p.start, p.size, p.kind, p.rest)
	}
	return b.Flush()
}
