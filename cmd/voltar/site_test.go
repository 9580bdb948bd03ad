package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

// runAt is site.run with a clock of the test's own.
func (s site) runAt(t *testing.T, now time.Time, wantCode int, args ...string) report.Run {
	t.Helper()
	var out, errs bytes.Buffer
	a := newApp(strings.NewReader(""), &out, &errs, func() time.Time { return now })
	args = append([]string{"voltar", "run", "--json", "--config", s.config}, args...)
	code := a.execute(context.WithoutCancel(t.Context()), args)
	return parseRun(t, code, wantCode, out.Bytes(), errs.String())
}

// parseRun reads the report of a run and checks what holds of every report.
func parseRun(t *testing.T, code, wantCode int, out []byte, log string) report.Run {
	t.Helper()
	var result report.Run
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatalf("exit code %d, %v in %q\n%s", code, err, out, log)
	}
	if code != wantCode {
		t.Fatalf("exit code %d, want %d\n%s\n%s", code, wantCode, report.Text(result, report.Options{}), log)
	}
	for _, v := range result.Volumes {
		l := v.Ledger
		if sum := l.FilesBytes + l.ImageBytes + l.FreeBytes + l.ExcludedBytes + l.FailedBytes; sum != v.SizeBytes {
			t.Errorf("the ledger of %s accounts for %d of %d bytes: %+v", v.Name, sum, v.SizeBytes, l)
		}
	}
	return result
}

// volume returns the result of one volume.
func volume(t *testing.T, result report.Run, name string) report.Volume {
	t.Helper()
	i := slices.IndexFunc(result.Volumes, func(v report.Volume) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("no result of %s in %+v", name, result.Volumes)
	}
	return result.Volumes[i]
}

// wantStatus checks what became of a volume.
func wantStatus(t *testing.T, result report.Run, name string, want report.VolumeStatus) report.Volume {
	t.Helper()
	v := volume(t, result, name)
	if v.Status != want {
		t.Errorf("%s is %s, want %s: %+v %+v", name, v.Status, want, v.Error, v.Warnings)
	}
	return v
}

// backupsOf returns the folders of a volume's backups, the oldest first, finished or not.
func (s site) backupsOf(t *testing.T, name string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.backups, "volume-host", name, "*"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(found)
	return found
}

// manifest reads a backup's.
func manifest(t *testing.T, folder string) *catalog.Manifest {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(folder, catalog.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	m, err := catalog.ParseManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// extentOf returns one extent of a backup's ledger.
func extentOf(t *testing.T, m *catalog.Manifest, name string) catalog.Extent {
	t.Helper()
	i := slices.IndexFunc(m.Extents, func(x catalog.Extent) bool { return x.Name == name })
	if i < 0 {
		t.Fatalf("no extent %q in %+v", name, m.Extents)
	}
	return m.Extents[i]
}

// checkSums holds backups against their checksums with standard tools alone.
func checkSums(t *testing.T, folders ...string) {
	t.Helper()
	script := "set -e\n"
	for _, folder := range folders {
		script += "cd '" + folder + "'\nsha1sum --check --strict --quiet *.checksum\ngzip --test *.gz\n"
	}
	lab.Do(t, "sh", "-c", script)
}

// makeExt makes an ext4 filesystem quickly, with blocks of the size that restored copies have.
func makeExt(t *testing.T, device string, options ...string) {
	t.Helper()
	lab.Do(t, "mkfs.ext4", slices.Concat([]string{"-q", "-b", "4096"}, options, []string{device})...)
}

// makeXFS makes an XFS filesystem smaller than mkfs.xfs thinks useful.
func makeXFS(t *testing.T, device string) {
	t.Helper()
	lab.Do(t, "env", "TEST_DIR=x", "TEST_DEV=x", "QA_CHECK_FS=x", "mkfs.xfs", "-q", "-f", device)
}

// append adds tables to the configuration.
func (s site) append(t *testing.T, text string) {
	t.Helper()
	old, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, append(old, "\n"+text...))
}
