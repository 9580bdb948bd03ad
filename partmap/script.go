package partmap

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// GPT attribute bits that sfdisk has words for; it knows 48 to 63 by number, and no others.
const (
	attrRequired    = 1 << 0
	attrNoBlockIO   = 1 << 1
	attrLegacyBoot  = 1 << 2
	firstTypeAttr   = 48
	attrsOfNoScript = 1<<firstTypeAttr - 1 - attrRequired - attrNoBlockIO - attrLegacyBoot
	sfdiskEntries   = 128
)

// SfdiskScript writes the table as `sfdisk --dump DEVICE` does, and as `sfdisk DEVICE` reads it. Unprintable and
// special characters of names are escaped as sfdisk escapes them: a guest cannot add lines or fields. Losses says what
// such a script cannot carry.
func (t *Table) SfdiskScript(w io.Writer, device string) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "label: %s\nlabel-id: %s\ndevice: %s\nunit: sectors\n", t.Label, t.ID, device)
	if t.Label == LabelGPT {
		fmt.Fprintf(b, "first-lba: %d\nlast-lba: %d\n", t.FirstUsable, t.LastUsable)
		if t.EntryCount != sfdiskEntries {
			fmt.Fprintf(b, "table-length: %d\n", t.EntryCount)
		}
	}
	fmt.Fprintf(b, "sector-size: %d\n", t.SectorBytes)
	if len(t.Partitions) > 0 {
		b.WriteByte('\n')
	}
	for _, p := range t.Partitions {
		fmt.Fprintf(b, "%s : start=%12d, size=%12d, type=%s", MapName(device, p.Number), p.StartSectors, p.SizeSectors, p.Type)
		if p.UUID != "" {
			fmt.Fprintf(b, ", uuid=%s", p.UUID)
		}
		if name := untilZero(p.NameUTF16); len(name) > 0 {
			fmt.Fprintf(b, ", name=\"%s\"", scriptQuote(utf8Bytes(name)))
		}
		if p.Attrs != 0 {
			fmt.Fprintf(b, ", attrs=\"%s\"", attrWords(p.Attrs))
		}
		if p.Bootable {
			b.WriteString(", bootable")
		}
		b.WriteByte('\n')
	}
	return b.Flush()
}

// scriptQuote escapes what sfdisk escapes between quotation marks.
func scriptQuote(s []byte) string {
	var b strings.Builder
	for _, c := range s {
		if c < 0x20 || c >= 0x7f || strings.IndexByte("\"\\`$", c) >= 0 {
			fmt.Fprintf(&b, `\x%02x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isHighSurrogate(u uint16) bool { return u >= 0xd800 && u < 0xdc00 }
func isLowSurrogate(u uint16) bool  { return u >= 0xdc00 && u < 0xe000 }

// utf8Bytes encodes UTF-16 as sfdisk does: a surrogate without its other half is encoded like any other unit, which is
// not valid UTF-8 but keeps names apart.
func utf8Bytes(units []uint16) []byte {
	var b []byte
	for i := 0; i < len(units); i++ {
		c := rune(units[i])
		if isHighSurrogate(units[i]) && i+1 < len(units) && isLowSurrogate(units[i+1]) {
			c = 0x10000 + (c-0xd800)<<10 + rune(units[i+1]) - 0xdc00
			i++
		}
		switch {
		case c < 0x80:
			b = append(b, byte(c))
		case c < 0x800:
			b = append(b, 0xc0|byte(c>>6), 0x80|byte(c&0x3f))
		case c < 0x10000:
			b = append(b, 0xe0|byte(c>>12), 0x80|byte(c>>6&0x3f), 0x80|byte(c&0x3f))
		default:
			b = append(b, 0xf0|byte(c>>18), 0x80|byte(c>>12&0x3f), 0x80|byte(c>>6&0x3f), 0x80|byte(c&0x3f))
		}
	}
	return b
}

func attrWords(attrs uint64) string {
	var words, numbers []string
	for _, w := range []struct {
		bit  uint64
		word string
	}{{attrRequired, "RequiredPartition"}, {attrNoBlockIO, "NoBlockIOProtocol"}, {attrLegacyBoot, "LegacyBIOSBootable"}} {
		if attrs&w.bit != 0 {
			words = append(words, w.word)
		}
	}
	for bit := firstTypeAttr; bit < 64; bit++ {
		if attrs>>bit&1 != 0 {
			numbers = append(numbers, fmt.Sprint(bit))
		}
	}
	if len(numbers) > 0 {
		words = append(words, "GUID:"+strings.Join(numbers, ","))
	}
	return strings.Join(words, " ")
}

// Losses says what of the table does not come back by giving the script to sfdisk: one clause each, none for a
// table that sfdisk itself made. All of it is in Structures, byte for byte.
func (t *Table) Losses() []string {
	var losses []string
	lost := func(format string, args ...any) { losses = append(losses, fmt.Sprintf(format, args...)) }
	if t.Label == LabelGPT && t.EntryBytes != minEntryBytes {
		lost("the entries have %d bytes, sfdisk writes %d", t.EntryBytes, minEntryBytes)
	}
	if t.hybrid {
		lost("the MBR's own partitions are not in the script")
	}
	containers := 0
	for _, p := range t.Partitions {
		if p.Extended {
			containers++
		}
		if p.Attrs&attrsOfNoScript != 0 {
			lost("partition %d has attribute bits that sfdisk does not know", p.Number)
		}
		shown := untilZero(p.NameUTF16)
		if len(shown) != len(p.NameUTF16) {
			lost("partition %d has a name that goes on after its end", p.Number)
		}
		for _, u := range shown {
			if isHighSurrogate(u) || isLowSurrogate(u) {
				lost("partition %d has a name with characters that sfdisk does not write", p.Number)
				break
			}
		}
	}
	if t.Label == LabelDOS && len(t.Partitions) > 0 && t.Partitions[len(t.Partitions)-1].Number > maxSfdiskDOS {
		lost("sfdisk knows no more than %d partitions in an MBR", maxSfdiskDOS)
	}
	if containers > 1 {
		lost("sfdisk knows only one extended partition")
	}
	return losses
}
