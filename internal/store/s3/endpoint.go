package s3

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/signer"

	"voltar/internal/say"
	"voltar/internal/store"
)

// plainPath is the path of an endpoint whose signature does not depend on how it is encoded.
var plainPath = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*$`)

// parseEndpoint takes an endpoint's URL apart. The path has no slash at its end.
func parseEndpoint(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err == nil {
		u.Path = strings.TrimRight(u.Path, "/")
	}
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || !plainPath.MatchString(u.EscapedPath()) ||
		u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, say.WithHint(fmt.Errorf("cannot use %q as an endpoint", text),
			"it looks like https://s3.example.org, or https://example.org/storage/s3 where the server is below a path")
	}
	return u, nil
}

// door is what every request goes through, beyond the client library.
type door struct {
	next    http.RoundTripper
	path    string // of the endpoint, or ""
	account *credentials.Credentials
	clock   *clock
	lacks   *lacks
}

// RoundTrip sends a request and looks at the answer.
func (d *door) RoundTrip(r *http.Request) (*http.Response, error) {
	if d.path != "" {
		var err error
		if r, err = d.below(r); err != nil {
			return nil, err
		}
	}
	answer, err := d.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	d.clock.read(answer)
	if answer.StatusCode < http.StatusInternalServerError {
		store.Progress(r.Context())
	}
	if r.Header.Get("Range") == "" || answer.StatusCode >= http.StatusMultipleChoices { // contents of objects are bounded by their readers
		answer.Body = &boundedBody{answer.Body, maxAnswerBytes}
	}
	if r.Method == http.MethodGet && r.URL.Query().Has("location") {
		err = d.location(answer)
	}
	return answer, err
}

// below moves a request below the endpoint's path, which the client library does not know, and signs it again: the path is
// signed, too.
func (d *door) below(r *http.Request) (*http.Request, error) {
	account, err := d.account.GetWithContext(nil)
	if err != nil {
		return nil, fmt.Errorf("cannot get credentials: %w", err)
	}
	moved := r.Clone(r.Context())
	moved.URL.RawPath = d.path + r.URL.EscapedPath()
	moved.URL.Path = d.path + r.URL.Path
	return signer.SignV4(*moved, account.AccessKeyID, account.SecretAccessKey, account.SessionToken, signedRegion(r)), nil
}

// signedRegion is the region that a request was signed for: the third part of the scope of its credential.
func signedRegion(r *http.Request) string {
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	scope, _, _ = strings.Cut(scope, ",")
	if parts := strings.Split(scope, "/"); len(parts) >= 4 {
		return parts[len(parts)-3]
	}
	return ""
}

// Bounds of what a server may answer: of one answer that holds no contents of an object, of one that tells where a bucket is,
// and of a whole listing, whose folder is that of a volume or of one backup.
const (
	maxAnswerBytes   = 16 << 20 // a thousand keys with all that belongs to them are some MB
	maxLocationBytes = 64 << 10
	maxListed        = 200_000
)

// errTooMuch is the error of an answer beyond these bounds.
var errTooMuch = errors.New("more than any server of S3 has to say")

// boundedBody is the body of an answer, which fails when it is too long.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooMuch
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// defaultRegion is what servers take that have no regions.
const defaultRegion = "us-east-1"

// location puts the default region in the place of a refusal to tell it.
func (d *door) location(answer *http.Response) error {
	if answer.StatusCode < http.StatusBadRequest {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxLocationBytes))
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return err
	}
	var said struct{ Code, Region string }
	if err := xml.Unmarshal(text, &said); err != nil {
		said.Code = answer.Status
	}
	if !isUnsupported(errorOf(answer.StatusCode, said.Code)) || said.Region != "" {
		answer.Body = io.NopCloser(bytes.NewReader(text))
		return nil
	}
	d.lacks.add(lacksLocation, fmt.Sprintf("the server does not say in which region its buckets are (%s): %s is taken; "+
		"`region` names another", said.Code, defaultRegion))
	told := []byte(`<LocationConstraint>` + defaultRegion + `</LocationConstraint>`)
	answer.StatusCode, answer.Status = http.StatusOK, "200 OK"
	answer.ContentLength, answer.Body = int64(len(told)), io.NopCloser(bytes.NewReader(told))
	return nil
}

// clock knows by how much the server's clock differs from this host's.
type clock struct{ ahead atomic.Int64 }

// read takes the server's time from an answer. It is rounded to seconds, and as old as the answer's way was long.
func (c *clock) read(answer *http.Response) {
	if t, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		c.ahead.Store(int64(time.Until(t)))
	}
}

// maxSkew is what Amazon's servers allow, and others after them.
const maxSkew = 15 * time.Minute

// skew says by how much the clocks differ when that is more than servers allow, or nothing.
func (c *clock) skew() string {
	ahead := time.Duration(c.ahead.Load()).Round(time.Second)
	switch {
	case ahead > maxSkew:
		return fmt.Sprintf("the server's clock is %s ahead of this host's", ahead)
	case ahead < -maxSkew:
		return fmt.Sprintf("the server's clock is %s behind this host's", -ahead)
	}
	return ""
}
