package report

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"voltar/internal/say"
)

// MetricsOptions hold what a run itself does not know.
type MetricsOptions struct {
	// LastSuccess is when the newest good backup of a volume was made before this run, by volume. Without it a volume
	// that failed tonight, or that the run did not get to, has no time of success, and an alert on its age has nothing
	// to look at.
	LastSuccess map[string]time.Time
}

// Metrics renders a run in Prometheus' text format, for the textfile collector of node_exporter. Names and units follow
// Prometheus' conventions: seconds, bytes and ratios, all of them gauges. Numbers that are not known have no sample.
func Metrics(run Run, opts MetricsOptions) []byte {
	run = cleaned(run)
	var m metrics
	command := label{"command", run.Command}
	m.gauge("voltar_build_info", "Version of voltar that made these metrics, always 1.", 1, label{"version", run.Version})
	m.gauge("voltar_last_run_start_timestamp_seconds", "When the last run began.", seconds(run.Started), command)
	m.gauge("voltar_last_run_end_timestamp_seconds", "When the last run ended.", seconds(run.Ended), command)
	m.gauge("voltar_last_run_duration_seconds", "How long the last run took.", run.Ended.Sub(run.Started).Seconds(), command)
	m.gauge("voltar_last_run_exit_code", "Exit code of the last run.", float64(run.ExitCode), command)
	m.gauge("voltar_last_run_planned_volumes", "Volumes that the last run was to do.", float64(run.planned()), command)
	m.gauge("voltar_last_run_warnings", "Warnings of the last run.", float64(run.warningCount()), command)
	for _, v := range []Verdict{VerdictOK, VerdictWarning, VerdictFailed, VerdictInterrupted} {
		m.gauge("voltar_last_run_verdict", "1 for the verdict of the last run, 0 for the others.",
			truth(run.Verdict() == v), command, label{"verdict", string(v)})
	}
	for _, v := range run.Volumes {
		m.volume(v, opts.LastSuccess[v.Name])
	}
	for _, name := range slices.Sorted(maps.Keys(opts.LastSuccess)) {
		if !slices.ContainsFunc(run.Volumes, func(v Volume) bool { return v.Name == name }) {
			m.lastSuccess(say.Clean(name), opts.LastSuccess[name])
		}
	}
	m.proofs(run.Volumes)
	for _, d := range run.Destinations {
		m.destination(d)
	}
	return m.render()
}

func (m *metrics) volume(v Volume, before time.Time) {
	volume := label{"volume", v.Name}
	success := before
	if v.Good() {
		success = v.Ended
	}
	if !success.IsZero() {
		m.lastSuccess(v.Name, success)
	}
	if g := v.Guest; g != nil {
		m.gauge("voltar_volume_info", "Whose disk the volume is, always 1.", 1, volume, label{"guest", g.Name}, label{"guest_id", g.ID},
			label{"disk", g.Disk})
	}
	m.gauge("voltar_volume_success", "1 when the last run made a complete backup of the volume on every destination.",
		truth(v.Good()), volume)
	m.gauge("voltar_volume_size_bytes", "Size of the volume.", float64(v.SizeBytes), volume)
	m.gauge("voltar_volume_damaged_files", "Files of the volume that the last run could not read whole.",
		float64(v.DamagedCount), volume)
	if !v.Started.IsZero() {
		m.gauge("voltar_volume_duration_seconds", "How long the last run took for the volume.",
			v.Ended.Sub(v.Started).Seconds(), volume)
	}
	if v.Backup != "" {
		m.gauge("voltar_volume_read_bytes", "Data that the last run read from the volume's snapshot.", float64(v.ReadBytes), volume)
		m.gauge("voltar_volume_stored_bytes", "Size of the volume's last backup on one destination.", float64(v.StoredBytes), volume)
		m.gauge("voltar_volume_entries", "Files and folders in the volume's last backup.", float64(v.Entries), volume)
	}
	if c := v.Carried; c != nil {
		m.gauge("voltar_volume_carried_bytes", "Data of the volume's last backup that were carried over from the previous one.",
			float64(c.Bytes), volume)
		m.gauge("voltar_volume_new_bytes", "Data of the volume's last backup that were compressed anew.", float64(c.NewBytes), volume)
	}
	if v.Snapshot != nil {
		m.gauge("voltar_volume_snapshot_peak_ratio", "Highest use of the volume's snapshot in the last run.",
			v.Snapshot.PeakPercent/100, volume)
	}
	if !v.LastVerified.IsZero() {
		m.gauge("voltar_volume_last_verified_timestamp_seconds", "When a backup of the volume was last verified.",
			seconds(v.LastVerified), volume)
	}
	if !v.LastRestored.IsZero() {
		m.gauge("voltar_volume_last_restored_timestamp_seconds", "When a backup of the volume was last restored, by a drill or for use.",
			seconds(v.LastRestored), volume)
	}
	if v.Restore != nil {
		m.gauge("voltar_volume_restore_duration_seconds", "How long the last restore or drill took to bring the volume back.",
			v.Restore.Seconds, volume)
	}
	for _, c := range v.Copies {
		if c.SharedBytes > 0 {
			m.gauge("voltar_volume_shared_bytes", "Data of the volume's last backup that share their place with the previous one.",
				float64(c.SharedBytes), volume, label{"destination", c.Destination})
		}
		m.gauge("voltar_volume_kept_backups", "Backups of the volume that the destination holds.",
			float64(c.Kept), volume, label{"destination", c.Destination})
	}
}

// proofs are about all volumes: when the one was proven that was proven least lately, and how long bringing all back takes.
func (m *metrics) proofs(volumes []Volume) {
	oldest, unproven := oldestProof(volumes)
	m.gauge("voltar_unproven_volumes", "Volumes of which no backup was ever verified or restored.", float64(unproven))
	if last := oldest.LastProven(); !last.IsZero() {
		m.gauge("voltar_oldest_proof_timestamp_seconds", "When the volume was last proven whose proof is the oldest.", seconds(last))
	}
	if all, ok := RestoreTimeOf(volumes); ok {
		m.gauge("voltar_restore_all_seconds", "How long restoring all volumes takes, one after the other.", all.MeasuredSeconds,
			label{"known", "measured"})
		m.gauge("voltar_restore_all_seconds", "How long restoring all volumes takes, one after the other.", all.EstimatedSeconds,
			label{"known", "estimated"})
	}
}

func (m *metrics) lastSuccess(volume string, when time.Time) {
	m.gauge("voltar_last_success_timestamp_seconds", "When the newest good backup of the volume was finished.",
		seconds(when), label{"volume", volume})
}

func (m *metrics) destination(d Destination) {
	destination := label{"destination", d.Name}
	m.gauge("voltar_destination_success", "1 when the last run found nothing wrong with the destination.",
		truth(d.Error == nil), destination)
	known := func(name, help string, bytes int64) {
		if bytes >= 0 {
			m.gauge(name, help, float64(bytes), destination)
		}
	}
	known("voltar_destination_backups_bytes", "Size of all backups of this host on the destination.", d.BackupBytes)
	known("voltar_destination_size_bytes", "Size of the destination.", d.TotalBytes)
	known("voltar_destination_free_bytes", "Space left on the destination.", d.FreeBytes)
}

type label struct{ name, value string }

// metrics collects samples by family, since a family's samples stand together in the format.
type metrics struct {
	order    []string
	families map[string]*family
}

type family struct {
	help    string
	samples []string
}

// gauge adds a sample. Of two with the same labels only the first counts: the format forbids a second.
func (m *metrics) gauge(name, help string, value float64, labels ...label) {
	if m.families == nil {
		m.families = make(map[string]*family)
	}
	f := m.families[name]
	if f == nil {
		f = &family{help: help}
		m.families[name] = f
		m.order = append(m.order, name)
	}
	var pairs []string
	for _, l := range labels {
		pairs = append(pairs, l.name+`="`+escapeLabel(l.value)+`"`)
	}
	series := name + "{" + strings.Join(pairs, ",") + "} "
	if slices.ContainsFunc(f.samples, func(s string) bool { return strings.HasPrefix(s, series) }) {
		return
	}
	f.samples = append(f.samples, series+strconv.FormatFloat(value, 'g', -1, 64))
}

func (m *metrics) render() []byte {
	var b bytes.Buffer
	for _, name := range m.order {
		f := m.families[name]
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n", name, f.help, name)
		for _, s := range f.samples {
			b.WriteString(s + "\n")
		}
	}
	return b.Bytes()
}

func escapeLabel(value string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value)
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
