package backup

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/hostcmd"
	"voltar/internal/owned"
	"voltar/internal/placement"
	"voltar/internal/placement/placementtest"
	"voltar/internal/store/disk"
	"voltar/lvm"
)

// site is a host with destinations in folders of the test.
type site struct {
	*Engine
	dir string
}

func newSite(t *testing.T, destinations ...string) *site {
	t.Helper()
	s := &site{dir: t.TempDir()}
	opts := Options{
		Host: placementtest.Host, Version: "1.0.0", ConfigPath: "/etc/voltar/voltar.toml", Limits: Limits{Parallel: 1},
		RunDir: filepath.Join(s.dir, "run"),
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	host := &owned.Host{LVM: lvm.New(hostcmd.New(hostcmd.Options{}), lvm.Options{}), Log: log, StateDir: filepath.Join(s.dir, "state")}
	for _, name := range destinations {
		opened, err := disk.Open(disk.Options{Path: filepath.Join(s.dir, name)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = opened.Close() })
		opts.Destinations = append(opts.Destinations, placement.Destination{Name: name, Store: opened, CatchUp: true})
		host.Stores = append(host.Stores, opened)
	}
	s.Engine = New(Deps{Host: host, Now: func() time.Time { return placementtest.FirstNight.AddDate(0, 0, 5) }}, opts)
	return s
}

func (s *site) on(name string) *placement.Destination {
	i := slices.IndexFunc(s.opts.Destinations, func(d placement.Destination) bool { return d.Name == name })
	return &s.opts.Destinations[i]
}

// manifest returns the text of the only manifest on a destination.
func (s *site) manifest(t *testing.T, on string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, on, "*", "*", "*", "*", catalog.ManifestName))
	if err != nil || len(found) != 1 {
		t.Fatalf("%q, %v", found, err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}
