package s3test

import (
	"net/http"
	"strings"
)

// Sums matches every request that carries or asks for a checksum other than Content-MD5.
func Sums(r *http.Request) bool {
	for name := range r.Header {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "x-amz-checksum") || name == "x-amz-sdk-checksum-algorithm" || name == "x-amz-trailer" {
			return true
		}
	}
	return false
}

// Tagging matches what sets tags.
func Tagging(r *http.Request) bool {
	return r.Header.Get("X-Amz-Tagging") != "" || r.URL.Query().Has("tagging")
}

// Asking returns what matches requests that read one of the named properties: "versioning", "object-lock", "location",
// "uploads".
func Asking(properties ...string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		for _, property := range properties {
			if r.Method == http.MethodGet && r.URL.Query().Has(property) {
				return true
			}
		}
		return false
	}
}

// HeadBucket matches the question whether a bucket is there.
func HeadBucket(r *http.Request) bool {
	return r.Method == http.MethodHead && strings.Count(strings.TrimSuffix(r.URL.Path, "/"), "/") < 2
}

// Either matches what one of several matches.
func Either(matches ...func(*http.Request) bool) func(*http.Request) bool {
	return func(r *http.Request) bool {
		for _, match := range matches {
			if match(r) {
				return true
			}
		}
		return false
	}
}
