package config

import (
	"strings"
	"testing"
)

const goodBucket = `[[destination]]
name = "offsite"
type = "s3"
endpoint = "https://s3.example.org"
bucket = "example-backups"
`

// The commented destination of the sample is one that is taken.
func TestSampleShowsABucket(t *testing.T) {
	_, text, found := strings.Cut(Sample, "# AWS_SECRET_ACCESS_KEY in the environment, or from the machine's role.\n")
	text, _, _ = strings.Cut(text, "\n\n")
	if !found || !strings.HasPrefix(text, "#[[destination]]") {
		t.Fatalf("no bucket in the sample: %q", text)
	}
	got, err := Parse([]byte(strings.ReplaceAll("\n"+text, "\n#", "\n")))
	if err != nil {
		t.Fatal(err)
	}
	d := got.Destinations[0]
	if d.Bucket != "example-backups" || d.ObjectLock != (ObjectLock{Mode: "governance", Days: 30}) || d.SecretKey.File == "" || !*d.Tags {
		t.Errorf("%+v", d)
	}
}

func TestBucketSettings(t *testing.T) {
	for name, test := range map[string]struct{ more, want string }{
		"nothing more":            {"", ""},
		"all there is":            {"prefix = \"a/b\"\nregion = \"r\"\npath_style = true\nsse = \"kms:key\"\nchecksum = \"md5\"\nupload_limit = \"10MiB\"\n", ""},
		"role":                    {"instance_role = true\n", ""},
		"account":                 {"access_key = \"a\"\nsecret_key = {env = \"S\"}\n", ""},
		"half an account":         {"access_key = \"a\"\n", "access_key"},
		"account and role":        {"access_key = \"a\"\nsecret_key = {env = \"S\"}\ninstance_role = true\n", "instance_role"},
		"secret in two places":    {"access_key = \"a\"\nsecret_key = {env = \"S\", file = \"/s\"}\n", "secret_key"},
		"prefix with a slash":     {"prefix = \"/a\"\n", "prefix"},
		"relative CA file":        {"ca_file = \"ca.pem\"\n", "ca_file"},
		"unknown encryption":      {"sse = \"yes\"\n", "sse"},
		"KMS without a key":       {"sse = \"kms:\"\n", "sse"},
		"unknown checksum":        {"checksum = \"sha1\"\n", "checksum"},
		"lock without days":       {"object_lock = {mode = \"governance\"}\n", "object_lock.days"},
		"lock of an unknown mode": {"object_lock = {mode = \"for-ever\", days = 1}\n", "object_lock.mode"},
		"recipients":              {"recipients = [\"age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa\"]\nrecipients_file = \"/r\"\n", ""},
		"recipients of nobody":    {"recipients = []\n", "recipients: it names nobody"},
		"a recipient of no kind":  {"recipients = [\"ssh-ed25519 AAAA\"]\n", "recipients: cannot take"},
		"a secret recipient":      {"recipients = [\"AGE-SECRET-KEY-1QQ\"]\n", "recipients: cannot take a secret key"},
		"relative recipients":     {"recipients_file = \"keys\"\n", "recipients_file"},
		"path of a disk":          {"path = \"/backups\"\n", "path"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(goodBucket + test.more))
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
	for name, test := range map[string]struct{ from, to, want string }{
		"no URL":            {"https://s3.example.org", "s3.example.org", "endpoint"},
		"URL with a path":   {"https://s3.example.org", "https://s3.example.org/bucket", "endpoint"},
		"no bucket's name":  {"example-backups", "a/b", "bucket"},
		"settings on disks": {`type = "s3"`, "type = \"disk\"\npath = \"/backups\"", "settings of s3"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(strings.Replace(goodBucket, test.from, test.to, 1)))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v lacks %q", err, test.want)
			}
		})
	}
}
