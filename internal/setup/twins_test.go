package setup

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/config"
	"voltar/internal/say"
)

// Two destinations in one place are one, however it is spelled: in a bucket as in a folder.
func TestTwins(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("VOLTAR_TEST_SECRET", "s")
	disk := func(name, path string) config.Destination {
		return config.Destination{Name: name, Type: "disk", Path: path, RequireMount: "none"}
	}
	bucket := func(name, endpoint, prefix string) config.Destination {
		return config.Destination{Name: name, Type: "s3", S3: config.S3{Endpoint: endpoint, Bucket: "b", Prefix: prefix, AccessKey: "a",
			SecretKey: config.Secret{Env: "VOLTAR_TEST_SECRET"}}}
	}
	s := &Setup{Config: &config.Config{StateDir: filepath.Join(dir, "state"), Destinations: []config.Destination{
		disk("disk", filepath.Join(dir, "one")), disk("twin", filepath.Join(dir, "one/../one")), disk("other", filepath.Join(dir, "two")),
		bucket("cloud", "https://s3.example.org", "x"), bucket("cloud2", "https://S3.example.org:443/", "x"), bucket("cloud3", "https://s3.example.org", "y"),
	}}}
	s.opts.AtEnd = func(end func() error) {
		t.Cleanup(func() {
			if err := end(); err != nil {
				t.Error(err)
			}
		})
	}
	if err := s.openStores(); err != nil {
		t.Fatal(err)
	}
	var unfit []string
	for _, d := range s.Stores {
		if d.Unfit != nil {
			unfit = append(unfit, d.Name+": "+d.Unfit.Error())
		}
	}
	if len(unfit) != 2 || !strings.HasPrefix(unfit[0], "twin: it is the same place as destination disk (") ||
		!strings.HasPrefix(unfit[1], "cloud2: it is the same place as destination cloud (s3://s3.example.org/b/x)") {
		t.Errorf("unfit are %q", unfit)
	}
	var left strings.Builder
	s.Log = slog.New(slog.NewTextHandler(&left, nil))
	stores, err := s.StoresFrom("")
	if err != nil {
		t.Fatal(err)
	}
	if names := strings.Join(say.Names(stores, func(d Destination) string { return d.Name }), " "); names != "disk other cloud cloud3" {
		t.Errorf("all are %s", names)
	}
	if strings.Count(left.String(), "is left out") != 2 {
		t.Errorf("it tells %s", left.String())
	}
	if stores, err = s.StoresFrom("cloud2"); err != nil || len(stores) != 1 || stores[0].Name != "cloud2" {
		t.Errorf("by its name it is %v, %v", stores, err)
	}
}
