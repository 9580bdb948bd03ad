package config

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"voltar/internal/safedir"
)

func TestConfigurationOfOthersIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "voltar.toml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err != nil {
		t.Errorf("a file of one's own: %v", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); !errors.Is(err, safedir.ErrUntrusted) {
		t.Errorf("a file that a group may write to: %v", err)
	}
}
