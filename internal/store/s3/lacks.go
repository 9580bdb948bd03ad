package s3

import (
	"errors"
	"net/http"
	"slices"
	"sync"

	"github.com/minio/minio-go/v7"

	"voltar/internal/say"
)

// lack is a part of the protocol that a server, or its account, does without. A backup does not need it.
type lack string

const (
	lacksTags     lack = "tags"
	lacksLocation lack = "location"
	lacksUploads  lack = "uploads"
	lacksClaims   lack = "claims"
)

// lacks is what a server was found to do without, so that it is asked once and people are told.
type lacks struct {
	mu    sync.Mutex
	found []lack
	notes []string
}

// add enters what is missing, with a note for people. The first note counts.
func (l *lacks) add(what lack, note string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.found, what) {
		l.found, l.notes = append(l.found, what), append(l.notes, note)
	}
}

func (l *lacks) has(what lack) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.found, what)
}

func (l *lacks) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.notes)
}

// Codes by which servers say with status 400 that they do not take a header, a query or an operation. The last is what a
// client makes of an answer without a body, as to HEAD.
var refusing = []string{"InvalidArgument", "InvalidRequest", "NotImplemented", "MethodNotAllowed", "UnsupportedArgument",
	"UnsupportedHeader", "UnsupportedOperation", "OperationNotSupported", "NotSupported", "400 Bad Request"}

// errorOf is the client library's error for an answer.
func errorOf(status int, code string) error {
	return minio.ErrorResponse{StatusCode: status, Code: code}
}

// isUnsupported tells of servers that lack a part of the protocol.
func isUnsupported(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && (answer.StatusCode == http.StatusNotImplemented ||
		answer.StatusCode == http.StatusMethodNotAllowed || slices.Contains(refusing, answer.Code))
}

// withSum adds to the failure of a request that carries or asks for a checksum what does without.
func (s *Store) withSum(err error) error {
	if !s.sum.isCRC() || !isUnsupported(err) {
		return err
	}
	return say.WithHint(err, `if the server refuses headers with checksums, checksum = "md5" does without`)
}
