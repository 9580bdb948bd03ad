package backup

import (
	"testing"

	"voltar/internal/owned"
	"voltar/lvm"
)

func TestTagOfWhatIsSetAside(t *testing.T) {
	tags := func(tag string) lvm.Volume {
		return lvm.Volume{Name: "web-voltar-1-a", Tags: []string{owned.TagOwn, tag, owned.TagRun + "1-a"}}
	}
	set := last{configuration: "c", settings: "5e", thinID: 1<<24 - 1, mappedBytes: 192 * kib}
	read, ok := parseLast(tags(set.tag()))
	if !ok || read.configuration != "c" || read.settings != "5e" || read.thinID != set.thinID || read.mappedBytes != set.mappedBytes || read.run() != "1-a" {
		t.Errorf("%q is read as %+v, %t", set.tag(), read, ok)
	}
	for _, tag := range []string{
		"voltar.last.", "voltar.last.c.5e.1", "voltar.last.c.5e.x.1", "voltar.last.c.5e.1.-1", "voltar.last.c.5e.1.2.3", "voltar.last.c.5e.16777216.1",
		"voltar.kept.x",
	} {
		if l, ok := parseLast(tags(tag)); ok {
			t.Errorf("%q is read as %+v", tag, l)
		}
	}
	if l, ok := parseLast(lvm.Volume{Name: "web-voltar-1-a", Tags: []string{set.tag()}}); ok {
		t.Errorf("a volume of somebody else is taken for %+v", l)
	}
	promoted := tags(set.tag())
	promoted.Name = "web"
	if l, ok := parseLast(promoted); ok || !isPromoted(promoted) || isPromoted(tags(set.tag())) {
		t.Errorf("a volume that was made of it is taken for %+v", l)
	}
}

// A snapshot is set aside only while the pool stays below its limits whatever the guests write.
func TestRoomForWhatIsSetAside(t *testing.T) {
	limits := SnapshotOptions{ThinDataPercent: 90, ThinMetadataPercent: 80}
	pool := lvm.ThinPool{SizeBytes: 1000 << 20}
	all := &lasts{mapped: map[string]int64{"other": 1 << 50}}
	for _, test := range []struct {
		moreMiB        int64
		data, metadata float64
		want           bool
	}{{100, 50, 40, true}, {101, 50, 40, false}, {100, 50.2, 40, false}, {100, 50, 40.1, false}, {-300, 89, 40, true}, {-300, 91, 40, false}} {
		all.mapped["p"] = 300 << 20
		pool.DataPercent, pool.MetadataPercent = test.data, test.metadata
		if got := all.reserve("p", pool, test.moreMiB<<20, limits); got != test.want {
			t.Errorf("%+v: %t", test, got)
		}
	}
	all.mapped["p"] = 300 << 20
	pool.DataPercent, pool.MetadataPercent = 50, 40
	if !all.reserve("p", pool, 60<<20, limits) || all.reserve("p", pool, 60<<20, limits) || !all.reserve("p", pool, 40<<20, limits) {
		t.Error("what two volumes set aside at the same time does not count for both")
	}
}

// A copy of a volume group has the same UUIDs as its original: what is set aside in one says nothing of the other.
func TestWhatIsSetAsideInACopyOfTheGroup(t *testing.T) {
	o := &Options{ConfigPath: "/etc/voltar/voltar.toml"}
	in := func(group string) lvm.Volume {
		set := last{configuration: digest(o.ConfigPath), settings: "5e", thinID: 3, mappedBytes: 64 * kib}
		return lvm.Volume{
			Name: "web-voltar-1-a", VGUUID: group, PoolUUID: "pool", OriginUUID: "web",
			Tags: []string{owned.TagOwn, set.tag(), owned.TagRun + "1-a"},
		}
	}
	all := o.lastsOf(lvm.Inventory{Volumes: []lvm.Volume{in("original"), in("copy")}})
	for _, group := range []string{"original", "copy"} {
		found := all.of(lvm.Volume{VGUUID: group, UUID: "web"})
		if len(found) != 1 || found[0].volume.VGUUID != group || all.mapped[group+"pool"] != 64*kib {
			t.Errorf("in %s: %+v, mapped %v", group, found, all.mapped)
		}
	}
}
