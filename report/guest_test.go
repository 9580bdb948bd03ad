package report

import (
	"strings"
	"testing"
	"time"
)

// Whose disk a volume is stands wherever the volume does, and a definition that has changed is worth knowing.
func TestGuestsAreShown(t *testing.T) {
	run := oneOf(12)
	run.Volumes[3].Guest.DefinitionChanged, run.Volumes[2].Guest.DefinitionChanged = true, true
	page := Page{Title: "volume-host", Made: night, Location: time.UTC, Volumes: []PageVolume{{Host: "h", Name: "vg/a", Guest: "customer-1:vdb"}}}
	shown := map[string]string{
		"text": Text(run, Options{}), "mail": html(t, fixture{"guests", run, Options{}}), "metrics": string(Metrics(run, MetricsOptions{})),
		"page": statusPage(t, page),
	}
	for where, wants := range map[string][]string{
		"text": {"volume-00000011 (customer-1:vdb)", "nova-volumes/volume-00000014 (customer-3:vda)", "the definition of customer-1 has changed"},
		"mail": {"volume-00000011 (customer-1:vdb)", "nova-volumes/volume-00000014 (customer-3:vda)", "the definition of customer-1 has changed"},
		"metrics": {
			`voltar_volume_info{volume="nova-volumes/volume-00000011",guest="customer-1",guest_id="101",disk="vdb"} 1`,
		},
		"page": {"vg/a (customer-1:vdb)"},
	} {
		for _, want := range wants {
			if text := strings.Join(strings.Fields(shown[where]), " "); !strings.Contains(text, want) {
				t.Errorf("the %s lacks %q:\n%s", where, want, shown[where])
			}
		}
	}
}
