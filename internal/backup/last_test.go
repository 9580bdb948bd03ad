package backup

import (
	"testing"

	"voltar/internal/owned"
	"voltar/lvm"
)

func TestTagOfWhatIsSetAside(t *testing.T) {
	tags := func(tag string) lvm.Volume {
		return lvm.Volume{Tags: []string{owned.TagOwn, tag, owned.TagRun + "1-a"}}
	}
	set := last{configuration: "c", settings: "5e", thinID: 1<<24 - 1, mappedBytes: 3*mib + 1}
	read, ok := parseLast(tags(set.tag()))
	if !ok || read.configuration != "c" || read.settings != "5e" || read.thinID != set.thinID || read.mappedBytes != 4*mib || read.run() != "1-a" {
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
	if l, ok := parseLast(lvm.Volume{Tags: []string{set.tag()}}); ok {
		t.Errorf("a volume of somebody else is taken for %+v", l)
	}
}

// A snapshot is set aside only while the pool stays below its limits whatever the guests write.
func TestRoomForWhatIsSetAside(t *testing.T) {
	limits := SnapshotOptions{ThinDataPercent: 90, ThinMetadataPercent: 80}
	pool := lvm.ThinPool{UUID: "p", SizeBytes: 1000 * mib, DataPercent: 50, MetadataPercent: 40}
	all := &lasts{mapped: map[string]int64{"p": 300 * mib, "other": 1 << 50}}
	for _, test := range []struct {
		more, data, metadata float64
		want                 bool
	}{{100, 50, 40, true}, {101, 50, 40, false}, {100, 50.2, 40, false}, {100, 50, 40.1, false}, {-300, 89, 40, true}, {-300, 91, 40, false}} {
		pool.DataPercent, pool.MetadataPercent = test.data, test.metadata
		if got := all.fit(pool, int64(test.more)*mib, limits); got != test.want {
			t.Errorf("%+v: %t", test, got)
		}
	}
	all.add("p", 1)
	if pool.DataPercent, pool.MetadataPercent = 50, 40; all.fit(pool, 100*mib, limits) {
		t.Error("what is set aside in this run does not count")
	}
}
