package revive

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"voltar/internal/guests"
	"voltar/internal/say"
)

var uuidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// domain rewrites libvirt's definition of a machine (libvirt.org/formatdomain.html): only what must change, byte for byte as it was
// otherwise.
type domain struct {
	content []byte
	as      string // its new name; "" keeps name, UUIDs, MACs and firmware variables as they were
	uuid    string // its new one, if as is set
	disks   []became
	edits   []edit
	devices []*element // its disks and drives
	named   bool
	out     rewritten
}

// edit replaces a part of the content.
type edit struct {
	from, to int64
	text     string
}

// element is one that is open, or a disk.
type element struct {
	name, space string
	from, to    int64 // of its start tag
	endFrom     int64 // of its end tag
	end         int64
	attrs       []xml.Attr
	inner       []*element // of a disk, its source, and nvram: the elements right below
}

// rewriteDomain returns the definition of a machine with its disks at other devices and, with as, as another machine: with another name,
// and UUIDs, MAC addresses and firmware variables of its own.
func rewriteDomain(content []byte, as string, disks []became) (rewritten, error) {
	d := &domain{content: content, as: as, disks: disks}
	if as != "" {
		var err error
		if d.uuid, err = newUUID(); err != nil {
			return rewritten{}, err
		}
	}
	if err := d.read(); err != nil {
		return rewritten{}, fmt.Errorf("read the definition: %w", err)
	}
	if err := d.rewriteDisks(); err != nil {
		return rewritten{}, err
	}
	slices.SortFunc(d.edits, func(a, b edit) int { return cmp.Compare(a.from, b.from) })
	var out bytes.Buffer
	at := int64(0)
	for _, e := range d.edits {
		if e.from < at {
			return rewritten{}, fmt.Errorf("two changes of the definition at byte %d", e.from)
		}
		out.Write(content[at:e.from])
		out.WriteString(e.text)
		at = e.to
	}
	out.Write(content[at:])
	d.out.content = out.Bytes()
	return d.out, nil
}

// maxDepth bounds elements in elements.
const maxDepth = 64

// read goes through the elements, notes the edits, and gathers the disks.
func (d *domain) read() error {
	decoder := xml.NewDecoder(bytes.NewReader(d.content))
	var open []*element
	isDomain := false
	for {
		from := decoder.InputOffset()
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			if !d.named {
				return errors.New("it is no <domain> that has a name and a UUID")
			}
			return nil
		}
		if err != nil {
			return err
		}
		to := decoder.InputOffset()
		switch t := token.(type) {
		case xml.StartElement:
			if len(open) == maxDepth {
				return fmt.Errorf("more than %d elements in one another", maxDepth)
			}
			if len(open) == 0 && (isDomain || t.Name.Local != "domain") {
				return fmt.Errorf("it has a <%.40s> where one <domain> is expected", t.Name.Local)
			}
			isDomain = true
			e := &element{name: t.Name.Local, space: t.Name.Space, from: from, to: to, attrs: t.Attr}
			if len(open) > 0 {
				parent := open[len(open)-1]
				parent.inner = append(parent.inner, e)
			}
			open = append(open, e)
		case xml.EndElement:
			e := open[len(open)-1]
			e.endFrom, e.end = from, to
			if err := d.ended(open, e); err != nil {
				return err
			}
			open = open[:len(open)-1]
		}
	}
}

// at tells whether the open elements are those of a path.
func at(open []*element, names string) bool {
	return strings.Join(say.Names(open, func(e *element) string { return e.name }), "/") == names
}

// child returns the first element of a name right below another, or nil.
func (e *element) child(name string) *element {
	if i := slices.IndexFunc(e.inner, func(below *element) bool { return below.name == name }); i >= 0 {
		return e.inner[i]
	}
	return nil
}

// text is what stands between the tags of an element.
func (d *domain) text(e *element) string { return strings.TrimSpace(string(d.content[e.to:e.endFrom])) }

func (d *domain) setText(e *element, value string) {
	d.edits = append(d.edits, edit{e.to, e.endFrom, escaped(value)})
}

// remove takes an element out, with the space before it.
func (d *domain) remove(e *element) {
	from := e.from
	for from > 0 && isSpace(d.content[from-1]) {
		from--
	}
	d.edits = append(d.edits, edit{from, e.end, ""})
}

// ended takes an element that is read to its end.
func (d *domain) ended(open []*element, e *element) error {
	switch {
	case at(open, "domain"):
		name, uuid := e.child("name"), e.child("uuid")
		if d.named = name != nil && uuid != nil && d.text(name) != "" && uuidPattern.MatchString(d.text(uuid)); d.named {
			d.out.uuid = cmp.Or(d.uuid, d.text(uuid))
		}
	case at(open, "domain/devices/disk"):
		d.devices = append(d.devices, e)
	case d.as == "":
	case at(open, "domain/name"):
		d.setText(e, d.as)
	case at(open, "domain/metadata/instance/name") && strings.HasPrefix(e.space, guests.NovaSpace):
		d.setText(e, d.as)
	case at(open, "domain/uuid"), at(open, "domain/sysinfo/system/entry") && attr(e, "name") == "uuid",
		// nova has the instance's UUID there, too.
		at(open, "domain/sysinfo/system/entry") && attr(e, "name") == "serial" && uuidPattern.MatchString(d.text(e)):
		d.setText(e, d.uuid)
	case at(open, "domain/genid") && d.text(e) != "":
		return d.setUUID(e)
	case at(open, "domain/devices/interface/mac"):
		mac, err := newMAC()
		if err != nil {
			return err
		}
		return d.setAttr(e, "address", mac)
	case at(open, "domain/os/nvram"):
		return d.moveVariables(e)
	}
	return nil
}

func (d *domain) setUUID(e *element) error {
	uuid, err := newUUID()
	d.setText(e, uuid)
	return err
}

// moveVariables gives the new machine a file of its own for the variables of its firmware.
func (d *domain) moveVariables(e *element) error {
	source, old := e.child("source"), ""
	if source != nil {
		old = attr(source, "file")
	} else if len(e.inner) == 0 {
		old = d.text(e)
	}
	switch {
	case strings.HasPrefix(old, "/"):
		d.out.nvramFrom = path.Clean(old)
		d.out.nvramTo = path.Join(path.Dir(d.out.nvramFrom), d.as+"_VARS.fd")
		if source != nil {
			return d.setAttr(source, "file", d.out.nvramTo)
		}
		d.setText(e, d.out.nvramTo)
	case source != nil || old != "":
		d.remove(e)
		d.out.notes = append(d.out.notes, "the variables of its firmware are no file: the new machine begins with none")
	}
	return nil
}

// match tells which volume each disk was: by its source, as what ran may have had other names for its disks than what is defined, and
// otherwise by its name.
func (d *domain) match() map[*element]became {
	found, used := map[*element]became{}, map[string]bool{}
	take := func(e *element, is func(became) bool) {
		if _, known := found[e]; known {
			return
		}
		if i := slices.IndexFunc(d.disks, func(b became) bool { return !used[b.name] && is(b) }); i >= 0 {
			found[e], used[d.disks[i].name] = d.disks[i], true
		}
	}
	for _, e := range d.devices {
		take(e, func(b became) bool { return b.isAt(sourceOf(e)) })
	}
	for _, e := range d.devices {
		source := sourceOf(e)
		if source == "" || slices.ContainsFunc(d.disks, func(b became) bool { return b.isBeside(source) }) {
			continue // another volume, whatever it is called
		}
		take(e, func(b became) bool { return b.name == targetOf(e) })
	}
	for _, b := range d.disks {
		if !used[b.name] {
			d.out.lacking = append(d.out.lacking, b)
		}
	}
	return found
}

// ofPool is before the name of a volume of a storage pool.
const ofPool = "pool/"

// sourceOf is the path, or the volume of a storage pool, that a disk is, or any text for one that is something else; "" for none.
func sourceOf(disk *element) string {
	source := disk.child("source")
	if source == nil {
		return ""
	}
	if volume := attr(source, "volume"); volume != "" {
		return ofPool + volume
	}
	return cmp.Or(attr(source, "dev"), attr(source, "file"), "other")
}

func targetOf(disk *element) string {
	if target := disk.child("target"); target != nil {
		return attr(target, "dev")
	}
	return ""
}

// rewriteDisks leads each disk to where it was restored. What another machine would share with the old one leaves the definition.
func (d *domain) rewriteDisks() error {
	found := d.match()
	for _, e := range d.devices {
		b, restored := found[e]
		source := e.child("source")
		device := attr(e, "device")
		isDrive := device == "cdrom" || device == "floppy"
		switch {
		case restored:
			if err := d.lead(e, source, b); err != nil {
				return err
			}
		case source == nil:
		case isDrive && (d.as == "" || device == "cdrom" && strings.HasPrefix(attr(source, "file"), "/") && !isDevice(attr(source, "file"))):
		case isDrive:
			d.remove(source)
			d.out.notes = append(d.out.notes, fmt.Sprintf("the drive %s is empty: what was in it is the old machine's", targetOf(e)))
		default:
			d.out.unknown = append(d.out.unknown, targetOf(e))
			if d.as != "" {
				d.remove(e)
			}
		}
	}
	return nil
}

func isDevice(path string) bool { return strings.HasPrefix(path, "/dev/") }

// lead gives a disk another source. Of a source that is neither a device nor a file, such as a volume of a storage pool, only what is
// also true of a device stays.
func (d *domain) lead(e, source *element, b became) error {
	if serial := e.child("serial"); d.as != "" && serial != nil && uuidPattern.MatchString(d.text(serial)) {
		if err := d.setUUID(serial); err != nil { // that of a volume of Cinder, by which voltar would know the old one
			return err
		}
	}
	for _, name := range []string{"dev", "file"} {
		if attr(source, name) != "" {
			return d.setAttr(source, name, b.device())
		}
	}
	slash := ""
	if source.endFrom == source.to && source.end == source.to {
		slash = "/"
	}
	d.edits = append(d.edits, edit{source.from, source.to, "<source dev='" + escaped(b.device()) + "'" + slash + ">"})
	for _, below := range source.inner {
		if below.name != "encryption" && below.name != "seclabel" {
			d.remove(below)
		}
	}
	return d.setAttr(e, "type", "block")
}

// setAttr changes an attribute of a start tag where it stands.
func (d *domain) setAttr(e *element, name, value string) error {
	tag := d.content[e.from:e.to]
	for i := 1; i < len(tag); i++ {
		rest, found := bytes.CutPrefix(tag[i:], []byte(name))
		if !found || !isSpace(tag[i-1]) {
			continue
		}
		rest = bytes.TrimLeft(rest, " \t\r\n")
		if rest, found = bytes.CutPrefix(rest, []byte("=")); !found {
			continue
		}
		rest = bytes.TrimLeft(rest, " \t\r\n")
		if len(rest) == 0 || rest[0] != '\'' && rest[0] != '"' {
			continue
		}
		length := bytes.IndexByte(rest[1:], rest[0])
		if length < 0 {
			continue
		}
		from := e.to - int64(len(rest)) + 1
		d.edits = append(d.edits, edit{from, from + int64(length), escaped(value)})
		return nil
	}
	return fmt.Errorf("<%s> has no attribute %s", e.name, name)
}

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\r' || b == '\n' }

func attr(e *element, name string) string {
	for _, a := range e.attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// escaped is a text as XML has it.
func escaped(text string) string {
	var out bytes.Buffer
	_ = xml.EscapeText(&out, []byte(text)) // a buffer takes everything
	return out.String()
}

// newMAC gives an address of those that QEMU's machines have.
func newMAC() (string, error) {
	var b [3]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return fmt.Sprintf("52:54:00:%02x:%02x:%02x", b[0], b[1], b[2]), nil
}

// newUUID gives a random one (RFC 9562, version 4).
func newUUID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}
