package s3

import (
	"cmp"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"

	"github.com/minio/minio-go/v7"

	"voltar/internal/say"
)

// Checksum names the sum by which the server checks what it takes.
type Checksum string

// CRCs are kept by the server with the object, and cover the whole of it. MD5 is for servers that know neither: they
// check each request by it, and the sizes are all that is compared afterwards.
const (
	CRC64NVME Checksum = "crc64nvme" // the default
	CRC32C    Checksum = "crc32c"
	MD5       Checksum = "md5"
)

// Names of the headers of a multipart upload that say what its checksum is of.
const (
	headerAlgorithm = "x-amz-checksum-algorithm"
	headerType      = "x-amz-checksum-type"
	fullObject      = "FULL_OBJECT"
)

// sum knows how one Checksum is computed and sent.
type sum struct {
	name Checksum
	kind minio.ChecksumType // of CRCs
}

func sumOf(name Checksum) (sum, error) {
	name = cmp.Or(name, CRC64NVME)
	switch name {
	case CRC64NVME:
		return sum{name, minio.ChecksumCRC64NVME}, nil
	case CRC32C:
		return sum{name, minio.ChecksumFullObjectCRC32C}, nil
	case MD5:
		return sum{name, minio.ChecksumNone}, nil
	}
	return sum{}, say.WithHint(fmt.Errorf("cannot use %q as a checksum", name),
		fmt.Sprintf("it is %q, %q or %q", CRC64NVME, CRC32C, MD5))
}

func (s sum) isCRC() bool { return s.name != MD5 }

func (s sum) hash() hash.Hash {
	if s.isCRC() {
		return s.kind.Hasher()
	}
	return md5.New()
}

// headers go with a request that carries data of that sum.
func (s sum) headers(value []byte) (headers http.Header, md5Base64 string) {
	text := base64.StdEncoding.EncodeToString(value)
	if !s.isCRC() {
		return nil, text
	}
	return http.Header{s.kind.KeyCapitalized(): {text}}, ""
}

// isConfirmed tells whether the answer to a request that carried data of that sum says that the server holds just these. An ETag
// does where it is the MD5 sum; that of a server that encrypts is none.
func (s sum) isConfirmed(answer minio.UploadInfo, value []byte) bool {
	switch s.name {
	case CRC64NVME:
		return answer.ChecksumCRC64NVME == base64Of(value)
	case CRC32C:
		return answer.ChecksumCRC32C == base64Of(value)
	}
	return answer.ETag == hex.EncodeToString(value)
}

// whole is the sum of the parts in a row, for CRCs.
func (s sum) whole(parts []minio.ObjectPart) (string, error) {
	list := append([]minio.ObjectPart(nil), parts...) // it is sorted in place
	merged, err := s.kind.FullObjectChecksum(list)
	if err != nil {
		return "", fmt.Errorf("cannot merge the parts' checksums: %w", err)
	}
	return merged.Encoded(), nil
}

// enter notes a part's sum where the client library looks for it.
func (s sum) enter(part *minio.ObjectPart, value []byte) {
	text := base64.StdEncoding.EncodeToString(value)
	switch s.name {
	case CRC64NVME:
		part.ChecksumCRC64NVME = text
	case CRC32C:
		part.ChecksumCRC32C = text
	}
}

// base64Of is for messages and comparisons.
func base64Of(value []byte) string { return base64.StdEncoding.EncodeToString(value) }
