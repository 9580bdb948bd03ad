package catalog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"voltar/internal/durable"
	"voltar/internal/say"
	"voltar/internal/store"
)

// Known keeps what manifests said, in a folder of this host that may be removed at any time. A manifest is taken for the
// one that was read while the listing of its folder shows it, and the signature without which it would not have been read, by
// the same marks. What is not known, or cannot be used, is read again.
//
// There is a file for each host in each store, and for whose signatures count: a line that says so, a line for each backup in
// JSON, and a line with the SHA-256 of all before. It appears whole or not at all. If two processes write it, the later file
// stays. A file that cannot be read or written costs requests, nothing else.
type Known struct {
	bounded
	log *slog.Logger
}

// NewKnown returns what is known by a folder, which is made when there is something to keep.
func NewKnown(dir string, log *slog.Logger) *Known {
	return &Known{bounded{dir: dir, limits: limits{maxKnownFiles, maxAllKnownBytes}}, log}
}

// Bounds of what is known. Who may write to a store can make up backups.
const (
	maxKnown           = 100_000   // backups of one host in one store
	maxKnownBytes      = 64 << 20  // of one file
	maxKnownEntryBytes = 16 << 10  // of one backup; others are read each time
	maxKnownFiles      = 10_000    // of all stores; the least recently used go
	maxAllKnownBytes   = 256 << 20 // of all stores
	knownFormat        = "voltar-known/3"
)

// knownHead is the first line of a file.
type knownHead struct {
	Format string `json:"format"`
	Store  string `json:"store"`
	Host   string `json:"host"`
	Trust  string `json:"trust,omitempty"` // as truster has it
}

// knownEntry is one backup in a file. What the path says is not in it.
type knownEntry struct {
	Folder     string          `json:"folder"` // below that of the host
	Marks      []string        `json:"marks"`
	Identity   Identity        `json:"identity"`
	MachineID  string          `json:"machine"`
	Run        string          `json:"run"`
	Status     Status          `json:"status"`
	SizeBytes  int64           `json:"size"`
	Entries    int64           `json:"entries"`
	Files      string          `json:"files"` // digest, in hexadecimal
	Encryption json.RawMessage `json:"encryption,omitempty"`
	Guest      Guest           `json:"guest,omitzero"`
}

// knownEnd is the last line of a file.
type knownEnd struct {
	SHA256 string `json:"sha256"` // of all lines before
}

// truster is implemented by stores that open only manifests which somebody signed whom they trust. The text is another one
// when that changes.
type truster interface{ Trust() string }

// knownHost is what is known of one host in one store, while it is listed. A nil one knows nothing.
type knownHost struct {
	of   *Known
	head knownHead

	mu      sync.Mutex
	entries map[string]knownEntry // by folder
	changed bool
	looked  map[string]bool // names of sources whose folders were listed
	there   map[string]bool // folders that are there, of those sources
}

// load reads what is known of a host in a store.
func (k *Known) load(s store.Store, host string) *knownHost {
	if k == nil {
		return nil
	}
	r := &knownHost{
		of: k, head: knownHead{Format: knownFormat, Store: s.String(), Host: host}, entries: map[string]knownEntry{},
		looked: map[string]bool{}, there: map[string]bool{},
	}
	if t, ok := store.As[truster](s); ok {
		r.head.Trust = t.Trust()
	}
	text, err := r.readFile()
	if err == nil {
		err = r.parse(text)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		clear(r.entries)
		k.tell("cannot use what is known of manifests, reading them again", err)
	}
	return r
}

// tell logs that nothing is known; where this user may not, that is as it should be.
func (k *Known) tell(what string, err error) {
	level := slog.LevelWarn
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		level = slog.LevelDebug
	}
	k.log.Log(context.Background(), level, what, "folder", k.dir, "err", err)
}

func (r *knownHost) path() string {
	sum := sha256.Sum256([]byte(r.head.Store + "\x00" + r.head.Host + "\x00" + r.head.Trust))
	return filepath.Join(r.of.dir, hex.EncodeToString(sum[:16])+".known")
}

// readFile reads the file, and shows that it is in use.
func (r *knownHost) readFile() ([]byte, error) {
	text, modified, err := readRegular(r.path(), maxKnownBytes)
	if err != nil {
		return nil, err
	}
	if now := time.Now(); now.Sub(modified) > usedAfter {
		_ = os.Chtimes(r.path(), now, now) // another's file, or a read-only filesystem: only which files go first hangs on it
	}
	return text, nil
}

// readRegular reads a file that others may have put there, and says when it was written.
func readRegular(path string, maxBytes int64) (_ []byte, modified time.Time, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, modified, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, modified, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxBytes {
		return nil, modified, fmt.Errorf("%s is not a regular file of at most %s", path, say.Size(maxBytes))
	}
	text, err := io.ReadAll(io.LimitReader(file, maxBytes))
	return text, info.ModTime(), err
}

// parse takes a file that is whole and about this.
func (r *knownHost) parse(text []byte) error {
	end := bytes.LastIndexByte(bytes.TrimSuffix(text, []byte("\n")), '\n') + 1
	sum := sha256.Sum256(text[:end])
	var last knownEnd
	if err := json.Unmarshal(text[end:], &last); err != nil || last.SHA256 != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("%w: %s is not as it was written", ErrDamaged, r.path())
	}
	first, rest, _ := bytes.Cut(text[:end], []byte("\n"))
	var head knownHead
	if err := json.Unmarshal(first, &head); err != nil || head != r.head {
		return fmt.Errorf("%w: %s is about something else", ErrDamaged, r.path())
	}
	for line := range bytes.Lines(rest) {
		var e knownEntry
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrDamaged, r.path(), err)
		}
		r.entries[e.Folder] = e
	}
	return nil
}

func folderBelowHost(id ID) string { return id.Ref.String() + "/" + FormatTime(id.Time) }

// entry returns what is known of a backup whose folder shows these marks.
func (r *knownHost) entry(id ID, seen marks) (e Entry, isKnown bool) {
	if r == nil {
		return e, false
	}
	r.mu.Lock()
	k, isKnown := r.entries[folderBelowHost(id)]
	r.mu.Unlock()
	if !isKnown || !seen.are(k.Marks) {
		return e, false
	}
	e = Entry{
		Host: r.head.Host, ID: id, Identity: k.Identity, MachineID: k.MachineID, Run: k.Run, Status: k.Status, SizeBytes: k.SizeBytes,
		Entries: k.Entries, Guest: k.Guest, known: true,
	}
	if n, err := hex.Decode(e.files[:], []byte(k.Files)); err != nil || n != len(e.files) {
		return e, false
	}
	if len(k.Encryption) > 0 {
		if err := json.Unmarshal(k.Encryption, &e.Encryption); err != nil {
			return e, false
		}
	}
	return e, true
}

// are tells whether a folder shows the marks by which a manifest was read: its own, and its signature's where that counted.
func (m marks) are(known []string) bool {
	switch len(known) {
	case 1:
		return m.manifest == known[0]
	case 2:
		return m.manifest == known[0] && m.signature == known[1]
	}
	return false
}

// add enters what was read by some marks, unless it could not be told from something else.
func (r *knownHost) add(e Entry, by []string) {
	if r == nil || len(by) == 0 || slices.Contains(by, "") {
		return
	}
	k := knownEntry{
		Folder: folderBelowHost(e.ID), Marks: by, Identity: e.Identity, MachineID: e.MachineID, Run: e.Run, Status: e.Status,
		SizeBytes: e.SizeBytes, Entries: e.Entries, Files: hex.EncodeToString(e.files[:]), Guest: e.Guest,
	}
	if e.Encryption != nil {
		var err error
		if k.Encryption, err = json.Marshal(e.Encryption); err != nil {
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries[k.Folder], r.changed = k, true
}

// names are of the files by whose marks a manifest is known.
func (r *knownHost) names() []string {
	if r == nil || r.head.Trust == "" {
		return []string{ManifestName}
	}
	return []string{ManifestName, SignatureName}
}

// saw notes which backups there are of a source.
func (r *knownHost) saw(ref Ref, there []candidate) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looked[ref.String()] = true
	for _, c := range there {
		r.there[folderBelowHost(c.id)] = true
	}
}

// save writes what is known if it changed. It drops backups that are gone from the sources listed; with all, also sources that are
// gone.
func (r *knownHost) save(all bool) {
	if r == nil {
		return
	}
	for folder := range r.entries {
		source := folder[:max(strings.LastIndexByte(folder, '/'), 0)]
		if looked := r.looked[source]; looked && !r.there[folder] || !looked && all {
			delete(r.entries, folder)
			r.changed = true
		}
	}
	if !r.changed {
		return
	}
	if err := r.write(); err != nil {
		r.of.tell("cannot keep what is known of manifests", err)
	}
}

func (r *knownHost) write() error {
	folders := make([]string, 0, len(r.entries))
	for folder := range r.entries {
		folders = append(folders, folder)
	}
	slices.Sort(folders)
	var text bytes.Buffer
	line := func(value any) error {
		data, err := json.Marshal(value)
		if err == nil {
			text.Write(append(data, '\n'))
		}
		return err
	}
	if err := line(r.head); err != nil {
		return err
	}
	for i, folder := range folders {
		before := text.Len()
		if err := line(r.entries[folder]); err != nil {
			return err
		}
		if text.Len()-before > maxKnownEntryBytes {
			text.Truncate(before)
		}
		if i+1 == maxKnown || text.Len() > maxKnownBytes-2*maxKnownEntryBytes {
			break
		}
	}
	sum := sha256.Sum256(text.Bytes())
	if err := line(knownEnd{hex.EncodeToString(sum[:])}); err != nil {
		return err
	}
	if err := durable.MkdirAll(r.of.dir, 0o700); err != nil {
		return err
	}
	return errors.Join(durable.WriteFile(r.path(), text.Bytes(), 0o600), r.of.wrote(text.Len()))
}
