package report

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// sample finds one value in Prometheus' text, as its own parser reads it.
func sample(t *testing.T, data []byte, name string, labels map[string]string) (float64, bool) {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
next:
	for _, metric := range families[name].GetMetric() {
		for _, l := range metric.GetLabel() {
			if want, ok := labels[l.GetName()]; ok && want != l.GetValue() {
				continue next
			}
		}
		return metric.GetGauge().GetValue(), true
	}
	return 0, false
}

func TestMetricsConventions(t *testing.T) {
	for _, f := range fixtures() {
		data := Metrics(f.run, MetricsOptions{})
		problems, err := promlint.New(bytes.NewReader(data)).Lint()
		if err != nil {
			t.Fatalf("%s: %v in\n%s", f.name, err, data)
		}
		for _, p := range problems {
			t.Errorf("%s: %s: %s", f.name, p.Metric, p.Text)
		}
	}
}

func TestMetrics(t *testing.T) {
	before := time.Date(2026, 11, 19, 1, 15, 0, 0, time.UTC)
	run := oneFailed()
	run.Volumes = append(run.Volumes, run.Volumes[11]) // twice the same: the parser would refuse the file
	run.PlannedVolumes = 13
	data := Metrics(run, MetricsOptions{LastSuccess: map[string]time.Time{
		"nova-volumes/volume-00000019": before, "nova-volumes/volume-00000008": before,
		"nova-volumes/not-reached": before,
	}})
	volume := func(name string) map[string]string { return map[string]string{"volume": "nova-volumes/" + name} }
	good, failed := volume("volume-00000008"), volume("volume-00000019")
	disk := map[string]string{"destination": "disk"}
	tests := []struct {
		name   string
		labels map[string]string
		want   float64
	}{
		{"voltar_last_run_duration_seconds", map[string]string{"command": "run"}, 4535},
		{"voltar_last_run_start_timestamp_seconds", nil, float64(night.Unix())},
		{"voltar_last_run_exit_code", nil, 3},
		{"voltar_last_run_planned_volumes", nil, 13},
		{"voltar_last_run_warnings", nil, 1},
		{"voltar_last_run_verdict", map[string]string{"verdict": "failed"}, 1},
		{"voltar_last_run_verdict", map[string]string{"verdict": "ok"}, 0},
		{"voltar_last_success_timestamp_seconds", good, float64(run.Volumes[0].Ended.Unix())},
		{"voltar_last_success_timestamp_seconds", failed, float64(before.Unix())},
		{"voltar_last_success_timestamp_seconds", volume("not-reached"), float64(before.Unix())},
		{"voltar_volume_success", good, 1},
		{"voltar_volume_success", failed, 0},
		{"voltar_volume_duration_seconds", failed, 59.9},
		{"voltar_volume_stored_bytes", good, float64(3584 * mib)},
		{"voltar_volume_snapshot_peak_ratio", good, 0.032},
		{"voltar_volume_kept_backups", good, 7},
		{"voltar_volume_last_verified_timestamp_seconds", good, float64(night.Add(-75 * time.Hour).Unix())},
		{"voltar_destination_success", disk, 1},
		{"voltar_destination_backups_bytes", disk, float64(267 * gib)},
		{"voltar_destination_size_bytes", disk, float64(1000 * gib)},
		{"voltar_destination_free_bytes", disk, float64(650 * gib)},
		{"voltar_build_info", map[string]string{"version": "1.0.0"}, 1},
	}
	for _, tt := range tests {
		if got, ok := sample(t, data, tt.name, tt.labels); !ok || got < tt.want-1e-9 || got > tt.want+1e-9 {
			t.Errorf("%s%v: %v (there: %v), want %v", tt.name, tt.labels, got, ok, tt.want)
		}
	}
	for name, labels := range map[string]map[string]string{
		"voltar_volume_stored_bytes": failed, "voltar_volume_last_verified_timestamp_seconds": failed,
	} {
		if got, ok := sample(t, data, name, labels); ok {
			t.Errorf("%s%v is %v although it is not known", name, labels, got)
		}
	}
	down := Metrics(allFailed(), MetricsOptions{})
	if got, ok := sample(t, down, "voltar_destination_free_bytes", disk); ok {
		t.Errorf("room of a destination that is down: %v", got)
	}
	if got, _ := sample(t, down, "voltar_destination_success", disk); got != 0 {
		t.Error("a destination that is down is a success")
	}
	if _, ok := sample(t, down, "voltar_last_success_timestamp_seconds", failed); ok {
		t.Error("a volume without any success has a time of it")
	}
	if strings.Contains(string(Metrics(hostile(), MetricsOptions{})), "\x1b") {
		t.Error("a terminal escape in the metrics")
	}
}
