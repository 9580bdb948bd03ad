package agefile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// Identities are secret keys, one of which opens what is encrypted for its public half.
type Identities struct {
	list []age.Identity
	keys []string // public, for messages
}

// Add reads the identities of a file: as age-keygen writes it, or encrypted with a passphrase as `age --passphrase`
// does, armored or not. The passphrase is asked for only then.
func (i *Identities) Add(file io.Reader, passphrase func() (string, error)) error {
	buffered := bufio.NewReader(io.LimitReader(file, maxKeyFileBytes))
	text, err := openKeyFile(buffered, passphrase)
	if err != nil {
		return err
	}
	list, err := age.ParseIdentities(text)
	if err != nil {
		return fmt.Errorf("cannot read identities: %w", err) // which never has the key in its text
	}
	for _, identity := range list {
		i.list = append(i.list, identity)
		switch identity := identity.(type) {
		case *age.X25519Identity:
			i.keys = append(i.keys, identity.Recipient().String())
		case *age.HybridIdentity:
			i.keys = append(i.keys, identity.Recipient().String())
		}
	}
	return nil
}

// openKeyFile decrypts a file of identities that has a passphrase.
func openKeyFile(file *bufio.Reader, passphrase func() (string, error)) (io.Reader, error) {
	head, _ := file.Peek(max(len(Format), len(armor.Header))) // a shorter file is neither
	var encrypted io.Reader
	switch {
	case bytes.HasPrefix(head, []byte(armor.Header)):
		encrypted = armor.NewReader(file)
	case bytes.HasPrefix(head, []byte(Format)):
		encrypted = file
	default:
		return file, nil
	}
	secret, err := passphrase()
	if err != nil {
		return nil, err
	}
	identity, err := age.NewScryptIdentity(secret)
	if err != nil {
		return nil, fmt.Errorf("cannot use the passphrase: %w", err)
	}
	text, err := age.Decrypt(encrypted, identity)
	var noMatch *age.NoIdentityMatchError
	if errors.As(err, &noMatch) {
		return nil, errors.New("cannot open the identity: it is the wrong passphrase, or the file is not encrypted with one")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the identity: %w", err)
	}
	return text, nil
}

// None says that there is not a single identity.
func (i *Identities) None() bool { return i == nil || len(i.list) == 0 }

// String names the public keys that the identities belong to.
func (i *Identities) String() string { return strings.Join(i.keys, ", ") }
