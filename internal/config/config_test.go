package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"voltar/internal/safedir"
	"voltar/internal/say"
)

func TestSampleIsTheDefault(t *testing.T) {
	got, err := Parse([]byte(Sample))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Destinations = []Destination{{Name: "backups", Type: "disk", Path: "/backups"}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("the sample differs from the defaults (-want +got):\n%s", diff)
	}
}

// The lines that show a default in the sample must show the true one.
func TestSampleShowsTheDefaults(t *testing.T) {
	general, _, _ := strings.Cut(Sample, "\n# Where backups go.")
	var text strings.Builder
	shown := map[string]bool{}
	for _, line := range strings.Split(general, "\n") {
		bare, isComment := strings.CutPrefix(line, "#")
		key, _, isKey := strings.Cut(bare, " = ")
		if isComment && isKey && !strings.Contains(key, " ") {
			shown[key] = true
			line = bare
		}
		text.WriteString(line + "\n")
	}
	got, err := Parse([]byte(text.String()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text.String())
	}
	want := Default()
	// Examples, where the default is empty.
	want.Host = "volume-host"
	want.Select.VolumeGroups = []string{"nova-volumes"}
	want.Select.Include, want.Select.IncludeTags = []string{"volume-*"}, []string{"backup"}
	want.Select.ExcludeTags = []string{"scratch"}
	want.Mail.To, want.Mail.From = []string{"root@example.org"}, "voltar@example.org"
	want.Mail.Helo = "volume-host.example.org"
	want.Mail.Server, want.Mail.Port, want.Mail.CAFile = "mail.example.org", 587, "/etc/ssl/certs/mail.pem"
	want.Ping = Ping{URL: "https://hc-ping.com/your-uuid-here", Start: "https://example.org/start",
		Success: "https://example.org/success", Failure: "https://example.org/failure"}
	want.Drill.Folder = "/var/lib/voltar/drill"
	want.Metrics.Textfile = "/var/lib/prometheus/node-exporter/voltar.prom"
	want.FoundBy.Command = []string{"/usr/share/doc/voltar/examples/openstack-guests", "/etc/voltar/openrc.json"}
	want.Sign = Sign{Key: "/etc/voltar/sign_key", TrustedKeys: "/etc/voltar/trusted_keys"}
	want.Mail.Username, want.Mail.Password = "voltar", Secret{File: "/etc/voltar/mail.password"}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("the commented lines differ from the defaults (-want +got):\n%s", diff)
	}
	for _, key := range []string{"parallel", "size", "level", "exclude", "notify", "tls", "shared_vg"} {
		if !shown[key] {
			t.Errorf("%s is not shown", key)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"unknown keys", "paralel = 3\n[select]\ninclud = []\n", []string{`line 1: unknown key "paralel"`, `line 3: unknown key "select.includ"`}},
		{"wrong type", "parallel = \"two\"\n", []string{"line 1"}},
		{"not toml", "[select\n", []string{"line 1"}},
		{"all problems at once", "parallel = 0\n[archive]\nlevel = \"11\"\nexclude = [\"tmp\"]\n[mail]\nto = [\"nobody at all\"]\n",
			[]string{"parallel", "archive.level", "archive.exclude", "mail.to"}},
		{"half a day", "[archive]\nfresh = \"36h\"\n", []string{"archive.fresh", "whole days"}},
		{"an age", "[archive]\nfresh = \"4000d\"\n", []string{"archive.fresh"}},
		{"consistency", "[guests]\nconsistency = \"always\"\n", []string{"guests.consistency", "off, group"}},
		{"bad size", "[snapshot]\nsize = \"lots\"\n", []string{`cannot read "lots"`, "line 2"}},
		{"size of nothing", "[snapshot]\nsize = \"0\"\n", []string{"more than 0 bytes"}},
		{"bad glob", "[select]\ninclude = [\"vol[\"]\n", []string{"select.include"}},
		{"destination without a path", "[[destination]]\nname = \"a\"\ntype = \"disk\"\n", []string{"path"}},
		{"one name twice", "[[destination]]\nname=\"a\"\ntype=\"disk\"\npath=\"/a\"\n[[destination]]\nname=\"a\"\ntype=\"disk\"\npath=\"/b\"\n", []string{"stands twice"}},
		{"negative retention", "[retention]\ndays = -1\n", []string{"retention.days"}},
		{"webhook to nowhere", "[[webhook]]\nname=\"a\"\n", []string{"set one of url and secret_url"}},
		{"webhooks of one name", "[[webhook]]\nname=\"a\"\nurl=\"http://a\"\n[[webhook]]\nname=\"a\"\nurl=\"http://b\"\n", []string{"stands twice"}},
		{"webhook of unknown form", "[[webhook]]\nname=\"a\"\nurl=\"http://a\"\ntemplate=\"xml\"\nnotify=\"never\"\nmethod=\"GET\"\n",
			[]string{"template", "notify", "method"}},
		{"webhook with two templates", "[[webhook]]\nname=\"a\"\nurl=\"http://a\"\ntemplate=\"json\"\ntemplate_file=\"/a\"\n",
			[]string{"one of template and template_file"}},
		{"header in two places", "[[webhook]]\nname=\"a\"\nurl=\"http://a\"\nheaders={A=\"1\"}\nsecret_headers={A={env=\"B\"}}\n",
			[]string{"secret_headers.A"}},
		{"a signature that nobody checks", "[sign]\nkey = \"/etc/voltar/sign_key\"\n", []string{"sign.key", "trusted_keys"}},
		{"metrics that nobody reads", "[metrics]\ntextfile = \"/tmp/voltar.txt\"\n", []string{".prom"}},
		{"a greeting that servers refuse", "[mail]\nhelo = \"volume-host\"\n", []string{"mail.helo", "no name with a domain"}},
		{"password in two places", "[mail]\nusername=\"u\"\npassword={file=\"/a\",env=\"B\"}\n", []string{"mail.password"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse([]byte(test.text))
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
		})
	}
}

// Editors of Windows begin a file with a mark of its encoding.
func TestByteOrderMark(t *testing.T) {
	if c, err := Parse([]byte("\uFEFFhost = \"h\"\n")); err != nil || c.Host != "h" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := Parse([]byte("\xff\xfeh\x00")); err == nil || !strings.Contains(err.Error(), "UTF-16") {
		t.Errorf("got %v", err)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "512": 512, "1k": 1024, "10G": 10 << 30, "1.5GiB": 3 << 29, "2 MB": 2_000_000, "7b": 7,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "1X", "GiB", "NaN", "9999999P", "1e400"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}

func TestDurationsTakeDays(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 720 * time.Hour, "2w": 336 * time.Hour, "90s": 90 * time.Second, "0": 0} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Span() != want {
			t.Errorf("%q = %s, %v; want %s", text, d.Span(), err, want)
		}
	}
	for _, text := range []string{"", "-5s", "d", "-1d", "999999999999d"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %s", text, d.Span())
		}
	}
}

func TestSecretsThatCannotBeReadSayWhatToDo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := (Secret{File: file}).Read(); err != nil || got != "hush" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	for _, c := range []struct {
		secret    Secret
		err, hint string
	}{
		{Secret{File: file}, file + " can be read by others", "chmod 600 " + file},
		{Secret{File: file + "2"}, file + "2: no such file", "install -m 600 /dev/null " + file + "2"},
		{Secret{Env: "VOLTAR_TEST_NONE"}, "VOLTAR_TEST_NONE is not set", "in a file"},
		{Secret{Credential: "smtp"}, "credential smtp: not started by systemd", "in a file"},
	} {
		_, err := c.secret.Read()
		if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(strings.Join(say.Hints(err), "\n"), c.hint) {
			t.Errorf("%+v: %v, want %q and what to do: %q", c.secret, err, c.err, c.hint)
		}
	}
}

func TestFilesThatOthersCanExchangeAreRefused(t *testing.T) {
	open := t.TempDir() // in a folder that lets nobody in, which would be good enough
	if err := errors.Join(os.Chmod(filepath.Dir(open), 0o755), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(open, "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := (Secret{File: file}).Read(); !errors.Is(err, safedir.ErrUntrusted) {
		t.Errorf("the secret %q was read: %v", got, err)
	}
	if got, err := (Webhook{TemplateFile: file}).Body(); !errors.Is(err, safedir.ErrUntrusted) {
		t.Errorf("the template %q was read: %v", got, err)
	}
}

func TestSecretFromTheEnvironmentAndSystemd(t *testing.T) {
	t.Setenv("VOLTAR_TEST_SECRET", "hush")
	if got, err := (Secret{Env: "VOLTAR_TEST_SECRET"}).Read(); err != nil || got != "hush" {
		t.Errorf("read %q, %v", got, err)
	}
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if err := os.WriteFile(filepath.Join(dir, "smtp"), []byte("hush"), 0o400); err != nil {
		t.Fatal(err)
	}
	if got, err := (Secret{Credential: "smtp"}).Read(); err != nil || got != "hush" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestURLsAreNotEchoed(t *testing.T) {
	_, err := Parse([]byte("[ping]\nurl = \"hc-ping.com/hush\"\n[[webhook]]\nname = \"a\"\nurl = \"ftp://hush\"\n"))
	if err == nil || !strings.Contains(err.Error(), "ping.url") || !strings.Contains(err.Error(), "webhook #1 (a): url") {
		t.Fatalf("error %v, want one that names both keys", err)
	}
	if strings.Contains(err.Error(), "hush") {
		t.Errorf("error %q holds a URL", err)
	}
}

func TestWebhookReadsItsSecrets(t *testing.T) {
	t.Setenv("VOLTAR_TEST_SECRET", "hush")
	w := Webhook{SecretURL: Secret{Env: "VOLTAR_TEST_SECRET"}, Headers: map[string]string{"A": "b"},
		SecretHeaders: map[string]Secret{"C": {Env: "VOLTAR_TEST_SECRET"}}}
	if target, err := w.Target(); err != nil || target != "hush" {
		t.Errorf("URL %q, %v", target, err)
	}
	headers, err := w.AllHeaders()
	if diff := cmp.Diff(map[string]string{"A": "b", "C": "hush"}, headers); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	w.SecretHeaders["C"] = Secret{Env: "VOLTAR_TEST_NO_SUCH"}
	if _, err := w.AllHeaders(); err == nil {
		t.Error("a header whose secret is missing was accepted")
	}
}

func TestMatchVolume(t *testing.T) {
	for _, test := range []struct {
		pattern string
		want    bool
	}{{"volume-*", true}, {"nova/volume-*", true}, {"nova/*", true}, {"*/volume-00000001", true}, {"other/*", false}, {"nova", false}, {"*", true}} {
		if got := MatchVolume(test.pattern, "nova", "volume-00000001"); got != test.want {
			t.Errorf("%q matches: %v", test.pattern, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(Sample))
	f.Add([]byte("[[destination]]\nname=\"a\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := Parse(text); err == nil && (c.Parallel < 1 || c.Snapshot.PollInterval <= 0) {
			t.Errorf("accepted %+v", c)
		}
	})
}
