package config

import (
	"net/url"
	"regexp"
	"strings"
)

// S3 are the keys of a [[destination]] of type "s3".
type S3 struct {
	Endpoint     string     `toml:"endpoint"` // URL
	Bucket       string     `toml:"bucket"`
	Prefix       string     `toml:"prefix"`     // folder in the bucket
	Region       string     `toml:"region"`     // asked of the server when empty
	PathStyle    bool       `toml:"path_style"` // https://host/bucket/key where the server would be asked for https://bucket.host/key
	CAFile       string     `toml:"ca_file"`    // PEM, trusted beside the system's
	AccessKey    string     `toml:"access_key"` // of the environment when empty, under Amazon's names
	SecretKey    Secret     `toml:"secret_key"`
	InstanceRole bool       `toml:"instance_role"` // credentials from the machine's metadata service
	StorageClass string     `toml:"storage_class"`
	SSE          string     `toml:"sse"`      // encryption by the server: s3, or kms:KEY
	Checksum     string     `toml:"checksum"` // crc64nvme, crc32c or md5
	Tags         *bool      `toml:"tags"`     // objects get tags; true when not set
	ObjectLock   ObjectLock `toml:"object_lock"`
	UploadLimit  Size       `toml:"upload_limit"` // bytes a second; 0 for none
}

// ObjectLock says how long objects are held against deletion.
type ObjectLock struct {
	Mode string `toml:"mode"` // governance or compliance
	Days int    `toml:"days"`
}

// bucketPattern is Amazon's rule for names, and no stricter one.
var bucketPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$`)

func (s S3) validate(p *problems, key string) {
	if u, err := url.Parse(s.Endpoint); err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" ||
		u.Scheme != "http" && u.Scheme != "https" {
		p.add(key+": endpoint", "%q is no URL of a server, like https://s3.example.org", s.Endpoint)
	}
	if !bucketPattern.MatchString(s.Bucket) {
		p.add(key+": bucket", "%q is no name of a bucket: want 3 to 63 letters, digits, dots, hyphens and underscores", s.Bucket)
	}
	if strings.HasPrefix(s.Prefix, "/") || strings.HasSuffix(s.Prefix, "/") || strings.Contains(s.Prefix, "//") {
		p.add(key+": prefix", "%q begins or ends with a slash, or holds two in a row", s.Prefix)
	}
	if s.CAFile != "" {
		p.absolute(key+": ca_file", s.CAFile)
	}
	s.SecretKey.validate(p, key+": secret_key")
	switch {
	case s.InstanceRole && (s.AccessKey != "" || s.SecretKey.Set()):
		p.add(key+": instance_role", "set it, or access_key and secret_key")
	case (s.AccessKey != "") != s.SecretKey.Set():
		p.add(key+": access_key", "set access_key and secret_key both, or none")
	}
	if mode, hasKey := strings.CutPrefix(s.SSE, "kms:"); s.SSE != "" && s.SSE != "s3" && (!hasKey || mode == "") {
		p.add(key+": sse", `%q is neither "s3" nor "kms:KEY"`, s.SSE)
	}
	if s.Checksum != "" {
		p.oneOf(key+": checksum", s.Checksum, "crc64nvme", "crc32c", "md5")
	}
	if s.ObjectLock != (ObjectLock{}) {
		p.oneOf(key+": object_lock.mode", s.ObjectLock.Mode, "governance", "compliance")
		if s.ObjectLock.Days < 1 || s.ObjectLock.Days > 36500 {
			p.add(key+": object_lock.days", "%d is not between 1 and 36500", s.ObjectLock.Days)
		}
	}
}
