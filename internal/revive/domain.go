package revive

import (
	"bytes"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// domain rewrites libvirt's definition of a machine (libvirt.org/formatdomain.html): only what must change, byte for byte as it was
// otherwise.
type domain struct {
	content []byte
	as      string            // its new name; "" keeps name, UUID, MACs and firmware variables as they were
	devices map[string]string // of its disks, by their targets: vda
	edits   []edit
	nvram   string   // where its firmware variables go, if as is set
	unknown []string // disks that are not among devices
}

// edit replaces a part of the content.
type edit struct {
	from, to int64
	text     string
}

// element is one that is open.
type element struct {
	name     string
	from, to int64 // of its start tag
	attrs    []xml.Attr
	source   *element // of a disk
	target   string   // of a disk
	textFrom int64
}

// rewriteDomain returns the definition of a machine with its disks at other devices and, with as, as another machine: with another name,
// UUID and MAC addresses. nvram is where its own file of firmware variables goes then, "" for none.
func rewriteDomain(content []byte, as string, devices map[string]string) (rewritten []byte, nvram string, unknown []string, err error) {
	d := &domain{content: content, as: as, devices: devices}
	if err := d.read(); err != nil {
		return nil, "", nil, fmt.Errorf("read the definition: %w", err)
	}
	slices.SortFunc(d.edits, func(a, b edit) int { return int(a.from - b.from) })
	var out bytes.Buffer
	at := int64(0)
	for _, e := range d.edits {
		out.Write(content[at:e.from])
		out.WriteString(e.text)
		at = e.to
	}
	out.Write(content[at:])
	return out.Bytes(), d.nvram, d.unknown, nil
}

// maxDepth bounds elements in elements.
const maxDepth = 64

// read goes through the elements and notes the edits.
func (d *domain) read() error {
	decoder := xml.NewDecoder(bytes.NewReader(d.content))
	var open []*element
	for {
		from := decoder.InputOffset()
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
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
			e := &element{name: t.Name.Local, from: from, to: to, attrs: t.Attr, textFrom: to}
			open = append(open, e)
			if err := d.start(open, e); err != nil {
				return err
			}
		case xml.EndElement:
			e := open[len(open)-1]
			if err := d.end(open, e, from); err != nil {
				return err
			}
			open = open[:len(open)-1]
		}
	}
}

// at tells whether the open elements are those of a path.
func at(open []*element, names string) bool {
	var have []string
	for _, e := range open {
		have = append(have, e.name)
	}
	return strings.Join(have, "/") == names
}

func (d *domain) start(open []*element, e *element) error {
	switch {
	case at(open, "domain/devices/disk/source"):
		open[2].source = e
	case at(open, "domain/devices/disk/target"):
		open[2].target = attr(e, "dev")
	case at(open, "domain/devices/interface/mac") && d.as != "":
		mac, err := newMAC()
		if err != nil {
			return err
		}
		return d.setAttr(e, "address", mac)
	}
	return nil
}

func (d *domain) end(open []*element, e *element, endFrom int64) error {
	text := func(value string) {
		d.edits = append(d.edits, edit{e.textFrom, endFrom, escaped(value)})
	}
	switch {
	case at(open, "domain/devices/disk"):
		return d.disk(e)
	case d.as == "":
	case at(open, "domain/name"):
		text(d.as)
	case at(open, "domain/uuid"):
		uuid, err := newUUID()
		if err != nil {
			return err
		}
		text(uuid)
	case at(open, "domain/os/nvram"):
		old := strings.TrimSpace(string(d.content[e.textFrom:endFrom]))
		if strings.HasPrefix(old, "/") && !strings.Contains(old, "<") {
			d.nvram = path.Join(path.Dir(old), d.as+"_VARS.fd")
			text(d.nvram)
		}
	}
	return nil
}

// disk leads a disk to where it was restored.
func (d *domain) disk(e *element) error {
	if device := attr(e, "device"); device == "cdrom" || device == "floppy" || e.source == nil {
		return nil
	}
	to, restored := d.devices[e.target]
	if !restored {
		d.unknown = append(d.unknown, e.target)
		return nil
	}
	if attr(e.source, "dev") == "" {
		return fmt.Errorf("the disk %s has no source of the kind dev: change it to %s by hand", e.target, to)
	}
	return d.setAttr(e.source, "dev", to)
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
