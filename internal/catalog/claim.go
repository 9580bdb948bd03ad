package catalog

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"voltar/internal/say"
	"voltar/internal/store"
)

// ClaimName is the marker in the folder of a backup that is being written: the run that alone may write there. It is the
// first object of the folder, and goes when the backup stands.
const ClaimName = "voltar.claim"

var (
	// ErrTaken is wrapped by the error of a backup that was to be begun in a folder that holds something.
	ErrTaken = errors.New("there is a backup of that time already")
	// ErrNames is wrapped by the error of a store that keeps a name under another one, where two sources would fall together.
	ErrNames = errors.New("it does not keep names as they are")
	// ErrLeft is wrapped by the error of a backup that could not be begun, and whose claim may be left in the store.
	ErrLeft = errors.New("its claim may be left")
)

// claim is the content of a marker.
type claim struct {
	Format string `json:"format"`
	Run    string `json:"run"`
	Nonce  string `json:"nonce"` // two runs of cloned machines may have one ID
}

func newClaim(run string) ([]byte, error) {
	return encodeJSON(claim{Format: Format, Run: run, Nonce: rand.Text()})
}

// claimTimeout bounds how long a claim that came to nothing may take to be taken back.
const claimTimeout = time.Minute

// claim makes the folder of the draft that of this run alone.
func (d *Draft) claim(ctx context.Context, run string) (err error) {
	if d.mark, err = newClaim(run); err != nil {
		return err
	}
	err = writeFirst(ctx, d.store, d.key(ClaimName), d.mark, store.PutOptions{Tags: d.tags})
	// Whoever gives the folder up now sweeps it, and our unfinished claim goes with it.
	if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotExist) {
		return ErrTaken
	}
	if err == nil {
		err = errors.Join(d.checkEmpty(ctx), checkNames(ctx, d.store, d.host, d.id.Ref.String()))
	}
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimTimeout)
	defer cancel()
	if back := d.Abort(ctx); back != nil {
		return fmt.Errorf("%w: %w: %w", err, ErrLeft, back)
	}
	return err
}

// checkEmpty wants nothing but the claim in the folder.
func (d *Draft) checkEmpty(ctx context.Context) error {
	objects, err := d.store.List(ctx, d.Path())
	if err != nil {
		return err
	}
	if slices.ContainsFunc(objects, func(o store.Object) bool { return o.Key != d.key(ClaimName) }) {
		return ErrTaken
	}
	return nil
}

// checkNames looks whether a store shows each folder of a path below another under its own name. Filesystems that do not
// tell capitals from small letters, or drop dots at the end, show the name of what came first.
func checkNames(ctx context.Context, s store.Store, below, folder string) error {
	for name := range strings.SplitSeq(folder, "/") {
		names, err := s.Folders(ctx, below)
		if err != nil {
			return err
		}
		if !slices.Contains(names, name) {
			return namesError(below, name, names)
		}
		below = path.Join(below, name)
	}
	return nil
}

func namesError(below, name string, names []string) error {
	as := "another one"
	if i := slices.IndexFunc(names, func(other string) bool { return fold(other) == fold(name) }); i >= 0 {
		as = fmt.Sprintf("%q", names[i])
	}
	return say.WithHint(fmt.Errorf("%w: %q shows up as %s in %q, so two sources would fall together", ErrNames, name, as,
		strings.TrimPrefix(below, "/")), "rename one of the two, or use a filesystem that tells such names apart, such as ext4 or xfs")
}

// fold is what filesystems make of a name that do not tell such names apart.
func fold(name string) string { return strings.ToLower(strings.TrimRight(name, ". ")) }

// isMine tells whether the folder's claim is still that of this draft, and fails where it is another's.
func (d *Draft) isMine(ctx context.Context) (bool, error) {
	held, _, err := read(ctx, d.store, d.key(ClaimName), maxMarkerBytes)
	switch {
	case errors.Is(err, store.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !bytes.Equal(held, d.mark):
		return false, fmt.Errorf("%w: another run has claimed it", ErrTaken)
	}
	return true, nil
}

// claimant returns the run that has claimed a folder, or "" where none has. What cannot be read was left by a power cut.
func claimant(ctx context.Context, s store.Store, folder string) (string, error) {
	data, _, err := read(ctx, s, path.Join(folder, ClaimName), maxMarkerBytes)
	if errors.Is(err, store.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return runOf(data), nil
}

// runOf returns the run that a marker names, or "" for a marker of no use.
func runOf(marker []byte) string {
	var held claim
	if err := decodeJSON(marker, &held); err != nil {
		return ""
	}
	return held.Run
}

// writeFirst writes a small object where there is none. It is no error when the object is there already as it was to be
// written: the store's answer to an earlier try was lost.
func writeFirst(ctx context.Context, s store.Store, key string, data []byte, opts store.PutOptions) error {
	opts.IfAbsent = true
	err := write(ctx, s, key, data, opts)
	if !errors.Is(err, store.ErrExists) {
		return err
	}
	if held, _, readErr := read(ctx, s, key, int64(len(data))); readErr == nil && bytes.Equal(held, data) {
		return nil
	}
	return err
}
