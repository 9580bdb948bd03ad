package s3

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/minio/minio-go/v7"
)

// Waits between tries of one request, doubled each time.
const (
	firstWait = 200 * time.Millisecond
	lastWait  = 15 * time.Second
)

// maxDoubtful bounds the tries of a request whose failure may pass and more likely will not.
const maxDoubtful = 4

// try makes a request until it succeeds, fails for good, or has failed for as long as given. It returns the cause of the
// context's end, or an error that names cause and setting.
func (s *Store) try(ctx context.Context, limit time.Duration, request func(ctx context.Context) error) error {
	return s.tryDespite(ctx, limit, nil, request)
}

// appear is try for a request by which an object appears. MinIO says AccessDenied when it removes a folder as empty just
// then; to other requests that is no more than it says.
func (s *Store) appear(ctx context.Context, request func(ctx context.Context) error) error {
	return s.tryDespite(ctx, s.opts.RetryFor, []string{"AccessDenied"}, request)
}

// tryDespite is try, for which the given codes are doubtful too.
func (s *Store) tryDespite(ctx context.Context, limit time.Duration, codes []string, request func(ctx context.Context) error) error {
	limit = min(limit, s.opts.RetryFor)
	var since time.Time
	doubtful := 0
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		began := time.Now()
		err := request(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if since.IsZero() {
			since = time.Now()
			if isTimeout(err) { // for so long it has failed already
				since = since.Add(-min(time.Since(began), s.opts.Timeout))
			}
		}
		isDoubtful := isCode(err, spoiling...) || isCode(err, colliding...) || isCode(err, codes...)
		if isDoubtful {
			doubtful++
		}
		if !isDoubtful && !s.mayPass(err) || doubtful == maxDoubtful {
			return s.explain(err, 0)
		}
		pause := wait/2 + rand.N(wait/2)
		if time.Since(since)+pause > limit {
			return s.explain(err, time.Since(since))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Codes of errors that pass by themselves, beside those of status 500 and above.
var passing = []string{"RequestTimeout", "SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException",
	"RequestLimitExceeded", "RequestThrottled", "InternalError", "ServiceUnavailable",
	"ExpiredToken", "ExpiredTokenException"}

// Codes of errors that tell of data spoiled on its way.
var spoiling = []string{"IncompleteBody", "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch",
	"XAmzContentChecksumMismatch"}

// Codes of errors that tell of another request on the same key or folder. The last is what versitygw says when it removes
// a folder as empty just when an object is put there.
var colliding = []string{"OperationAborted", "ConditionalRequestConflict", "ExistingObjectIsDirectory"}

// mayPass tells whether the same request may succeed later.
func (s *Store) mayPass(err error) bool {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) {
		return !isCertificateError(err) && !isPlainServer(err) && !errors.Is(err, errTooMuch)
	}
	switch {
	case isFull(answer):
		return false
	case slices.Contains(passing, answer.Code):
		return true
	case answer.Region != "" && s.opts.Region == "" && answer.Code == "AuthorizationHeaderMalformed":
		return true // the client has learnt the region from it
	}
	switch answer.StatusCode {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable,
		http.StatusGatewayTimeout, 520: // the last is Cloudflare's
		return true
	}
	return false
}

// dialer makes connections that are given up when nothing moves on them.
type dialer struct{ timeout time.Duration }

func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	inner := net.Dialer{Timeout: min(d.timeout, 30*time.Second), KeepAlive: 30 * time.Second}
	c, err := inner.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, timeout: d.timeout}, nil
}

// conn puts its deadline off whenever something moves, in either direction: the answer to a long upload is waited for
// from its beginning.
type conn struct {
	net.Conn
	timeout time.Duration
}

func (c *conn) Read(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// maxWriteBytes is what must go within the timeout.
const maxWriteBytes = 64 << 10

func (c *conn) Write(p []byte) (written int, err error) {
	for len(p) > 0 && err == nil {
		if err := c.SetDeadline(time.Now().Add(c.timeout)); err != nil {
			return written, err
		}
		var n int
		n, err = c.Conn.Write(p[:min(len(p), maxWriteBytes)])
		written += n
		p = p[n:]
	}
	return written, err
}
