package guests

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"path"
	"strings"

	"voltar/lvm"
)

// Where libvirt's system daemon keeps what it knows: definitions, and the state of what runs, which also has what was added since, and
// machines that were never defined.
const (
	libvirtDefined = "/etc/libvirt/qemu"
	libvirtLive    = "/run/libvirt/qemu"
	poolsDefined   = "/etc/libvirt/storage"
	poolsLive      = "/run/libvirt/storage"
)

// NovaSpace begins the XML namespaces of what nova says of its instances; a version follows.
const NovaSpace = "http://openstack.org/xmlns/libvirt/nova/"

// agentChannel is the name of the port of QEMU's guest agent.
const agentChannel = "org.qemu.guest_agent.0"

// domain is what is wanted of a <domain>.
type domain struct {
	Name string `xml:"name"`
	UUID string `xml:"uuid"`
	Nova []struct {
		XMLName xml.Name
		Name    string `xml:"name"`
	} `xml:"metadata>instance"`
	NVRAM struct {
		Path   string `xml:",chardata"`
		Source struct {
			File string `xml:"file,attr"`
		} `xml:"source"`
	} `xml:"os>nvram"`
	Disks    []domainDisk `xml:"devices>disk"`
	Channels []struct {
		Type   string `xml:"type,attr"`
		Source struct {
			Path string `xml:"path,attr"`
		} `xml:"source"`
		Target struct {
			Name  string `xml:"name,attr"`
			State string `xml:"state,attr"` // connected, disconnected; of those that run
		} `xml:"target"`
	} `xml:"devices>channel"`
}

type domainDisk struct {
	Type   string `xml:"type,attr"`   // block, file, volume, network, …
	Device string `xml:"device,attr"` // disk, cdrom, floppy, lun
	Source struct {
		Dev    string `xml:"dev,attr"`
		File   string `xml:"file,attr"`
		Pool   string `xml:"pool,attr"`
		Volume string `xml:"volume,attr"`
		Name   string `xml:"name,attr"`
	} `xml:"source"`
	Target struct {
		Dev string `xml:"dev,attr"`
	} `xml:"target"`
	Serial    string    `xml:"serial"`
	Shareable *struct{} `xml:"shareable"`
}

// status is the file of a machine that runs: <domstatus> around its live <domain>.
type status struct {
	XMLName xml.Name `xml:"domstatus"`
	State   string   `xml:"state,attr"`
	Domain  domain   `xml:"domain"`
}

// libvirt finds the machines of libvirt's system daemon.
func (f *finder) libvirt() {
	f.readNaming()
	for _, folder := range []string{poolsDefined, poolsLive} {
		for _, file := range f.folder(folder, ".xml") {
			if name, vg, err := parsePool(file.content); err != nil {
				f.trouble(readHint, "cannot read libvirt's storage pool %s: %v", path.Join(folder, file.name), err)
			} else if vg != "" {
				f.volumes.pools[name] = vg
			}
		}
	}
	defined := map[string]bool{}
	for _, file := range f.folder(libvirtDefined, ".xml") {
		var d domain
		if err := decode(file.content, "domain", &d); err != nil {
			f.trouble(readHint, "cannot read libvirt's definition %s: %v", path.Join(libvirtDefined, file.name), err)
			continue
		}
		if g := f.domain(d, path.Join(libvirtDefined, file.name)); g != nil {
			g.Definition = []File{{"domain.xml", file.content}}
			defined[g.ID] = true
		}
	}
	for _, file := range f.folder(libvirtLive, ".xml") {
		var s status
		if err := decode(file.content, "domstatus", &s); err != nil {
			f.trouble(readHint, "cannot read libvirt's status %s: %v", path.Join(libvirtLive, file.name), err)
			continue
		}
		g := f.domain(s.Domain, path.Join(libvirtLive, file.name))
		if g == nil {
			continue
		}
		g.Running = s.State != "shutoff" && s.State != "crashed"
		g.HasAgent = s.Domain.hasAgent() // what runs may have another one than what is defined
		if g.Transient = !defined[g.ID]; g.Transient {
			g.Definition = []File{{"domain.xml", liveDomain(file.content)}}
		}
	}
}

// decode reads an XML document with a root of that name. The decoder knows no entities but XML's own, and bounds the depth.
func decode(content []byte, root string, into any) error {
	decoder := xml.NewDecoder(bytes.NewReader(content))
	for {
		token, err := decoder.Token()
		if err != nil {
			return fmt.Errorf("it has no element: %w", err)
		}
		start, isStart := token.(xml.StartElement)
		if !isStart {
			continue
		}
		if start.Name.Local != root {
			return fmt.Errorf("it is a <%.40s>, and no <%s>", start.Name.Local, root)
		}
		return decoder.DecodeElement(into, &start)
	}
}

// liveDomain cuts the definition out of a status file, byte for byte.
func liveDomain(status []byte) []byte {
	begin, end := bytes.Index(status, []byte("<domain ")), bytes.LastIndex(status, []byte("</domain>"))
	if begin < 0 || end < begin {
		return status
	}
	return append(bytes.Clone(status[begin:end+len("</domain>")]), '\n')
}

// domain enters a machine, or what a second file says of one. It returns nil where it is none.
func (f *finder) domain(d domain, file string) *Guest {
	id := strings.ToLower(strings.TrimSpace(d.UUID))
	if !uuidPattern.MatchString(id) {
		f.trouble("`virsh dumpxml` shows what libvirt takes it for", "libvirt's %s has no UUID", file)
		return nil
	}
	g := f.guest(KindLibvirt, id)
	if g == nil {
		return nil
	}
	g.Name, g.Alias = d.Name, ""
	for _, nova := range d.Nova {
		if strings.HasPrefix(nova.XMLName.Space, NovaSpace) && strings.TrimSpace(nova.Name) != "" {
			g.Name, g.Alias = nova.Name, d.Name
		}
	}
	g.HasAgent = g.HasAgent || d.hasAgent()
	g.attach(strings.TrimSpace(cmp.Or(d.NVRAM.Source.File, d.NVRAM.Path)))
	var live []Disk // what runs comes before what is defined, as a disk may have another name there
	live, g.Disks = g.Disks, nil
	for _, disk := range d.Disks {
		f.domainDisk(g, disk)
	}
	for _, disk := range live {
		g.add(volumeOf(disk), disk)
	}
	return g
}

func (d domain) hasAgent() bool {
	for _, c := range d.Channels {
		if c.Target.Name == agentChannel && c.Target.State != "disconnected" {
			return true
		}
	}
	return false
}

// volumeOf is as much of a volume as a disk knows.
func volumeOf(d Disk) lvm.Volume { return lvm.Volume{VG: d.VG, Name: d.LV, UUID: d.UUID} }

// domainDisk enters a disk of a machine.
func (f *finder) domainDisk(g *Guest, d domainDisk) {
	source := cmp.Or(d.Source.Dev, d.Source.File, d.Source.Name)
	if d.Source.Pool != "" {
		source = d.Source.Pool + "/" + d.Source.Volume
	}
	removable := d.Device == "cdrom" || d.Device == "floppy"
	if v, found := f.domainVolume(d); found {
		g.add(v, Disk{Name: d.Target.Dev, Shared: d.Shareable != nil})
		return
	}
	switch {
	case removable && d.Type == "file":
		g.attach(d.Source.File)
	case !removable && source != "":
		g.elsewhere(d.Target.Dev, source)
	}
}

// domainVolume returns the volume that a disk is.
func (f *finder) domainVolume(d domainDisk) (lvm.Volume, bool) {
	if d.Type == "volume" {
		if vg, isLogical := f.volumes.pools[d.Source.Pool]; isLogical {
			return f.volumes.in(vg, d.Source.Volume)
		}
		return lvm.Volume{}, false
	}
	// A file may be a link to a device, too.
	if v, found := f.volumes.at(cmp.Or(d.Source.Dev, d.Source.File)); found {
		return v, true
	}
	if d.Type == "file" {
		return lvm.Volume{}, false
	}
	return f.volumes.cinder(strings.ToLower(strings.TrimSpace(d.Serial)))
}

// parsePool reads a storage pool; vg is "" for one that is no volume group.
func parsePool(content []byte) (name, vg string, err error) {
	type pool struct {
		Type   string `xml:"type,attr"`
		Name   string `xml:"name"`
		Source struct {
			Name string `xml:"name"`
		} `xml:"source"`
	}
	var p pool
	if err = decode(content, "pool", &p); err != nil {
		var live struct {
			Pool pool `xml:"pool"`
		}
		if decode(content, "poolstatus", &live) != nil {
			return "", "", err
		}
		p = live.Pool
	}
	if p.Type != "logical" {
		return p.Name, "", nil
	}
	return p.Name, cmp.Or(p.Source.Name, p.Name), nil
}
