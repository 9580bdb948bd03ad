package backup

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"voltar/internal/durable"
	"voltar/internal/extent"
	"voltar/internal/guests"
)

// storeDefinition keeps what defines the guest beside the disk, and notes whether it has changed. It returns the name of the file, or ""
// where nothing defines the guest.
func (c *candidate) storeDefinition(ctx context.Context, files *extent.Files) (name string, err error) {
	if c.guest == nil || len(c.guest.Definition) == 0 {
		return "", nil
	}
	name = files.Names.Guest()
	var lacking []string
	_, err = files.Out.Write(ctx, name, 0, func(w io.Writer) error {
		packed := gzip.NewWriter(w)
		if lacking, err = c.guest.WriteDefinition(ctx, packed); err != nil {
			return err
		}
		return packed.Close()
	})
	if err != nil {
		return "", fmt.Errorf("store the definition of its guest: %w", err)
	}
	for _, what := range lacking {
		c.warn(fmt.Sprintf("the definition of the guest %s lacks %s", c.guest.Name, what), "the disk itself is backed up all the same")
	}
	c.line.Guest.DefinitionChanged = c.run.definitions.note(*c.guest)
	return name, nil
}

// definitions remember what defined each guest when it was last backed up.
type definitions struct {
	path string

	mu  sync.Mutex
	old map[string]string // sums, by kind and ID
	new map[string]string
}

// Bounds of the file that they are in. Without it, nothing counts as changed.
const (
	maxDefinitions      = 20_000
	maxDefinitionsBytes = 8 << 20
)

// readDefinitions reads what an earlier run noted. What cannot be read was never noted.
func readDefinitions(stateDir string) (*definitions, error) {
	d := &definitions{path: filepath.Join(stateDir, "definitions.json"), old: map[string]string{}, new: map[string]string{}}
	file, err := os.Open(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return d, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxDefinitionsBytes))
	if err == nil {
		err = json.Unmarshal(text, &d.old)
	}
	if err != nil {
		return d, fmt.Errorf("%s: %w", d.path, err)
	}
	return d, nil
}

// note notes what defines a guest, and tells whether that has changed. The file of a transient machine says other things each time that
// it is started.
func (d *definitions) note(g guests.Guest) (changed bool) {
	if g.Transient {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := string(g.Kind) + " " + g.ID
	d.new[key] = g.Sum()
	before, known := d.old[key]
	return known && before != d.new[key]
}

// save keeps what was noted, and of the guests that this run did not back up what was noted before.
func (d *definitions) save() error {
	if len(d.new) == 0 {
		return nil
	}
	for key, sum := range d.old {
		if _, noted := d.new[key]; !noted && len(d.new) < maxDefinitions {
			d.new[key] = sum
		}
	}
	text, err := json.Marshal(d.new)
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(filepath.Dir(d.path), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(d.path, text, 0o600)
}
