package s3

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/tags"

	"voltar/internal/say"
	"voltar/internal/store"
)

// cleanTimeout bounds what giving up an object may take.
const cleanTimeout = time.Minute

// Create begins an object; see store.Store.
func (s *Store) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	w, err := s.create(ctx, key, opts)
	if err != nil {
		return nil, fmt.Errorf("create %s in %s: %w", key, s, err)
	}
	return w, nil
}

func (s *Store) create(ctx context.Context, key string, opts store.PutOptions) (*writer, error) {
	if err := store.CheckKey(key); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if !opts.LockUntil.IsZero() && s.opts.Lock.Mode == "" {
		return nil, store.ErrNoLock
	}
	size, err := s.partBytes(opts.MaxBytes)
	if err != nil {
		return nil, err
	}
	w := &writer{
		store: s, key: key, evenBytes: size, partBytes: size, tags: maps.Clone(opts.Tags), lockUntil: opts.LockUntil, ifAbsent: opts.IfAbsent,
		slots: make(chan struct{}, s.opts.Parallel), freed: make(chan struct{}, 1),
	}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w, nil
}

// writer sends an object. Until its first part is full, nothing has gone to the server, and an object that never gets
// there is sent in one request.
type writer struct {
	store     *Store
	ctx       context.Context
	cancel    context.CancelCauseFunc
	key       string
	evenBytes int64 // of the first parts
	partBytes int64 // of the one that is being filled
	tags      map[string]string
	lockUntil time.Time
	ifAbsent  bool
	// conditional has the server see to ifAbsent.
	conditional bool
	ended       bool

	size   int64
	part   *part // that is being filled, or nil
	upload string
	noted  *note // the upload's record

	slots   chan struct{} // one for each part on its way
	freed   chan struct{} // a part's memory came free
	sending sync.WaitGroup

	mu   sync.Mutex
	sent []minio.ObjectPart // by number, from 1
	err  error              // the first failure
}

// SetTag adds to the tags that the object gets; see store.TagWriter.
func (w *writer) SetTag(name, value string) {
	if w.tags == nil {
		w.tags = map[string]string{}
	}
	w.tags[name] = value
}

// Write takes more of the object; see store.Writer.
func (w *writer) Write(p []byte) (written int, err error) {
	if w.ended {
		return 0, fmt.Errorf("write %s: cannot write to an object that is committed or aborted", w.key)
	}
	for len(p) > 0 {
		n, err := w.fill(p)
		written += n
		p = p[n:]
		if err != nil {
			w.fail(err)
			return written, fmt.Errorf("write %s in %s: %w", w.key, w.store, w.failure())
		}
	}
	return written, nil
}

// fill puts some of p into the part, and sends a full one off first.
func (w *writer) fill(p []byte) (int, error) {
	if err := w.failure(); err != nil {
		return 0, err
	}
	if w.part != nil && w.part.size == w.partBytes {
		if err := w.handOn(); err != nil {
			return 0, err
		}
		w.partBytes = grownPartBytes(w.evenBytes, len(w.sent))
	}
	if w.size >= maxObjectBytes {
		return 0, fmt.Errorf("cannot store more than %s in an object: that is the most that S3 takes", say.Size(maxObjectBytes))
	}
	if w.part == nil {
		w.part = newPart(w.store.memory, w.store.spoolDir(), w.store.sum.hash())
		if w.partBytes > maxMemoryPartBytes {
			if err := w.part.spool(); err != nil {
				return 0, err
			}
		}
	}
	n, err := w.part.fill(p[:min(int64(len(p)), w.partBytes-w.part.size)])
	w.size += int64(n)
	if errors.Is(err, errNoMemory) {
		err = w.makeRoom()
	}
	return n, err
}

// makeRoom waits for a part of this object that is on its way, whose memory comes free then. With none on its way, the
// part that is being filled goes to a file: waiting for other objects could be for ever.
func (w *writer) makeRoom() error {
	if len(w.slots) == 0 {
		return w.part.spool()
	}
	select {
	case <-w.freed:
		return nil
	case <-w.ctx.Done():
		return w.failure()
	}
}

func (s *Store) spoolDir() string { return cmp.Or(s.opts.StateDir, os.TempDir()) }

// fail notes the first failure and stops what is on its way.
func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		w.cancel(err)
	}
}

// failure is the first failure so far, or the cause of the context's end.
func (w *writer) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && w.ctx.Err() != nil {
		w.err = context.Cause(w.ctx)
	}
	return w.err
}

// handOn sends the part that is being filled on its way.
func (w *writer) handOn() error {
	if w.upload == "" {
		if err := w.begin(); err != nil {
			return err
		}
	}
	if len(w.sent) == maxParts {
		return fmt.Errorf("cannot store more than %d parts of an object", maxParts)
	}
	select {
	case w.slots <- struct{}{}:
	case <-w.ctx.Done():
		return w.failure()
	}
	p := w.part
	w.part = nil
	w.mu.Lock()
	w.sent = append(w.sent, minio.ObjectPart{PartNumber: len(w.sent) + 1, Size: p.size})
	number := len(w.sent)
	w.mu.Unlock()
	w.sending.Go(func() {
		err := w.send(p, number)
		if err := errors.Join(err, p.release()); err != nil {
			w.fail(err)
		}
		<-w.slots
		select {
		case w.freed <- struct{}{}:
		default:
		}
	})
	return nil
}

// begin opens the multipart upload, whose record is there before.
func (w *writer) begin() (err error) {
	if w.noted, err = w.store.records.note(w.key); err != nil {
		return err
	}
	opts := w.options()
	opts.UserMetadata = map[string]string{}
	if w.store.sum.isCRC() {
		opts.UserMetadata[headerAlgorithm] = w.store.sum.kind.String()
		opts.UserMetadata[headerType] = fullObject
	}
	tries := 0
	err = w.store.try(w.ctx, w.store.opts.RetryFor, func(ctx context.Context) (err error) {
		tries++
		w.upload, err = w.store.core.NewMultipartUpload(ctx, w.store.opts.Bucket, w.store.object(w.key), opts)
		return err
	})
	if err == nil {
		err = w.noted.begun(w.upload)
	}
	if tries > 1 || err != nil {
		w.noted = nil // a try whose answer was lost may have begun one more, which Sweep finds
	}
	return w.store.withSum(err)
}

// options are what an object is stored with.
func (w *writer) options() minio.PutObjectOptions {
	return minio.PutObjectOptions{StorageClass: w.store.opts.StorageClass, ServerSideEncryption: w.store.sse}
}

// send sends one part, as often as needed.
func (w *writer) send(p *part, number int) error {
	value := p.sum.Sum(nil)
	headers, md5 := w.store.sum.headers(value)
	payload, err := w.store.payloadSum(p.reader())
	if err != nil {
		return err
	}
	var sent minio.ObjectPart
	err = w.store.try(w.ctx, w.store.opts.RetryFor, func(ctx context.Context) (err error) {
		opts := minio.PutObjectPartOptions{
			Md5Base64: md5, Sha256Hex: payload, CustomHeader: headers.Clone(), DisableContentSha256: true,
		}
		sent, err = w.store.core.PutObjectPart(ctx, w.store.opts.Bucket, w.store.object(w.key), w.upload, number,
			w.store.body(ctx, p), p.size, opts)
		return err
	})
	if err != nil {
		return w.store.withSum(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	entry := &w.sent[number-1]
	entry.ETag = sent.ETag
	w.store.sum.enter(entry, value)
	return nil
}

// MovedBytes counts what went to the server so far; see store.Mover.
func (s *Store) MovedBytes() int64 { return s.moved.Load() }

// body is a part as one request sends it.
func (s *Store) body(ctx context.Context, p *part) io.Reader {
	return s.limit.reader(ctx, &movedReader{store: s, part: p, inner: p.reader()})
}

// movedReader counts what of a part goes on its way for the first time: what is sent again is no progress.
type movedReader struct {
	store  *Store
	part   *part
	inner  io.Reader
	offset int64
}

func (r *movedReader) Read(p []byte) (int, error) {
	n, err := r.inner.Read(p)
	r.offset += int64(n)
	r.store.moved.Add(r.part.onTheWay(r.offset))
	return n, err
}

// payloadSum is what the request is signed with: over plain HTTP the sum of its body, which nobody on the way can
// change then; TLS sees to that by itself.
func (s *Store) payloadSum(body io.Reader) (string, error) {
	if s.core.EndpointURL().Scheme == "https" {
		return "", nil
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, body); err != nil {
		return "", fmt.Errorf("cannot read a part back: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// Commit makes the object appear; see store.Writer.
func (w *writer) Commit(ctx context.Context) (store.Object, error) {
	if w.ended {
		return store.Object{}, fmt.Errorf("commit %s: cannot commit an object that is committed or aborted", w.key)
	}
	w.ended = true
	stop := context.AfterFunc(ctx, func() { w.cancel(context.Cause(ctx)) })
	defer stop()
	defer w.cancel(nil)
	object, err := w.commit()
	if err != nil {
		w.fail(err)
		return store.Object{}, errors.Join(fmt.Errorf("commit %s in %s: %w", w.key, w.store, w.failure()), w.clean())
	}
	return object, nil
}

func (w *writer) commit() (store.Object, error) {
	if err := w.failure(); err != nil {
		return store.Object{}, err
	}
	finish := w.put
	if w.upload != "" {
		finish = w.complete
	}
	if w.ifAbsent {
		finish = w.alone(finish)
	}
	stored, err := finish()
	if err != nil {
		return store.Object{}, err
	}
	object, err := w.compare(stored)
	if err == nil && w.upload != "" {
		err = w.tag(stored.version)
	}
	if err == nil && !w.lockUntil.IsZero() {
		err = w.store.retain(w.ctx, w.key, stored.version, w.lockUntil)
	}
	if err != nil {
		return store.Object{}, errors.Join(err, w.retract(stored.version))
	}
	return object, w.noted.end()
}

// alone has an object appear only where there is none.
func (w *writer) alone(finish func() (stored, error)) func() (stored, error) {
	return func() (done stored, err error) {
		refuses, err := w.store.refusesToReplace(w.ctx)
		if err != nil {
			return done, err
		}
		if refuses {
			w.conditional = true
			done, err = finish()
			if isCode(err, minio.PreconditionFailed) {
				err = store.ErrExists
			}
			return done, err
		}
		release, err := w.store.announce(w.ctx, w.key)
		if err != nil {
			return done, err
		}
		if done, err = finish(); err != nil {
			return done, errors.Join(err, release())
		}
		if err := release(); err != nil { // which would keep the next one from it
			return done, errors.Join(err, w.retract(done.version))
		}
		return done, nil
	}
}

// ifNoneMatch has the server refuse what would replace an object.
func (w *writer) ifNoneMatch(opts *minio.PutObjectOptions) {
	if w.conditional {
		opts.SetMatchETagExcept("*")
	}
}

// stored is what the server said of an object that it took, and the sum that it must have.
type stored struct {
	sum, version, etag string
	confirmed          int64 // bytes whose sum the server has said, with its answer, to be the right one; -1 for none
}

// put sends the whole object in one request, with its tags. A server that refuses it so gets it without.
func (w *writer) put() (done stored, err error) {
	if w.part == nil {
		w.part = newPart(w.store.memory, w.store.spoolDir(), w.store.sum.hash())
	}
	p := w.part
	w.part = nil
	defer func() { err = errors.Join(err, p.release()) }()
	set, err := w.tagSet()
	if err != nil || set == nil {
		if err == nil {
			done, err = w.putPart(p, nil)
		}
		return done, err
	}
	done, err = w.putPart(p, set.ToMap())
	if !isUnsupported(err) && !isDenied(err) {
		return done, err
	}
	tagged := err
	if done, err = w.putPart(p, nil); err == nil {
		w.lackTags(tagged)
	}
	return done, err
}

// putPart sends the whole object in one request.
func (w *writer) putPart(p *part, set map[string]string) (done stored, err error) {
	value := p.sum.Sum(nil)
	headers, md5 := w.store.sum.headers(value)
	opts := w.options()
	opts.DisableContentSha256 = true
	opts.UserTags = set
	opts.UserMetadata = map[string]string{}
	w.ifNoneMatch(&opts)
	for name := range headers {
		opts.UserMetadata[name] = headers.Get(name)
	}
	payload, err := w.store.payloadSum(p.reader())
	if err == nil {
		err = w.store.appear(w.ctx, func(ctx context.Context) error {
			info, err := w.store.core.PutObject(ctx, w.store.opts.Bucket, w.store.object(w.key),
				w.store.body(ctx, p), p.size, md5, payload, opts)
			done = stored{sum: base64Of(value), version: info.VersionID, etag: info.ETag, confirmed: -1}
			if w.store.sum.isConfirmed(info, value) {
				done.confirmed = p.size
			}
			return err
		})
	}
	return done, w.store.withSum(err)
}

// complete waits for all parts and joins them.
func (w *writer) complete() (done stored, err error) {
	if w.part != nil {
		if err := w.handOn(); err != nil {
			return done, err
		}
	}
	w.sending.Wait()
	if err := w.failure(); err != nil {
		return done, err
	}
	opts := minio.PutObjectOptions{UserMetadata: map[string]string{}}
	w.ifNoneMatch(&opts)
	if w.store.sum.isCRC() {
		if done.sum, err = w.store.sum.whole(w.sent); err != nil {
			return done, err
		}
		opts.UserMetadata[w.store.sum.kind.Key()] = done.sum
		opts.UserMetadata[headerType] = fullObject
	}
	var parts []minio.CompletePart
	for _, p := range w.sent {
		parts = append(parts, minio.CompletePart{
			PartNumber: p.PartNumber, ETag: p.ETag, ChecksumCRC32C: p.ChecksumCRC32C, ChecksumCRC64NVME: p.ChecksumCRC64NVME,
		})
	}
	tries := 0
	done.confirmed = -1
	err = w.store.appear(w.ctx, func(ctx context.Context) error {
		tries++
		info, err := w.store.core.CompleteMultipartUpload(ctx, w.store.opts.Bucket, w.store.object(w.key), w.upload, parts, opts)
		done.version, done.etag = info.VersionID, info.ETag
		if tries > 1 && isCode(err, minio.NoSuchUpload) {
			return nil // an earlier try went through, and its answer was lost; what is there now is compared
		}
		return err
	})
	return done, w.store.withSum(err)
}

// looksAtStored is how often compare asks before it believes in a difference: a server that collects its answer piece by
// piece mixes two objects when another writer puts its own in the place of this one meanwhile.
const looksAtStored = 3

// compare looks whether the server holds what was sent, unless its answer has said so. When an object was modified only a look
// tells.
func (w *writer) compare(done stored) (store.Object, error) {
	if done.confirmed >= 0 {
		if done.confirmed != w.size {
			return store.Object{}, fmt.Errorf("cannot take what was sent for what was written: %d bytes of %d", done.confirmed, w.size)
		}
		return store.Object{Key: w.key, SizeBytes: w.size}, nil
	}
	var different error
	for range looksAtStored {
		info, err := w.store.stat(w.ctx, w.key, done.version)
		if err != nil {
			return store.Object{}, fmt.Errorf("look at what was stored: %w", err)
		}
		different = w.difference(info, done)
		if different == nil {
			return store.Object{Key: w.key, SizeBytes: w.size, Modified: info.LastModified.UTC()}, nil
		}
	}
	return store.Object{}, different
}

// difference says in what the object that the server holds is not what was sent. Where another writer has already put its
// object in the place of this one, there is nothing to look at: what the server checked when it took it must do.
func (w *writer) difference(info minio.ObjectInfo, done stored) error {
	if done.etag != "" && info.ETag != done.etag {
		return nil
	}
	if info.Size != w.size {
		return fmt.Errorf("cannot take what the server holds for what was sent: %d bytes of %d", info.Size, w.size)
	}
	if !w.store.sum.isCRC() {
		return nil
	}
	switch held := info.Checksum(w.store.sum.kind); held {
	case done.sum:
		return nil
	case "":
		return say.WithHint(fmt.Errorf("cannot compare what was stored: the server keeps no %s", w.store.sum.name),
			fmt.Sprintf("set checksum = %q", MD5))
	default:
		return fmt.Errorf("cannot take what the server holds for what was sent: its %s is %s, not %s", w.store.sum.name, held, done.sum)
	}
}

// tagSet are the tags of the object as S3 takes them, or nil where it gets none: no backup needs them.
func (w *writer) tagSet() (*tags.Tags, error) {
	if len(w.tags) == 0 || w.store.opts.NoTags || w.store.lacks.has(lacksTags) {
		return nil, nil
	}
	clean := map[string]string{}
	for name, value := range w.tags {
		clean[tagText(name, maxTagNameBytes)] = tagText(value, maxTagValueBytes)
	}
	set, err := tags.NewTags(clean, true)
	if err != nil {
		return nil, fmt.Errorf("cannot tag %s: %w", w.key, err)
	}
	return set, nil
}

// tag gives an object its tags that went up in parts: the last of them are known only when all is sent.
func (w *writer) tag(version string) error {
	set, err := w.tagSet()
	if err != nil || set == nil {
		return err
	}
	err = w.store.try(w.ctx, w.store.opts.RetryFor, func(ctx context.Context) error {
		return w.store.core.PutObjectTagging(ctx, w.store.opts.Bucket, w.store.object(w.key), set,
			minio.PutObjectTaggingOptions{VersionID: version})
	})
	switch {
	case isUnsupported(err), isDenied(err):
		w.lackTags(err)
		return nil
	case err != nil:
		return say.WithHint(fmt.Errorf("tag it: %w", err), "tags = false does without")
	}
	return nil
}

// lackTags notes how the server refused tags.
func (w *writer) lackTags(err error) {
	note := "the server takes no tags: objects are stored without; tags = false does not try"
	if isDenied(err) {
		note = "the account may not tag objects (s3:PutObjectTagging): they are stored without; tags = false does not try"
	}
	w.store.lacks.add(lacksTags, note)
}

// What S3 allows in tags.
const (
	maxTagNameBytes  = 128
	maxTagValueBytes = 256
)

// tagText replaces what no tag can hold.
func tagText(text string, maxBytes int) string {
	clean := strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" +-=._:/@", r)) {
			return r
		}
		return '_'
	}, text)
	return clean[:min(len(clean), maxBytes)]
}

// retract takes back an object that was stored and then found wanting.
func (w *writer) retract(version string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), cleanTimeout)
	defer cancel()
	return w.store.try(ctx, quickRetryFor, func(ctx context.Context) error {
		return w.store.core.RemoveObject(ctx, w.store.opts.Bucket, w.store.object(w.key), minio.RemoveObjectOptions{VersionID: version})
	})
}

// Abort throws away what was written; see store.Writer.
func (w *writer) Abort() error {
	if w.ended {
		return nil
	}
	w.ended = true
	w.fail(errAborted)
	if err := w.clean(); err != nil {
		return fmt.Errorf("abort %s in %s: %w", w.key, w.store, err)
	}
	return nil
}

var errAborted = errors.New("aborted")

// clean leaves nothing of an object that failed, here or on the server. The record of an upload that cannot be ended
// stays, for Sweep.
func (w *writer) clean() error {
	w.cancel(errAborted)
	w.sending.Wait()
	var all []error
	if w.part != nil {
		all = append(all, w.part.release())
		w.part = nil
	}
	if w.upload != "" {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), cleanTimeout)
		defer cancel()
		err := w.store.abandon(ctx, w.store.object(w.key), w.upload)
		if err == nil {
			err = w.noted.end()
		}
		all = append(all, err)
	}
	return errors.Join(all...)
}
