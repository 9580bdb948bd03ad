package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"voltar/internal/catalog"
)

// checkLayout holds a manifest against itself: what it says of a volume must be possible. Names and files were checked
// when it was read.
func checkLayout(m *catalog.Manifest) []Finding {
	var findings []Finding
	find := func(format string, args ...any) {
		findings = append(findings, Finding{File: catalog.ManifestName, Message: fmt.Sprintf(format, args...)})
	}
	var parts []catalog.Extent // that lie side by side on the volume
	for _, x := range m.Extents {
		if x.State == catalog.StateFiles && x.Index == nil {
			find("%s is stored as files and has no index", label(x.Name))
		}
		if m.Status == catalog.StatusComplete && (x.State == catalog.StateFailed || x.DamagedCount > 0) {
			find("the backup is called complete, and %s lacks data", label(x.Name))
		}
		if m.Source.Kind != catalog.SourceVolume {
			continue
		}
		if end := endOf(x); end > m.Source.SizeBytes {
			find("%s ends at byte %d of a volume of %d bytes", label(x.Name), end, m.Source.SizeBytes)
		}
		if onVolume(x) {
			parts = append(parts, x)
		}
	}
	slices.SortStableFunc(parts, func(a, b catalog.Extent) int { return cmp.Compare(a.OffsetBytes, b.OffsetBytes) })
	for i := 1; i < len(parts); i++ {
		before, x := parts[i-1], parts[i]
		if before.OffsetBytes+before.SizeBytes > x.OffsetBytes {
			find("%s begins inside of %s", label(x.Name), label(before.Name))
		}
	}
	return findings
}

// endOf is where an extent ends on the backed-up volume. A logical volume of the guest need not lie in one piece.
func endOf(x catalog.Extent) int64 {
	if x.LV == nil {
		return x.OffsetBytes + x.SizeBytes
	}
	end := int64(0)
	for _, s := range x.LV.Segments {
		for _, offset := range s.Offsets {
			end = max(end, offset+s.AreaBytes())
		}
	}
	return end
}

// onVolume tells the partitions of a volume and the gaps between them from what lies inside of a partition.
func onVolume(x catalog.Extent) bool {
	return x.Number > 0 && x.Name == fmt.Sprintf("p%d", x.Number) || x.Name == "boot" || strings.HasPrefix(x.Name, "gap")
}

func label(extent string) string {
	if extent == "" {
		return "the volume"
	}
	return extent
}

// tableLine is one partition in the words of sfdisk.
type tableLine struct {
	number               int
	startBytes, endBytes int64
	kind                 string
	uuid                 string
}

// checkTable holds the partition table, as sfdisk reads it, against the extents of the manifest: all partitions that are
// extents must be where the table says, be of its type and have its identifier.
func checkTable(text string, m *catalog.Manifest) []string {
	if m.Table == nil {
		return []string{"the manifest knows of no partition table"}
	}
	label, id, lines, err := parseTable(text)
	if err != nil {
		return []string{err.Error()}
	}
	var findings []string
	find := func(format string, args ...any) { findings = append(findings, fmt.Sprintf(format, args...)) }
	if label != m.Table.Label || id != m.Table.ID {
		find("it is a table %s %s, and %s %s by the manifest", label, id, m.Table.Label, m.Table.ID)
	}
	byNumber := map[int]tableLine{}
	for _, l := range lines {
		byNumber[l.number] = l
	}
	for _, x := range m.Extents {
		if x.Number == 0 || !onVolume(x) {
			continue
		}
		l, ok := byNumber[x.Number]
		switch {
		case !ok:
			find("it lacks partition %d", x.Number)
		case l.startBytes != x.OffsetBytes || l.endBytes != x.OffsetBytes+x.SizeBytes:
			find("partition %d is at bytes %d to %d, and at %d to %d by the manifest", x.Number, l.startBytes, l.endBytes,
				x.OffsetBytes, x.OffsetBytes+x.SizeBytes)
		case !strings.EqualFold(l.kind, x.PartType) || !strings.EqualFold(l.uuid, x.PartUUID):
			find("partition %d is of type %s with the identifier %q, and of type %s with %q by the manifest", x.Number, l.kind, l.uuid,
				x.PartType, x.PartUUID)
		}
	}
	return findings
}

// parseTable reads what `sfdisk --dump` writes.
func parseTable(text string) (label, id string, lines []tableLine, err error) {
	header := map[string]string{}
	sector := int64(512)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name, fields, isPartition := strings.Cut(line, " : ")
		if !isPartition {
			key, value, ok := strings.Cut(line, ": ")
			if ok {
				header[key] = value
			}
			if key == "sector-size" {
				if sector, err = strconv.ParseInt(value, 10, 64); err != nil || sector < 512 || sector > 1<<20 {
					return "", "", nil, fmt.Errorf("its sector size %q makes no sense", value)
				}
			}
			continue
		}
		l, err := parsePartition(strings.TrimPrefix(name, header["device"]), fields, sector)
		if err != nil {
			return "", "", nil, err
		}
		lines = append(lines, l)
	}
	if header["label"] == "" {
		return "", "", nil, fmt.Errorf("it does not say what kind of table it is")
	}
	return header["label"], header["label-id"], lines, nil
}

// parsePartition reads one line of a table; the name is what follows that of the device: "1", or "p1".
func parsePartition(name, fields string, sectorBytes int64) (l tableLine, err error) {
	if l.number, err = strconv.Atoi(strings.TrimPrefix(name, "p")); err != nil || l.number < 1 {
		return tableLine{}, fmt.Errorf("it has a partition %q, which is no number", name)
	}
	numbers := map[string]int64{}
	for field := range strings.SplitSeq(fields, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		value = strings.TrimSpace(value)
		switch key {
		case "name":
			return l.place(numbers, sectorBytes) // the name may hold anything, and nothing that matters here follows it
		case "type":
			l.kind = value
		case "uuid":
			l.uuid = value
		case "start", "size":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 || n > 1<<62/sectorBytes {
				return tableLine{}, fmt.Errorf("partition %d has a %s of %q", l.number, key, value)
			}
			numbers[key] = n
		}
	}
	return l.place(numbers, sectorBytes)
}

func (l tableLine) place(numbers map[string]int64, sectorBytes int64) (tableLine, error) {
	l.startBytes = numbers["start"] * sectorBytes
	l.endBytes = l.startBytes + numbers["size"]*sectorBytes
	return l, nil
}

// checkSumList holds the list of sums, as sha1sum reads it, against the manifest. It has every file but itself and the
// recipe.
func checkSumList(text string, m *catalog.Manifest) []string {
	listed := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		escaped := strings.HasPrefix(line, `\`)
		sum, name, ok := strings.Cut(strings.TrimPrefix(line, `\`), "  ")
		if !ok {
			return []string{fmt.Sprintf("it has a line that sha1sum does not read: %q", line)}
		}
		if escaped {
			name = strings.ReplaceAll(name, `\\`, `\`)
		}
		listed[name] = sum
	}
	var findings []string
	own := catalog.NamesOf(m.Source.Ref(), false).Checksum()
	for _, file := range m.Files {
		if file.Name == own || file.Name == catalog.RecipeName {
			continue
		}
		switch sum, ok := listed[file.Name]; {
		case !ok:
			findings = append(findings, fmt.Sprintf("it lacks %s", file.Name))
		case sum != file.SHA1:
			findings = append(findings, fmt.Sprintf("it has another sum of %s than the manifest", file.Name))
		}
	}
	return findings
}
