package catalog

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"voltar/internal/store"
)

// Owner is the marker HOST/voltar.json: the machine that a host's folder belongs to. Hosts that share a store share
// names of volume groups too, and two that went by one name would prune each other's backups.
type Owner struct {
	Format    string    `json:"format"`
	Host      string    `json:"host"`
	MachineID string    `json:"machine_id"`
	Since     time.Time `json:"since"`
}

// ForeignError tells that a host's folder belongs to another machine.
type ForeignError struct {
	Where  string // the store and the folder in it
	Theirs Owner
	Ours   Host
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s belongs to another machine: its marker names host %q with machine ID %s, this is host %q with "+
		"machine ID %s", e.Where, e.Theirs.Host, e.Theirs.MachineID, e.Ours.Name, e.Ours.MachineID)
}

// Hint says what a person can do about it.
func (e *ForeignError) Hint() string {
	return fmt.Sprintf("give this machine a host name of its own in the configuration; if it replaces the other one, remove %s/%s",
		e.Where, MarkerName)
}

func markerKey(host string) string { return path.Join(host, MarkerName) }

// ReadOwner reads the marker of a host's folder. The error wraps store.ErrNotExist where there is none.
func ReadOwner(ctx context.Context, s store.Store, host string) (Owner, error) {
	if err := CheckHost(host); err != nil {
		return Owner{}, err
	}
	data, _, err := read(ctx, s, markerKey(host), maxMarkerBytes)
	if err != nil {
		return Owner{}, fmt.Errorf("read the owner of %s in %s: %w", host, s, err)
	}
	var owner Owner
	if err := decodeJSON(data, &owner); err != nil {
		return Owner{}, fmt.Errorf("read the owner of %s in %s: %w", host, s, err)
	}
	if owner.MachineID == "" || owner.Host == "" {
		return Owner{}, fmt.Errorf("read the owner of %s in %s: %w: it names no machine", host, s, ErrDamaged)
	}
	return owner, nil
}

// CheckOwner returns a *ForeignError when the folder of this host belongs to another machine. A folder without a marker
// belongs to nobody, and is no error.
func CheckOwner(ctx context.Context, s store.Store, us Host) error {
	owner, err := ReadOwner(ctx, s, us.Name)
	if errors.Is(err, store.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if owner.MachineID != us.MachineID {
		return &ForeignError{Where: path.Join(s.String(), us.Name), Theirs: owner, Ours: us}
	}
	return nil
}

// Claim makes sure that the folder of this host belongs to this machine, and writes the marker where there is none. It
// must come before the first backup of every run. When two machines claim one folder in the same instant, one has it. A
// store that shows the folder under another name is refused with ErrNames.
func Claim(ctx context.Context, s store.Store, us Host, now time.Time) error {
	if us.MachineID == "" {
		return errors.New("cannot claim a folder without a machine ID")
	}
	_, err := ReadOwner(ctx, s, us.Name)
	if errors.Is(err, store.ErrNotExist) {
		err = writeOwner(ctx, s, Owner{Format: Format, Host: us.Name, MachineID: us.MachineID, Since: now.UTC()})
	}
	if err != nil && !errors.Is(err, store.ErrExists) {
		return err
	}
	if err := checkNames(ctx, s, "", us.Name); err != nil {
		return fmt.Errorf("claim %s in %s: %w", us.Name, s, err)
	}
	return CheckOwner(ctx, s, us)
}

func writeOwner(ctx context.Context, s store.Store, owner Owner) error {
	data, err := encodeJSON(owner)
	if err != nil {
		return err
	}
	if err := writeFirst(ctx, s, markerKey(owner.Host), data, store.PutOptions{}); err != nil {
		return fmt.Errorf("claim %s in %s: %w", owner.Host, s, err)
	}
	return nil
}

// Hosts lists the hosts that have a marker in a store, sorted.
func Hosts(ctx context.Context, s store.Store) ([]string, error) {
	names, err := s.Folders(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("list the hosts in %s: %w", s, err)
	}
	// What cannot be a host is a file system's or a file server's own, like .snapshot.
	names = slices.DeleteFunc(names, func(name string) bool { return CheckHost(name) != nil })
	hosts, err := gather(ctx, names, func(ctx context.Context, name string) ([]string, error) {
		_, err := s.Stat(ctx, markerKey(name))
		if errors.Is(err, store.ErrNotExist) {
			return nil, nil
		}
		return []string{name}, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the hosts in %s: %w", s, err)
	}
	slices.Sort(hosts)
	return hosts, nil
}
