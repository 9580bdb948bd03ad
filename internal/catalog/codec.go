package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	formatName     = "voltar"
	formatMajor    = 1
	sha1HexBytes   = 40
	sha256HexBytes = 64
)

// ErrUntrusted is wrapped by the error of a manifest that no trusted key has signed (package sign): its backup is a
// stranger's, and counts for nothing.
var ErrUntrusted = errors.New("no trusted key has signed it")

// ErrDamaged is wrapped by the error of a manifest or marker that is not what voltar writes.
var ErrDamaged = errors.New("the file is damaged")

// FormatError tells that a newer voltar wrote something. It is kept and listed, never restored and never pruned.
type FormatError struct {
	Format string // what it says of itself
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("its format is %q and this version of voltar knows %q", e.Format, Format)
}

// Hint says what a person can do about it.
func (e *FormatError) Hint() string { return "use a newer voltar" }

// checkFormat takes "voltar/1" and "voltar/1.x": what is added within a major version, older readers pass over.
func checkFormat(format string) error {
	number, ok := strings.CutPrefix(format, formatName+"/")
	if !ok {
		return fmt.Errorf("%w: its format is %q", ErrDamaged, format)
	}
	major, _, _ := strings.Cut(number, ".")
	n, err := strconv.Atoi(major)
	if err != nil || n < 1 {
		return fmt.Errorf("%w: its format is %q", ErrDamaged, format)
	}
	if n != formatMajor {
		return &FormatError{Format: format}
	}
	return nil
}

// ID is the identity of the backup.
func (m *Manifest) ID() ID {
	return ID{Ref: m.Source.Ref(), Time: m.Time}
}

// File looks up a file of the backup.
func (m *Manifest) File(name string) (File, bool) {
	for _, file := range m.Files {
		if file.Name == name {
			return file, true
		}
	}
	return File{}, false
}

// FileBytes is the size of all files but the manifest itself.
func (m *Manifest) FileBytes() int64 {
	var sum int64
	for _, file := range m.Files {
		sum += file.SizeBytes // Check has seen to it that this does not overflow
	}
	return sum
}

// Encode writes a manifest. Lists of damage are cut short where they would make it longer than readers take; the counts
// stay. One that no reader would take all the same, or that calls a backup complete which lacks something, is refused.
func (m *Manifest) Encode() ([]byte, error) {
	written := *m
	written.Time, written.Started, written.Ended = m.Time.UTC(), m.Started.UTC(), m.Ended.UTC()
	if written.Extents == nil {
		written.Extents = []Extent{}
	}
	if written.Files == nil {
		written.Files = []File{}
	}
	if err := errors.Join(written.Check(), written.checkStatus(), written.checkSecrecy()); err != nil {
		return nil, fmt.Errorf("write the manifest of %s: %w", m.ID(), err)
	}
	if err := written.cutDamage(maxDamageBytes); err != nil {
		return nil, err
	}
	data, err := encodeJSON(&written)
	if err == nil && len(data) > MaxManifestBytes {
		err = fmt.Errorf("write the manifest of %s: it would have %d bytes, and readers take %d", m.ID(), len(data), MaxManifestBytes)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

// maxDamageBytes bounds the lists of damage of all extents together, as they are in a manifest.
const maxDamageBytes = MaxManifestBytes / 4

// cutDamage ends the lists of damage where together they are longer than maxBytes.
func (m *Manifest) cutDamage(maxBytes int) error {
	m.Extents = slices.Clone(m.Extents)
	for i := range m.Extents {
		x := &m.Extents[i]
		for j := range x.Damaged {
			line, err := encodeJSON(x.Damaged[j])
			if err != nil {
				return err
			}
			const indentBytes = 64 // more than the lines of one entry are set in, together
			if maxBytes -= len(line) + indentBytes; maxBytes < 0 {
				x.DamagedCount = max(x.DamagedCount, int64(len(x.Damaged)))
				x.Damaged = x.Damaged[:j]
				break
			}
		}
	}
	return nil
}

// ParseManifest reads a manifest and checks it. The error wraps ErrDamaged, or is a *FormatError.
func ParseManifest(data []byte) (*Manifest, error) {
	var m Manifest
	if err := decodeJSON(data, &m); err != nil {
		return nil, err
	}
	if err := m.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, faults{err})
	}
	m.Time = m.Time.UTC()
	return &m, nil
}

// faults are all that is wrong with a manifest, in one line.
type faults struct{ error }

func (f faults) Error() string { return strings.ReplaceAll(f.error.Error(), "\n", "; ") }

func (f faults) Unwrap() error { return f.error }

// Check tells all that is wrong with a manifest: what must be there and is not, and what must not be trusted.
func (m *Manifest) Check() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if err := checkFormat(m.Format); err != nil {
		errs = append(errs, err)
	}
	if m.Status != StatusComplete && m.Status != StatusDamaged {
		fail("status %q is not known", m.Status)
	}
	if m.Host.Name == "" {
		fail("the host has no name")
	}
	errs = append(errs, m.Source.check(), checkTime(m.Time), m.checkSpan(), m.checkLengths(), m.checkHolds())
	names, err := checkFiles(m.Files)
	errs = append(errs, err)
	for i := range m.Extents {
		if err := m.Extents[i].check(names); err != nil {
			fail("extent %q: %w", m.Extents[i].Name, err)
		}
	}
	for _, d := range m.Dumps {
		if err := checkSegment(d.Name); err != nil || !names[d.File] {
			fail("dump %q: the file %q is not among the files, or its name cannot be one", d.Name, d.File)
		}
	}
	if m.Definition != "" && !names[m.Definition] {
		fail("the definition of the guest, %q, is not among the files", m.Definition)
	}
	return errors.Join(errs...)
}

// checkHolds refuses a backup of nothing. Also a volume that is empty, and a swap area, have an extent.
func (m *Manifest) checkHolds() error {
	switch m.Source.Kind {
	case SourceVolume, SourceDirectory:
		if len(m.Extents) == 0 {
			return errors.New("it names no extent: nothing can be restored from it")
		}
	case SourceDump, SourceStream:
		if len(m.Dumps) == 0 {
			return errors.New("it names no dump: nothing can be restored from it")
		}
	}
	var content int64
	for i := range m.Extents {
		x := &m.Extents[i]
		if x.ContentBytes >= 0 && x.ContentBytes > maxCount-content {
			return fmt.Errorf("the content of its extents, %d bytes with that of %q, is more than any volume holds", x.ContentBytes, x.Name)
		}
		content += max(x.ContentBytes, 0)
	}
	return nil
}

// checkSpan wants the times of a backup to be those of a clock.
func (m *Manifest) checkSpan() error {
	const firstYear, lastYear = 1970, 2999 // a clock that lost its time begins at the first
	for _, t := range []time.Time{m.Started, m.Ended} {
		if year := t.UTC().Year(); year < firstYear || year > lastYear {
			return fmt.Errorf("it began or ended at %s, which no clock says", t.UTC().Format(time.RFC3339))
		}
	}
	if m.Ended.Before(m.Started) {
		return fmt.Errorf("it ended at %s, before it began at %s", m.Ended.UTC().Format(time.RFC3339), m.Started.UTC().Format(time.RFC3339))
	}
	return nil
}

// maxCount is the most entries or bytes that a count in a manifest may say: more than any volume holds, so that sums stay in range.
const maxCount = 1 << 60

// checkCounts refuses counts of what an extent held that cannot be.
func (e *Extent) checkCounts() error {
	for _, c := range []struct {
		name  string
		count int64
	}{
		{"used", e.UsedBytes}, {"entries", e.Entries}, {"content", e.ContentBytes}, {"unique", e.UniqueBytes}, {"excluded", e.ExcludedBytes},
		{"excluded_entries", e.ExcludedEntries}, {"long_paths", e.LongPaths}, {"damaged_count", e.DamagedCount},
	} {
		if c.count < 0 || c.count > maxCount {
			return fmt.Errorf("its count %q of %d is out of range", c.name, c.count)
		}
	}
	return nil
}

// Bounds of what is kept in mind of every backup. What voltar writes is far shorter.
const (
	maxIDBytes         = 255 // of a run, a machine, a volume, a group
	maxRecipientsBytes = 64 << 10
)

// checkLengths refuses what would fill the memory of whoever lists many backups.
func (m *Manifest) checkLengths() error {
	for _, id := range []string{m.Run, m.Host.MachineID, m.Source.VGUUID, m.Source.LVUUID} {
		if len(id) > maxIDBytes {
			return fmt.Errorf("%q… is longer than any name of a run, a machine, a volume or a group", id[:20])
		}
	}
	if g := m.Source.Guest; g != nil {
		if err := g.check(); err != nil {
			return err
		}
	}
	if m.Encryption == nil {
		return nil
	}
	bytes := len(m.Encryption.Format) + len(m.Encryption.Details)
	for _, recipient := range m.Encryption.Recipients {
		bytes += len(recipient)
	}
	if bytes > maxRecipientsBytes {
		return fmt.Errorf("its recipients have %d bytes", bytes)
	}
	return nil
}

// checkStatus refuses a false success.
func (m *Manifest) checkStatus() error {
	if m.Status != StatusComplete {
		return nil
	}
	for _, e := range m.Extents {
		if e.State == StateFailed || e.DamagedCount > 0 || len(e.Damaged) > 0 {
			return fmt.Errorf("a backup is not complete whose extent %q lacks data", e.Name)
		}
	}
	return nil
}

func (s Source) check() error {
	if err := s.Ref().Check(); err != nil {
		return err
	}
	if s.Kind == SourceVolume && (s.LVUUID == "" || s.VGUUID == "" || s.SizeBytes <= 0) {
		return errors.New("the volume lacks its UUID, that of its group, or its size")
	}
	return nil
}

func checkTime(t time.Time) error {
	if t.IsZero() || t.Nanosecond() != 0 {
		return fmt.Errorf("the time %s is not one of whole seconds", t.Format(time.RFC3339Nano))
	}
	if _, err := ParseTime(FormatTime(t)); err != nil { // a year of five digits
		return err
	}
	return nil
}

// checkFiles returns the set of names.
func checkFiles(files []File) (map[string]bool, error) {
	names := make(map[string]bool, len(files))
	var errs []error
	var sum int64
	for _, file := range files {
		err := errors.Join(
			CheckFileName(file.Name),
			checkHex("SHA-1", file.SHA1, sha1HexBytes),
			checkHex("SHA-256", file.SHA256, sha256HexBytes),
		)
		switch {
		case file.Name == ManifestName:
			err = errors.Join(err, errors.New("a manifest does not list itself"))
		case names[file.Name]:
			err = errors.Join(err, errors.New("it is listed twice"))
		case file.SizeBytes < 0 || file.SizeBytes > math.MaxInt64-sum:
			err = errors.Join(err, fmt.Errorf("its size of %d bytes is out of range", file.SizeBytes))
		default:
			sum += file.SizeBytes
		}
		names[file.Name] = true
		if err != nil {
			errs = append(errs, fmt.Errorf("file %q: %w", file.Name, err))
		}
	}
	return names, errors.Join(errs...)
}

func (e *Extent) check(files map[string]bool) error {
	var errs []error
	if e.Name != "" {
		errs = append(errs, CheckFileName(e.Name)) // it becomes part of file names
	}
	if e.State == "" {
		errs = append(errs, errors.New("it has no state"))
	}
	if e.OffsetBytes < 0 || e.SizeBytes < 0 || e.OffsetBytes > math.MaxInt64-e.SizeBytes {
		errs = append(errs, fmt.Errorf("it lies out of range: %d bytes at %d", e.SizeBytes, e.OffsetBytes))
	}
	named := []string{e.Archive, e.Members, e.BootArea}
	if e.PV != nil {
		named = append(named, e.PV.Tail)
	}
	if e.Index != nil {
		named = append(named, e.Index.Name)
		if e.Index.Name == "" || e.Index.BlocksOffset < 0 {
			errs = append(errs, errors.New("its index has no name or a negative offset"))
		}
	}
	for _, name := range named {
		if name != "" && !files[name] {
			errs = append(errs, fmt.Errorf("it names the file %q, which is not listed", name))
		}
	}
	if e.Archive == "" && (e.State == StateFiles || e.State == StateImage || e.State == StateLVM) {
		errs = append(errs, errors.New("it names no file that holds it"))
	}
	return errors.Join(append(errs, e.checkCounts(), e.checkGuest())...)
}

// checkGuest checks what says where a guest's physical and logical volumes lie.
func (e *Extent) checkGuest() error {
	if e.State == StateLVM && e.PV == nil {
		return errors.New("it does not say which physical volume it is")
	}
	if pv := e.PV; pv != nil && (pv.HeadBytes < 0 || pv.TailBytes < 0 ||
		pv.HeadBytes > e.SizeBytes || pv.TailBytes > e.SizeBytes-pv.HeadBytes) {
		return fmt.Errorf("head and tail of its physical volume, %d and %d bytes, are more than all of it", pv.HeadBytes, pv.TailBytes)
	}
	if e.LV == nil {
		return nil
	}
	rest := e.SizeBytes
	for _, s := range e.LV.Segments {
		if s.SizeBytes <= 0 || s.SizeBytes > rest || len(s.Offsets) == 0 ||
			(len(s.Offsets) > 1 && s.StripeBytes <= 0) || slices.Min(s.Offsets) < 0 {
			return fmt.Errorf("a segment of its logical volume makes no sense: %+v", s)
		}
		rest -= s.SizeBytes
	}
	if rest != 0 {
		return fmt.Errorf("the segments of its logical volume lack %d bytes", rest)
	}
	return nil
}

// checkHex wants lower case, as sha1sum writes it: sums are compared as text.
func checkHex(what, sum string, length int) error {
	valid := func(r rune) bool { return (r >= '0' && r <= '9') || (r >= 'a' && r <= 'f') }
	if len(sum) != length || strings.ContainsFunc(sum, func(r rune) bool { return !valid(r) }) {
		return fmt.Errorf("%q is no %s sum", sum, what)
	}
	return nil
}

func encodeJSON(value any) ([]byte, error) {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("cannot encode: %w", err)
	}
	return buf.Bytes(), nil
}

// decodeJSON reads one value and nothing behind it. The format is looked at first: what a newer version wrote may not
// fit the types of this one.
func decodeJSON(data []byte, value any) error {
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := checkFormat(head.Format); err != nil {
		return err
	}
	if err := json.Unmarshal(data, value); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}
