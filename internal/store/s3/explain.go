package s3

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"

	"voltar/internal/store"
)

// failure is a request's error in words for people, with the setting that may be wrong.
type failure struct {
	text  string
	hint  string
	cause error // the client library's
	kind  error // of package store, or nil
}

func (f *failure) Error() string { return f.text }

// Hint says what a person can do about it.
func (f *failure) Hint() string { return f.hint }

func (f *failure) Unwrap() []error {
	if f.kind == nil {
		return []error{f.cause}
	}
	return []error{f.cause, f.kind}
}

// explain says what went wrong with a request that was made again for so long.
func (s *Store) explain(err error, tried time.Duration) error {
	f := s.failure(err)
	if tried > 0 {
		f.text += fmt.Sprintf(" (tried for %s)", tried.Round(time.Second))
		if f.kind == nil {
			f.kind = store.ErrUnreachable
		}
	}
	if errors.Is(f.kind, store.ErrNoSpace) {
		return &store.WholeError{Err: f}
	}
	return f
}

func (s *Store) failure(err error) *failure {
	var answer minio.ErrorResponse
	if errors.As(err, &answer) {
		text, hint, kind := s.failedAnswer(answer)
		return &failure{text, hint, err, kind}
	}
	text, hint := s.failedConnection(err)
	return &failure{text, hint, err, nil}
}

// failedAnswer explains what the server said.
func (s *Store) failedAnswer(a minio.ErrorResponse) (text, hint string, kind error) {
	said := fmt.Sprintf("the server says %q", a.Error())
	if a.Code != "" && !strings.Contains(a.Error(), a.Code) {
		said += " (" + a.Code + ")"
	}
	switch a.Code {
	case "NoSuchKey", "NoSuchUpload", "NoSuchVersion":
		return "there is no such object", "", store.ErrNotExist
	case "NoSuchBucket":
		return fmt.Sprintf("there is no bucket %q", s.opts.Bucket), "make it, or correct `bucket` or `endpoint`", nil
	case "InvalidBucketName":
		return fmt.Sprintf("the server takes %q for no bucket's name", s.opts.Bucket), "correct `bucket`", nil
	case "InvalidAccessKeyId", "InvalidAccessKey":
		return "the server does not know the access key: " + said, "correct `access_key`", nil
	case "SignatureDoesNotMatch":
		return "the secret key is wrong: " + said, "correct `secret_key`", nil
	case "ExpiredToken", "InvalidToken", "ExpiredTokenException":
		return "the credentials are no longer valid: " + said, "renew them", nil
	case "RequestTimeTooSkewed", "RequestExpired":
		return cmp.Or(s.clock.skew(), "the clocks of this host and of the server differ too much") + ": " + said, clockHint, nil
	case "AuthorizationHeaderMalformed", "InvalidRegion", "IllegalLocationConstraintException":
		return "the region is wrong: " + said, "correct `region`" + expectedRegion(a), nil
	case "InvalidStorageClass":
		return "the server does not know the storage class: " + said, "correct `storage_class`", nil
	case "MalformedXML", "InvalidTag", "BadRequest":
		return said, "", nil
	case "InvalidObjectState":
		return "the object is archived and must be restored first: " + said, "ask the server to restore it (s3:RestoreObject)", nil
	case "PreconditionFailed":
		return errReplaced.Error(), "", nil
	}
	switch {
	case a.StatusCode/100 == 3:
		return "the bucket is served elsewhere: " + said, "correct `endpoint` and `region`" + expectedRegion(a), nil
	case isFull(a):
		return "the store is full: " + said,
			"make space, raise the quota, or keep fewer backups; `voltar prune` removes what the policy no longer keeps", store.ErrNoSpace
	case isLockedAnswer(a):
		return "the object is held by object lock: " + said, "", store.ErrLocked
	case a.StatusCode == http.StatusForbidden && s.clock.skew() != "": // an answer to HEAD has no more to say
		return s.clock.skew() + ": " + said, clockHint, nil
	case a.StatusCode == http.StatusForbidden:
		return "access denied: " + said, "the account of `access_key` needs to list, read, write and delete in this bucket", nil
	case a.StatusCode == http.StatusServiceUnavailable, a.StatusCode == http.StatusTooManyRequests, strings.HasPrefix(a.Code, "SlowDown"):
		return "the server is overloaded: " + said, "set `upload_limit`", nil
	case strings.HasPrefix(a.Code, "KMS") || strings.Contains(a.Code, "Encryption"):
		return "server-side encryption failed: " + said, "correct `sse`", nil
	case slices.Contains(spoiling, a.Code):
		return "data was spoiled on its way: " + said, "something between this host and the server changes or cuts it", nil
	}
	return said, "", nil
}

const clockHint = "set this host's clock (timedatectl), or the server's"

func expectedRegion(a minio.ErrorResponse) string {
	if a.Region == "" {
		return ""
	}
	return fmt.Sprintf(": the server expects %q", a.Region)
}

// failedConnection explains why there was no answer.
func (s *Store) failedConnection(err error) (text, hint string) {
	var unknown x509.UnknownAuthorityError
	var wrongHost x509.HostnameError
	var invalid x509.CertificateInvalidError
	var dns *net.DNSError
	var record tls.RecordHeaderError
	reason := rootOf(err)
	switch {
	case errors.Is(err, errTooMuch):
		return "the server's answer has no end: it is " + reason, "look whether `endpoint` is a server of S3"
	case errors.As(err, &unknown):
		return "the server's certificate is of an authority that this host does not trust", "set `ca_file` to the authority's certificate"
	case errors.As(err, &wrongHost):
		return "the server's certificate is for another name: " + reason, "correct `endpoint`, or set `path_style`"
	case errors.As(err, &invalid):
		return "the server's certificate is not valid: " + reason, "renew it, or set this host's clock"
	case isPlainServer(err), errors.As(err, &record):
		return "the server does not speak TLS", "if that is meant, `endpoint` begins with http://"
	case errors.As(err, &dns):
		return "the server's name cannot be resolved: " + reason, "correct `endpoint`, or look at DNS"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at " + s.opts.Endpoint, "start the server, or correct `endpoint`"
	case errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return fmt.Sprintf("the server gave no sign of life for %s", s.opts.Timeout), "look at the network"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		strings.Contains(reason, "closed by foreign host"):
		return "the connection broke off: " + reason, "look at the network, and at proxies between this host and the server"
	}
	return "the server cannot be asked: " + reason, "look at `endpoint` and the network"
}

// rootOf is the innermost error's text: the outer ones repeat the URL, with its signature.
func rootOf(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func isCertificateError(err error) bool {
	var unknown x509.UnknownAuthorityError
	var wrongHost x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &unknown) || errors.As(err, &wrongHost) || errors.As(err, &invalid)
}

// isPlainServer tells of an answer in plain HTTP to a TLS handshake.
func isPlainServer(err error) bool {
	return err != nil && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

func isFull(a minio.ErrorResponse) bool {
	return a.StatusCode == http.StatusInsufficientStorage ||
		slices.Contains([]string{"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"}, a.Code)
}

func isLockedAnswer(a minio.ErrorResponse) bool {
	return a.Code == "ObjectLocked" || a.Code == "InvalidRequest" && strings.Contains(a.Message, "WORM") ||
		a.StatusCode == http.StatusForbidden && strings.Contains(strings.ToLower(a.Message), "object lock")
}

func isCode(err error, codes ...string) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && slices.Contains(codes, answer.Code)
}

func isDenied(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && answer.StatusCode == http.StatusForbidden && answer.Code == "AccessDenied"
}
