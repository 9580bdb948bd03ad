package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path"

	"github.com/minio/minio-go/v7"

	"voltar/internal/durable"
	"voltar/internal/store"
)

// probeKey is the object by which a server shows that it refuses to replace one. Nobody lists it.
const probeKey = ".voltar-check.voltar-tmp-claim"

// announced is between the name of an object that is to appear where there is none and the nonce of who says so.
const announced = ".voltar-tmp-claim-"

// refusesToReplace tells whether the server keeps to If-None-Match when it takes an object, which some ignore. It is tried
// once.
func (s *Store) refusesToReplace(ctx context.Context) (bool, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	if s.refuses == nil {
		refuses, err := s.askRefuses(ctx)
		if err != nil {
			return false, fmt.Errorf("try whether the server refuses to replace an object: %w", err)
		}
		s.refuses = &refuses
	}
	return *s.refuses, nil
}

// askRefuses stores an object twice. Whoever is refused at first has the answer: another is just trying it, and removes it.
func (s *Store) askRefuses(ctx context.Context) (bool, error) {
	for first := true; ; first = false {
		err := s.putOnce(ctx, s.object(probeKey))
		switch {
		case isCode(err, minio.PreconditionFailed) && first:
			return true, nil
		case isCode(err, minio.PreconditionFailed):
			return true, s.removeProbe(ctx)
		case isUnsupported(err):
		case err != nil:
			return false, err
		case first:
			continue
		}
		s.lacks.add(lacksClaims, "the server does not refuse to replace an object (If-None-Match): whether two runs begin one backup "+
			"at once is seen by listing, for which a listing must show at once what was stored")
		return false, s.removeProbe(ctx)
	}
}

// removeProbe leaves the object where the bucket holds it; the next one who tries is refused by it.
func (s *Store) removeProbe(ctx context.Context) error {
	if err := s.delete(ctx, probeKey); !errors.Is(err, store.ErrLocked) {
		return err
	}
	return nil
}

// putOnce stores an empty object where there is none.
func (s *Store) putOnce(ctx context.Context, object string) error {
	opts := minio.PutObjectOptions{ServerSideEncryption: s.sse}
	opts.SetMatchETagExcept("*")
	return s.appear(ctx, func(ctx context.Context) error { return s.putEmpty(ctx, object, opts) })
}

func (s *Store) putEmpty(ctx context.Context, object string, opts minio.PutObjectOptions) error {
	sum := s.sum.hash()
	headers, md5 := s.sum.headers(sum.Sum(nil))
	opts.DisableContentSha256 = true
	opts.UserMetadata = map[string]string{}
	for name := range headers {
		opts.UserMetadata[name] = headers.Get(name)
	}
	empty := bytes.NewReader(nil)
	payload, err := s.payloadSum(empty)
	if err == nil {
		_, err = s.core.PutObject(ctx, s.opts.Bucket, object, empty, 0, md5, payload, opts)
	}
	return s.withSum(err)
}

// announce says by an object of its own that one is to appear where there is none, and looks whether anybody else says so,
// or it is there. Of two who do this at once, the one who looks last sees the other: one at most goes on, and maybe none.
func (s *Store) announce(ctx context.Context, key string) (release func() error, err error) {
	begin := path.Join(path.Dir(key), "."+path.Base(key)+announced)
	mine := s.object(begin + rand.Text())
	release = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
		defer cancel()
		return s.delete(ctx, s.key(mine))
	}
	err = s.appear(ctx, func(ctx context.Context) error {
		return s.putEmpty(ctx, mine, minio.PutObjectOptions{ServerSideEncryption: s.sse})
	})
	if err == nil {
		err = s.lookAlone(ctx, key, begin)
	}
	if err != nil {
		return nil, errors.Join(err, release())
	}
	return release, nil
}

// lookAlone wants one announcement of an object, and the object not there. The announcements come first: whoever had made
// the object by then may have ended his own meanwhile.
func (s *Store) lookAlone(ctx context.Context, key, begin string) error {
	infos, err := s.list(ctx, "", minio.ListObjectsOptions{Prefix: s.object(begin), Recursive: true})
	if err != nil {
		return err
	}
	if len(infos) != 1 {
		return fmt.Errorf("%w, or there is about to be: somebody else begins it at this moment", store.ErrExists)
	}
	_, err = s.stat(ctx, key, "")
	switch {
	case err == nil:
		return store.ErrExists
	case errors.Is(err, store.ErrNotExist):
		return nil
	}
	return err
}

// sweepAnnounced removes what dead programs announced below a prefix.
func (s *Store) sweepAnnounced(ctx context.Context, prefix string) error {
	infos, err := s.list(ctx, prefix, minio.ListObjectsOptions{Prefix: s.folder(prefix), Recursive: true})
	if err != nil {
		return err
	}
	for _, info := range infos {
		if key := s.key(info.Key); store.CheckKey(key) == nil && durable.IsTemp(path.Base(key)) {
			if err := s.delete(ctx, key); err != nil {
				return err
			}
		}
	}
	return nil
}
