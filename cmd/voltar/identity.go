package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"voltar/internal/agefile"
	"voltar/internal/browse"
	"voltar/internal/say"
	"voltar/internal/setup"
)

// decrypt returns what opens encrypted files with the identities in some files. A lenient one reads around damage.
func (a *app) decrypt(s *setup.Setup, files []string, lenient bool) (browse.DecryptFunc, error) {
	identities := &agefile.Identities{}
	for _, path := range files {
		if err := a.addIdentity(s, identities, path); err != nil {
			return nil, usageError(fmt.Errorf("--identity %s: %w", path, err))
		}
	}
	return browse.Decrypt(identities, lenient), nil
}

func (a *app) addIdentity(s *setup.Setup, identities *agefile.Identities, path string) error {
	ask := func() (string, error) { return askPassphrase("Passphrase of " + path + ": ") }
	if path == "-" {
		return identities.Add(a.stdin, ask)
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe that nobody writes into is empty
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	encrypted := false
	err = identities.Add(file, func() (string, error) { encrypted = true; return ask() })
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 && !encrypted {
		s.Log.Warn(fmt.Sprintf("the secret key in %s can be read by others: run `chmod 600 %s`", path, path))
	}
	return err
}

// askPassphrase asks a person, at the terminal and without showing what is typed.
func askPassphrase(prompt string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", say.WithHint(fmt.Errorf("cannot ask for the passphrase: there is no terminal: %w", err),
			"open the identity elsewhere and hand it over: age -d IDENTITY | voltar … --identity -")
	}
	defer tty.Close()
	say.Printf(tty, "%s", prompt)
	text, err := term.ReadPassword(int(tty.Fd()))
	say.Println(tty)
	if err != nil {
		return "", fmt.Errorf("cannot read the passphrase: %w", err)
	}
	return string(text), nil
}
