package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/store/s3"
	"voltar/internal/store/s3/s3test"
	"voltar/report"
)

// Two runs of one name, each with a state and locks of its own as cloned machines have them, back up the same source to the
// same places at the same time, round after round. What either reports stands, on each destination, and is its own.
func TestTwoWritersOfOneName(t *testing.T) {
	const rounds = 8
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "bucket", s3test.Bucket{})
	t.Setenv("VOLTAR_TEST_S3_SECRET", s3test.SecretKey)
	dir := t.TempDir()
	configs := make([]string, 2)
	for i := range configs {
		configs[i] = filepath.Join(dir, fmt.Sprintf("writer-%d.toml", i))
		text := fmt.Sprintf("host = \"volume-host\"\nstate_dir = \"%s/state-%d\"\nrun_dir = \"%s/run-%d\"\n", dir, i, dir, i) +
			"[[dump]]\nname = \"echo\"\ncommand = [\"echo\", \"hello\"]\n" +
			folderDestination("disk", filepath.Join(dir, "backups"), "catch_up = false\n") +
			fmt.Sprintf("\n[[destination]]\nname = \"bucket\"\ntype = \"s3\"\nendpoint = \"%s\"\nbucket = \"bucket\"\nregion = \"%s\"\n"+
				"access_key = \"%s\"\nsecret_key = { env = \"VOLTAR_TEST_S3_SECRET\" }\ncatch_up = false\n", server.Endpoint, s3test.Region, s3test.AccessKey)
		if err := os.WriteFile(configs[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made := map[string]string{} // run, by place
	for range rounds {
		results := make([]report.Run, len(configs))
		var writers []*process
		for _, config := range configs {
			writers = append(writers, start(t, "run", "--json", "--config", config, "@dump/echo"))
		}
		for i, p := range writers {
			code := p.wait(t)
			if err := json.Unmarshal(p.stdout.Bytes(), &results[i]); err != nil || code != 0 {
				t.Errorf("writer %d ended with %d, %v: %s\n%s", i, code, err, &p.stdout, &p.stderr)
			}
		}
		for i, result := range results {
			for _, v := range result.Volumes {
				for _, c := range v.Copies {
					if other := made[c.Path]; other != "" || c.Error != nil {
						t.Errorf("writer %d says of %s that it is %+v, and %s wrote there", i, c.Path, c, other)
					}
					made[c.Path] = result.ID
				}
			}
		}
	}
	if want := rounds * len(configs) * 2; len(made) != want {
		t.Errorf("%d copies were reported, want %d", len(made), want)
	}
	bucket, err := s3.Open(s3.Options{
		Endpoint: server.Endpoint, Bucket: "bucket", Region: s3test.Region,
		Credentials: s3.Credentials{AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey},
	})
	if err != nil {
		t.Fatal(err)
	}
	for place, run := range made {
		var text []byte
		if key, isBucket := strings.CutPrefix(place, bucket.String()+"/"); isBucket {
			b, err := catalog.List(t.Context(), bucket, "volume-host", catalog.Filter{})
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range b.Backups {
				if b.Path() == key {
					text = []byte(b.Run)
				}
			}
		} else {
			text = []byte(manifest(t, place).Run)
		}
		if string(text) != run {
			t.Errorf("%s was reported by run %s, and there is one of run %q", place, run, text)
		}
	}
}
