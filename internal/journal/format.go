package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"
)

// Format is what the first line of a journal of this version says of itself. Fields and kinds may be added within it.
const Format = "voltar-journal/1"

// Kind is a kind of thing that a run makes on the host or in a destination.
type Kind string

// Kinds of things. A reader must leave alone what is of a kind that it does not know.
const (
	KindSnapshot   Kind = "snapshot"   // VG, LV, OriginUUID, Tags; once made LVUUID
	KindActivation Kind = "activation" // an LV that was inactive: VG, LV, LVUUID
	KindVolume     Kind = "volume"     // an LV that a restore makes: VG, LV, Tags; once made LVUUID
	KindMap        Kind = "map"        // DMName, DMUUID; once made Device
	KindLoop       Kind = "loop"       // Path of the backing file; once made Device
	KindFreeze     Kind = "freeze"     // Path, or Name of the hook; Deadline, Thaw
	KindBackup     Kind = "backup"     // a folder that becomes a backup, or one that is being deleted: Destination, Path
	KindThinMeta   Kind = "thin-meta"  // the metadata snapshot of a thin pool: DMName, DMUUID; once made Root
)

// TagIncomplete is on a volume of KindVolume while it is being restored. It stays on one whose restore failed.
const TagIncomplete = "voltar.incomplete"

// TagWas, followed by an identity as package catalog writes it, is on a volume that was restored in the place of another which is gone.
const TagWas = "voltar.was="

// Thing is what a run is about to make, with all that is known beforehand to find it again.
type Thing struct {
	Kind        Kind      `json:"kind"`
	Name        string    `json:"name,omitempty"` // for people, where nothing else names it
	VG          string    `json:"vg,omitempty"`
	LV          string    `json:"lv,omitempty"`
	LVUUID      string    `json:"lv_uuid,omitempty"`
	OriginUUID  string    `json:"origin_uuid,omitempty"`
	Tags        []string  `json:"tags,omitempty"`
	DMName      string    `json:"dm_name,omitempty"`
	DMUUID      string    `json:"dm_uuid,omitempty"`
	Device      string    `json:"device,omitempty"` // path or MAJOR:MINOR; a number means nothing after a reboot
	Path        string    `json:"path,omitempty"`
	Destination string    `json:"destination,omitempty"` // what the store's String gives
	Root        string    `json:"root,omitempty"`        // block of a metadata snapshot
	Deadline    time.Time `json:"deadline,omitzero"`     // by when a freeze must have ended
	Thaw        []string  `json:"thaw,omitempty"`        // the command that ends a freeze
}

// Facts are what became known of a thing when it was made. Empty fields leave what the intent said.
type Facts struct {
	LVUUID string `json:"lv_uuid,omitempty"`
	DMUUID string `json:"dm_uuid,omitempty"`
	Device string `json:"device,omitempty"`
	Path   string `json:"path,omitempty"`
	Root   string `json:"root,omitempty"`
}

func (t *Thing) apply(f Facts) {
	for _, field := range []struct {
		to   *string
		from string
	}{{&t.LVUUID, f.LVUUID}, {&t.DMUUID, f.DMUUID}, {&t.Device, f.Device}, {&t.Path, f.Path}, {&t.Root, f.Root}} {
		if field.from != "" {
			*field.to = field.from
		}
	}
}

// Info is what a run says of itself in the first line.
type Info struct {
	Run     string    `json:"run"`
	Host    string    `json:"host"`
	BootID  string    `json:"boot_id"` // after another boot, maps, mounts, freezes and loop devices are gone; LVs stay
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Config  string    `json:"config,omitempty"` // path of the configuration
	Started time.Time `json:"started"`
}

// ID names one thing within its journal; the first is 1.
type ID int

// Owned is a thing that a journal names and that is not gone.
type Owned struct {
	ID    ID
	Thing Thing
	Made  bool // false: the run was about to make it, and may or may not have
}

// record is one line of a journal, inside its envelope.
type record struct {
	Op     string `json:"op"`
	Format string `json:"format,omitempty"` // of begin
	Info   *Info  `json:"info,omitempty"`   // of begin
	ID     ID     `json:"id,omitempty"`     // of all others
	Thing  *Thing `json:"thing,omitempty"`  // of intend
	Facts  *Facts `json:"facts,omitempty"`  // of made
}

const (
	opBegin  = "begin"
	opIntend = "intend"
	opMade   = "made"
	opGone   = "gone"
)

// envelope is a line as it stands in the file: the record's bytes and their CRC-32C in hexadecimal, so that a flipped
// bit in a name cannot send a recovery to somebody else's volume.
type envelope struct {
	Sum    string          `json:"crc32c"`
	Record json.RawMessage `json:"record"`
}

func checksum(data []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
}

func encode(r record) ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	line, err := json.Marshal(envelope{Sum: checksum(data), Record: data})
	if err != nil {
		return nil, err
	}
	return append(line, '\n'), nil
}

func decode(line []byte) (record, error) {
	var env envelope
	if err := json.Unmarshal(line, &env); err != nil {
		return record{}, fmt.Errorf("cannot read it as JSON: %w", err)
	}
	if checksum(env.Record) != env.Sum {
		return record{}, errors.New("its checksum is wrong")
	}
	var r record
	if err := json.Unmarshal(env.Record, &r); err != nil {
		return record{}, fmt.Errorf("cannot read its record: %w", err)
	}
	return r, nil
}

// ledger is what the records of one journal amount to.
type ledger struct {
	info  Info
	last  ID
	owned []Owned // in the order in which they were intended
}

// apply takes one record, or refuses one that makes no sense after those before.
func (l *ledger) apply(r record) error {
	switch r.Op {
	case opIntend:
		if r.Thing == nil || r.Thing.Kind == "" || r.ID != l.last+1 {
			return fmt.Errorf("intent %d makes no sense after %d", r.ID, l.last)
		}
		l.last = r.ID
		l.owned = append(l.owned, Owned{ID: r.ID, Thing: *r.Thing})
	case opMade:
		i := l.find(r.ID)
		if i < 0 {
			return fmt.Errorf("thing %d was made but never intended", r.ID)
		}
		if r.Facts != nil {
			l.owned[i].Thing.apply(*r.Facts)
		}
		l.owned[i].Made = true
	case opGone:
		i := l.find(r.ID)
		if i < 0 {
			return fmt.Errorf("thing %d is gone but was not there", r.ID)
		}
		l.owned = slices.Delete(l.owned, i, i+1)
	default:
		return fmt.Errorf("record %q is not known", r.Op)
	}
	return nil
}

func (l *ledger) find(id ID) int {
	return slices.IndexFunc(l.owned, func(o Owned) bool { return o.ID == id })
}

// outstanding lists what is not gone, the last made first: the order in which to undo it.
func (l *ledger) outstanding() []Owned {
	list := slices.Clone(l.owned)
	slices.Reverse(list)
	return list
}

// errFormat is wrapped by the error of a journal that a newer voltar wrote.
var errFormat = errors.New("the journal is of a format that this version of voltar does not know")

// parse reads a journal. validBytes is where its last good record ends. What a power cut does, it tolerates: a last
// record that is torn, which was never confirmed to anyone. Anything else that is wrong makes the whole untrusted.
func parse(data []byte) (l *ledger, validBytes int, err error) {
	l = &ledger{}
	rest := data
	for number := 1; len(rest) > 0; number++ {
		line, after, ended := bytes.Cut(rest, []byte{'\n'})
		if !ended {
			break
		}
		r, err := decode(line)
		if err != nil {
			if len(after) == 0 && number > 1 {
				return l, validBytes, nil
			}
			return nil, 0, fmt.Errorf("line %d: %w", number, err)
		}
		if number == 1 {
			err = l.begin(r)
		} else {
			err = l.apply(r)
		}
		if err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", number, err)
		}
		validBytes += len(line) + 1
		rest = after
	}
	if validBytes == 0 {
		return nil, 0, errors.New("it holds no whole record") // Begin shows no journal without its first
	}
	return l, validBytes, nil
}

func (l *ledger) begin(r record) error {
	if r.Op != opBegin || !strings.HasPrefix(r.Format, "voltar-journal/") {
		return errors.New("it does not begin a journal")
	}
	if r.Format != Format {
		return fmt.Errorf("%w: %q", errFormat, r.Format)
	}
	if r.Info == nil {
		return errors.New("it does not say whose journal this is")
	}
	if _, err := ParseRunID(r.Info.Run); err != nil {
		return err
	}
	l.info = *r.Info
	return nil
}
