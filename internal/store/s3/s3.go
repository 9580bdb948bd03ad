// Package s3 is a store in a bucket of any server that speaks the S3 protocol (Amazon S3 API Reference, version
// 2006-03-01): an object's key is the store's prefix, a slash and the key. Small objects go up in one request, larger
// ones in parts of one size; the server checks a CRC over each request and over the whole object, and what it then says
// that it holds is compared with what was sent. What is deleted is deleted in every version.
package s3

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"voltar/internal/durable"
	"voltar/internal/safedir"
	"voltar/internal/say"
	"voltar/internal/store"
)

// Defaults of Options.
const (
	DefaultTimeout  = 2 * time.Minute
	DefaultRetryFor = 2 * time.Minute
	DefaultParallel = 4
)

// quickRetryFor bounds retries of requests that carry no data: somebody may be waiting for them.
const quickRetryFor = 30 * time.Second

// Options of a bucket store.
type Options struct {
	Endpoint  string // URL: "https://s3.eu-west-1.amazonaws.com", "http://127.0.0.1:9000", "https://example.org/storage/s3"
	Bucket    string
	Prefix    string // as store.CheckPrefix has it
	Region    string // asked of the server when empty
	PathStyle bool   // http://host/bucket/key; by the endpoint when false: Amazon's and Google's have http://bucket.host/key
	CAFile    string // PEM; trusted beside the system's

	Credentials Credentials

	StorageClass string // the bucket's when empty
	Encryption   string // by the server: "", "s3", or "kms:KEY"
	Checksum     Checksum
	NoTags       bool // for servers without object tagging; one that says that it has none is met without, too
	Lock         Lock

	UploadLimit int64   // bytes a second, of all uploads of this store together; 0 for none
	Parallel    int     // parts of one object on their way at a time
	Memory      *Memory // for parts; may be shared by several stores; DefaultMemoryBytes of its own when nil
	StateDir    string  // where parts that memory has no room for are kept, and uploads under way noted; "" notes none

	Timeout  time.Duration // a connection on which nothing moves for so long is given up
	RetryFor time.Duration // data is sent again for so long after a failure
}

// Credentials of an account. When all is zero, they are those of the environment, under Amazon's names.
type Credentials struct {
	AccessKey, SecretKey string
	SessionToken         string
	InstanceRole         bool // asked of the machine's metadata service
}

// Lock says how long objects are held against deletion, on buckets with object lock.
type Lock struct {
	Mode string // "governance", "compliance", or "" for none
	Days int
}

// Store is a bucket, or a folder of one. It implements store.Store and what that package has beside it.
type Store struct {
	opts      Options
	core      *minio.Core
	sse       encrypt.ServerSide
	memory    *Memory
	limit     *limiter
	records   records
	sum       sum
	minPart   int64
	maxListed int // objects of one listing; tests make it smaller
	clock     clock
	lacks     lacks
	moved     atomic.Int64 // bytes of data on their way, once each

	mu     sync.Mutex
	bucket *bucket // what is known of it; nil until asked

	asking  sync.Mutex
	refuses *bool // what askRefuses found; nil until asked
}

var (
	_ store.Store         = (*Store)(nil)
	_ store.DeleteChecker = (*Store)(nil)
	_ store.Locker        = (*Store)(nil)
	_ store.Noter         = (*Store)(nil)
	_ store.Mover         = (*Store)(nil)
	_ store.Placed        = (*Store)(nil)
	_ store.AllShower     = (*Store)(nil)
	_ store.TagWriter     = (*writer)(nil)
)

// Open prepares the use of a bucket. The server is not asked yet.
func Open(opts Options) (*Store, error) {
	s := &Store{opts: opts, minPart: minPartBytes, maxListed: maxListed}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open destination %s: %w", s, err)
	}
	return s, nil
}

func (s *Store) open() (err error) {
	opts := &s.opts
	if err := store.CheckPrefix(opts.Prefix); err != nil {
		return err
	}
	if s.sum, err = sumOf(opts.Checksum); err != nil {
		return err
	}
	if s.sse, err = encryption(opts.Encryption); err != nil {
		return err
	}
	if err := opts.Lock.check(); err != nil {
		return err
	}
	opts.Timeout = cmp.Or(opts.Timeout, DefaultTimeout)
	opts.RetryFor = cmp.Or(opts.RetryFor, DefaultRetryFor)
	opts.Parallel = cmp.Or(opts.Parallel, DefaultParallel)
	if s.memory = opts.Memory; s.memory == nil {
		s.memory = NewMemory(DefaultMemoryBytes)
	}
	s.limit = newLimiter(opts.UploadLimit)
	if s.records, err = openRecords(opts.StateDir, s.String()); err != nil {
		return err
	}
	s.core, err = s.client()
	return err
}

// client is the connection to the server. It repeats nothing by itself: Store.try does.
func (s *Store) client() (*minio.Core, error) {
	endpoint, err := parseEndpoint(s.opts.Endpoint)
	if err != nil {
		return nil, err
	}
	transport, err := s.transport()
	if err != nil {
		return nil, err
	}
	account, err := s.opts.Credentials.provider()
	if err != nil {
		return nil, err
	}
	lookup := minio.BucketLookupAuto
	if s.opts.PathStyle || endpoint.Path != "" {
		lookup = minio.BucketLookupPath
	}
	core, err := minio.NewCore(endpoint.Host, &minio.Options{
		Creds: account, Secure: endpoint.Scheme == "https",
		Transport: &door{next: transport, path: endpoint.Path, account: account, clock: &s.clock, lacks: &s.lacks}, Region: s.opts.Region,
		BucketLookup: lookup, MaxRetries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot use the endpoint %q: %w", s.opts.Endpoint, err)
	}
	return core, nil
}

func (s *Store) transport() (*http.Transport, error) {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer{timeout: s.opts.Timeout}.dial,
		TLSHandshakeTimeout:   s.opts.Timeout,
		ResponseHeaderTimeout: s.opts.Timeout,
		IdleConnTimeout:       time.Minute,
		MaxIdleConnsPerHost:   16,
		WriteBufferSize:       256 << 10,
		ReadBufferSize:        64 << 10,
		DisableCompression:    true, // what is stored is read as it is
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if s.opts.CAFile == "" {
		return t, nil
	}
	pem, err := safedir.ReadFile(s.opts.CAFile) // whoever writes to it reads and forges what is sent
	if err != nil {
		return nil, fmt.Errorf("cannot read ca_file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("cannot read the system's certificates: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, say.WithHint(fmt.Errorf("cannot find a certificate in ca_file %s", s.opts.CAFile),
			"it must be PEM")
	}
	t.TLSClientConfig.RootCAs = pool
	return t, nil
}

func (c Credentials) provider() (*credentials.Credentials, error) {
	switch {
	case c.InstanceRole:
		return credentials.NewIAM(""), nil
	case c.AccessKey != "" && c.SecretKey != "":
		return credentials.NewStaticV4(c.AccessKey, c.SecretKey, c.SessionToken), nil
	case c.AccessKey != "" || c.SecretKey != "":
		return nil, errors.New("cannot use one of access_key and secret_key without the other")
	case os.Getenv("AWS_ACCESS_KEY_ID") == "" || os.Getenv("AWS_SECRET_ACCESS_KEY") == "":
		return nil, say.WithHint(errors.New("cannot find credentials"),
			"set access_key and secret_key, or instance_role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment")
	}
	return credentials.NewEnvAWS(), nil
}

func encryption(setting string) (encrypt.ServerSide, error) {
	key, isKMS := strings.CutPrefix(setting, "kms:")
	switch {
	case setting == "":
		return nil, nil
	case setting == "s3":
		return encrypt.NewSSE(), nil
	case isKMS && key != "":
		return encrypt.NewSSEKMS(key, nil)
	}
	return nil, say.WithHint(fmt.Errorf("cannot use %q as server-side encryption", setting),
		"sse is \"s3\" or \"kms:KEY\"")
}

// String is the name for people, "s3://host/bucket/prefix": buckets of two servers may have one name.
func (s *Store) String() string { return s.opts.String() }

// String is the name of the store that these options open.
func (o Options) String() string {
	host := o.Endpoint
	if u, err := url.Parse(host); err == nil && u.Host != "" {
		host = u.Host + strings.TrimRight(u.Path, "/")
	}
	name := "s3://" + host + "/" + o.Bucket
	if o.Prefix != "" {
		name += "/" + o.Prefix
	}
	return name
}

// Place tells the store from every other one, however their endpoints are spelled.
func (s *Store) Place(context.Context) (string, error) {
	u, err := parseEndpoint(s.opts.Endpoint)
	if err != nil {
		return "", err
	}
	host := strings.TrimSuffix(strings.ToLower(u.Host), map[string]string{"http": ":80", "https": ":443"}[u.Scheme])
	return host + path.Join("/", u.Path, s.opts.Bucket, s.opts.Prefix), nil
}

// object is the bucket's key of a store's key.
func (s *Store) object(key string) string {
	if s.opts.Prefix == "" {
		return key
	}
	return s.opts.Prefix + "/" + key
}

// folder is what the bucket's keys below a prefix of the store begin with.
func (s *Store) folder(prefix string) string {
	if prefix == "" && s.opts.Prefix == "" {
		return ""
	}
	return strings.TrimSuffix(s.object(prefix), "/") + "/"
}

// key is the store's key of a bucket's.
func (s *Store) key(object string) string {
	return strings.TrimPrefix(object, s.folder(""))
}

// Stat describes an object; see store.Store.
func (s *Store) Stat(ctx context.Context, key string) (store.Object, error) {
	info, err := s.stat(ctx, key, "")
	if err != nil {
		return store.Object{}, fmt.Errorf("stat %s in %s: %w", key, s, err)
	}
	return store.Object{Key: key, SizeBytes: info.Size, Modified: info.LastModified.UTC()}, nil
}

// stat describes one version of an object, or the current one, with the checksum that the server keeps.
func (s *Store) stat(ctx context.Context, key, version string) (info minio.ObjectInfo, err error) {
	if err := store.CheckKey(key); err != nil {
		return info, err
	}
	err = s.try(ctx, quickRetryFor, func(ctx context.Context) error {
		info, err = s.core.StatObject(ctx, s.opts.Bucket, s.object(key),
			minio.StatObjectOptions{VersionID: version, Checksum: s.sum.isCRC()})
		return err
	})
	return info, s.withSum(err)
}

// List yields every object below a prefix; see store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Object, error) {
	infos, err := s.list(ctx, prefix, minio.ListObjectsOptions{Prefix: s.folder(prefix), Recursive: true})
	if err != nil {
		return nil, fmt.Errorf("list %s in %s: %w", cmp.Or(prefix, "everything"), s, err)
	}
	var objects []store.Object
	for _, info := range infos {
		// Others may have made objects that stand for folders.
		if key := s.key(info.Key); store.CheckKey(key) == nil && !durable.IsTemp(path.Base(key)) {
			objects = append(objects, store.Object{Key: key, SizeBytes: info.Size, Modified: info.LastModified.UTC(), Mark: markOf(info, info.Size)})
		}
	}
	slices.SortFunc(objects, func(a, b store.Object) int { return strings.Compare(a.Key, b.Key) })
	return objects, nil
}

// markOf tells an object from what else may have its key. Servers whose ETags are no sums of the content may give one again:
// hence size and time beside it, the time in whole seconds, which is all that some answers have.
func markOf(info minio.ObjectInfo, sizeBytes int64) string {
	if info.ETag == "" || info.LastModified.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s-%d-%d", info.ETag, sizeBytes, info.LastModified.Unix())
}

// Folders yields the names of the folders directly below a prefix; see store.Store.
func (s *Store) Folders(ctx context.Context, prefix string) ([]string, error) {
	folder := s.folder(prefix)
	infos, err := s.list(ctx, prefix, minio.ListObjectsOptions{Prefix: folder})
	if err != nil {
		return nil, fmt.Errorf("list folders of %s in %s: %w", prefix, s, err)
	}
	var names []string
	for _, info := range infos {
		name, isFolder := strings.CutSuffix(strings.TrimPrefix(info.Key, folder), "/")
		if isFolder && store.CheckKey(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Look yields the folders directly below a prefix, with some of their objects; see store.Store. The listing is of all objects
// below: S3 has no other that shows what is in several folders.
func (s *Store) Look(ctx context.Context, prefix string, names ...string) ([]store.Folder, error) {
	objects, err := s.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	var folders []store.Folder
	for _, o := range objects {
		name, rest, isBelow := strings.Cut(strings.TrimPrefix(o.Key, strings.TrimPrefix(prefix+"/", "/")), "/")
		if !isBelow {
			continue
		}
		at, known := slices.BinarySearchFunc(folders, name, func(f store.Folder, name string) int { return strings.Compare(f.Name, name) })
		if !known {
			folders = slices.Insert(folders, at, store.Folder{Name: name})
		}
		if slices.Contains(names, rest) || len(names) == 0 && !strings.Contains(rest, "/") {
			folders[at].Objects = append(folders[at].Objects, o)
		}
	}
	return folders, nil
}

// ShowsAll tells that a look at all objects costs what one at some does; see store.AllShower.
func (s *Store) ShowsAll() {}

// list reads a whole listing. A failure in its middle begins it again.
func (s *Store) list(ctx context.Context, prefix string, opts minio.ListObjectsOptions) (infos []minio.ObjectInfo, err error) {
	if err := store.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	err = s.try(ctx, quickRetryFor, func(ctx context.Context) error {
		infos = infos[:0]
		for info := range s.core.ListObjectsIter(ctx, s.opts.Bucket, opts) {
			if info.Err != nil {
				return info.Err
			}
			if len(infos) == s.maxListed {
				return errTooMuch
			}
			infos = append(infos, info)
		}
		return ctx.Err() // an end of the context ends the listing without a word
	})
	return infos, err
}

// Usage tells nothing: buckets have no size.
func (s *Store) Usage(ctx context.Context) (store.Usage, error) {
	if ctx.Err() != nil {
		return store.Usage{}, context.Cause(ctx)
	}
	return store.Usage{TotalBytes: -1, FreeBytes: -1}, nil
}
