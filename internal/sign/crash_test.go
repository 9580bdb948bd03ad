package sign

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/store"
)

// dying is a store whose host dies around one of its changes: before it, or after it and before anybody learns of it.
type dying struct {
	store.Store
	left  *int // changes until then
	after bool
	dead  *bool
}

var errDead = errors.New("the host is dead")

func newDying(s store.Store, changes int, after bool) dying {
	return dying{s, &changes, after, new(bool)}
}

// change makes a change, or dies around it.
func (d dying) change(do func() error) error {
	if *d.dead {
		return errDead
	}
	*d.left--
	if *d.dead = *d.left < 0; !*d.dead || d.after {
		if err := do(); err != nil {
			return err
		}
	}
	if *d.dead {
		return errDead
	}
	return nil
}

func (d dying) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	if *d.dead {
		return nil, errDead
	}
	w, err := d.Store.Create(ctx, key, opts)
	return dyingWriter{w, d}, err
}

func (d dying) Delete(ctx context.Context, key string) error {
	return d.change(func() error { return d.Store.Delete(ctx, key) })
}

type dyingWriter struct {
	store.Writer
	in dying
}

func (w dyingWriter) Commit(ctx context.Context) (object store.Object, err error) {
	err = w.in.change(func() (err error) {
		object, err = w.Writer.Commit(ctx)
		return err
	})
	return object, errors.Join(err, w.Abort())
}

// deaths has something done by hosts that die around each of its changes, until one lives through it.
func deaths(t *testing.T, do func(t *testing.T, wrap func(store.Store) store.Store) (lived bool)) {
	t.Helper()
	for _, after := range []bool{false, true} {
		lived := false
		for changes := 0; !lived; changes++ {
			if changes > 20 {
				t.Fatal("it never ends")
			}
			lived = do(t, func(s store.Store) store.Store { return newDying(s, changes, after) })
		}
	}
}

// Whenever a host dies while it makes a backup, what stands is signed, and what does not can be swept.
func TestCrashWhileABackupIsMade(t *testing.T) {
	deaths(t, func(t *testing.T, wrap func(store.Store) store.Store) bool {
		plain, signed, key := newSite(t)
		m := manifest("host", night)
		in := Wrap(wrap(plain), Options{Key: key, Trusted: Trusted{key.signer.PublicKey()}})
		d, err := catalog.Begin(t.Context(), in, "host", m.ID(), run, nil)
		if err == nil {
			_, err = d.Commit(t.Context(), m)
			err = errors.Join(err, d.Abort(t.Context()))
		}
		stands, _, sweepErr := catalog.SweepUnfinished(t.Context(), signed, m.ID().Path("host"), run)
		good, untrusted := list(t, signed, "host")
		if sweepErr != nil || untrusted > 0 || stands != (good == 1) || err == nil && good != 1 {
			t.Errorf("made: %v; swept: %v, stands %t; %d good, %d untrusted", err, sweepErr, stands, good, untrusted)
		}
		return err == nil
	})
}

func loaded(t *testing.T, s store.Store, e catalog.Entry) catalog.Backup {
	t.Helper()
	b, err := e.Load(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Whenever a host dies while it amends a backup, what stands is signed, and can be amended again.
func TestCrashWhileABackupIsAmended(t *testing.T) {
	deaths(t, func(t *testing.T, wrap func(store.Store) store.Store) bool {
		plain, signed, key := newSite(t)
		folder := add(t, signed, "host", night)
		amend := func(in store.Store, version string) error {
			l, err := catalog.List(t.Context(), in, "host", catalog.Filter{})
			if err != nil || len(l.Backups) != 1 {
				t.Fatalf("%v, %v", l, err)
			}
			a, err := catalog.Amend(t.Context(), in, loaded(t, in, l.Backups[0]))
			if err != nil {
				t.Fatal(err)
			}
			a.Manifest.Warnings = append(a.Manifest.Warnings, version)
			_, err = a.Commit(t.Context())
			return err
		}
		err := amend(Wrap(wrap(plain), Options{Key: key, Trusted: Trusted{key.signer.PublicKey()}}), "1")
		if good, untrusted := list(t, signed, "host"); good != 1 || untrusted != 0 {
			t.Errorf("amended: %v; %d good, %d untrusted", err, good, untrusted)
		}
		for _, version := range []string{"2", "3"} {
			if err := amend(signed, version); err != nil {
				t.Error(err)
			}
		}
		signature := content(t, plain, path.Join(folder, catalog.SignatureName))
		if n := bytes.Count(signature, []byte("BEGIN SSH SIGNATURE")); n > maxSignatures {
			t.Errorf("there are %d signatures", n)
		}
		return err == nil
	})
}

func content(t *testing.T, s store.Store, key string) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Who cannot sign writes no manifest, and nobody makes a stranger's backup his own by changing it.
func TestManifestsThatCannotBeSigned(t *testing.T) {
	plain, signed, key := newSite(t)
	trusted := Trusted{key.signer.PublicKey()}
	noKey := errors.New("there is no key")
	in := Wrap(plain, Options{Trusted: trusted, NoKey: noKey})
	m := manifest("host", night)
	d, err := catalog.Begin(t.Context(), in, "host", m.ID(), run, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Commit(t.Context(), m); !errors.Is(err, noKey) {
		t.Errorf("without a key: %v", err)
	}
	if err := d.Abort(t.Context()); err != nil {
		t.Fatal(err)
	}
	add(t, plain, "host", night)
	takes := Wrap(plain, Options{Key: key, Trusted: trusted, TakeAll: true})
	l, err := catalog.List(t.Context(), takes, "host", catalog.Filter{})
	if err != nil || len(l.Backups) != 1 {
		t.Fatalf("%v, %v", l, err)
	}
	a, err := catalog.Amend(t.Context(), takes, loaded(t, takes, l.Backups[0]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Commit(t.Context()); !errors.Is(err, catalog.ErrUntrusted) {
		t.Errorf("a stranger's was amended: %v", err)
	}
	if good, untrusted := list(t, signed, "host"); good != 0 || untrusted != 1 {
		t.Errorf("%d good, %d untrusted", good, untrusted)
	}
}

// locking is a store that holds objects.
type locking struct {
	store.Store
	until map[string]time.Time
}

func (l locking) LockFor() time.Duration { return 24 * time.Hour }

func (l locking) Lock(_ context.Context, keys []string, until time.Time) error {
	for _, key := range keys {
		l.until[path.Base(key)] = until
	}
	return nil
}

func (l locking) LockedUntil(_ context.Context, key string) (time.Time, error) {
	return l.until[path.Base(key)], nil
}

func (l locking) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	l.until[path.Base(key)] = opts.LockUntil
	opts.LockUntil = time.Time{}
	return l.Store.Create(ctx, key, opts)
}

// A signature is held as long as its manifest: from when they are made, when they are held anew, and when it comes later.
func TestSignaturesAreHeldAsTheirManifests(t *testing.T) {
	plain, _, key := newSite(t)
	holding := locking{plain, map[string]time.Time{}}
	signed := Wrap(holding, Options{Key: key, Trusted: Trusted{key.signer.PublicKey()}})
	same := func(when string) {
		t.Helper()
		manifest, signature := holding.until[catalog.ManifestName], holding.until[catalog.SignatureName]
		if manifest.IsZero() || !signature.Equal(manifest) {
			t.Errorf("%s: the manifest is held until %s, its signature until %s", when, manifest, signature)
		}
	}
	folder := add(t, signed, "host", night)
	same("made")
	l, err := catalog.List(t.Context(), signed, "host", catalog.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if err := catalog.Hold(t.Context(), signed, l.Backups[0], time.Now().Add(20*time.Hour)); err != nil {
		t.Fatal(err)
	}
	same("held anew")
	if err := plain.Delete(t.Context(), path.Join(folder, catalog.SignatureName)); err != nil {
		t.Fatal(err)
	}
	delete(holding.until, catalog.SignatureName)
	if err := catalog.Hold(t.Context(), Wrap(holding, Options{TakeAll: true}), l.Backups[0], time.Now().Add(40*time.Hour)); err != nil {
		t.Errorf("hold one that is not signed: %v", err)
	}
	u, err := ReadUnsigned(t.Context(), signed, folder)
	if err != nil || u.Signature {
		t.Fatalf("%v, %v", u, err)
	}
	if err := u.Sign(t.Context()); err != nil {
		t.Fatal(err)
	}
	same("signed later")
	if good, untrusted := list(t, signed, "host"); good != 1 || untrusted != 0 {
		t.Errorf("%d good, %d untrusted", good, untrusted)
	}
	if _, err := catalog.Delete(t.Context(), signed, folder); err != nil {
		t.Fatal(err)
	}
	if left, err := plain.List(t.Context(), "host"); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// Of a backup whose manifest was exchanged since it was listed, whoever looks after its files says that it is a stranger's.
func TestExchangedManifestsAreDamage(t *testing.T) {
	plain, signed, _ := newSite(t)
	folder := add(t, signed, "host", night)
	x, err := catalog.ReadStock(t.Context(), signed, "host", catalog.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	copyObject(t, plain, path.Join(folder, catalog.SignatureName), path.Join(folder, "more"))
	copyObject(t, plain, path.Join(folder, catalog.SignatureName), path.Join(folder, catalog.ManifestName))
	lacking, err := x.MarkLacking(t.Context(), signed, manifest("host", night).Source.Identity())
	if err != nil || len(lacking) != 1 {
		t.Errorf("lacking %v, %v", lacking, err)
	}
}
