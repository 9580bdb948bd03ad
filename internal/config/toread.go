package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"voltar/internal/safedir"
)

// LoadToRead is Load for commands that only read backups. At night, with a dead volume, an error in what they do not need must not
// stand in their way: they get what is right, and a warning for the rest. A destination that is wrong says so when it is used
// (Destination.Wrong). What decides whose backups they see and which of them count still has to be right.
func LoadToRead(file string) (c *Config, warnings []error, err error) {
	content, err := safedir.ReadFile(file)
	if err != nil {
		return nil, nil, unreadable(err)
	}
	c, warnings, err = parseToRead(content)
	if err != nil {
		return nil, nil, inFile(file, err)
	}
	for i := range warnings {
		warnings[i] = inFile(file, warnings[i])
	}
	for i := range c.Destinations {
		if d := &c.Destinations[i]; d.Wrong != nil {
			d.Wrong = inFile(file, d.Wrong)
		}
	}
	c.path = file
	return c, warnings, nil
}

// mostFaults is how many parts of a file may be unreadable before it is refused as a whole.
const mostFaults = 20

func parseToRead(content []byte) (c *Config, warnings []error, err error) {
	content, err = plainText(content)
	for range mostFaults {
		if err != nil {
			return nil, nil, err
		}
		var found problems
		var fault *toml.DecodeError
		c, found, err = read(content)
		if errors.As(err, &fault) {
			warnings = append(warnings, explain(err, content))
			content, err = without(content, fault, err)
			continue
		}
		if err != nil {
			return nil, nil, explain(err, content)
		}
		for _, p := range found.list {
			isTold, err := c.goOnWith(p)
			if err != nil {
				return nil, nil, err
			}
			if !isTold {
				warnings = append(warnings, p)
			}
		}
		return c, warnings, nil
	}
	return nil, nil, errors.Join(append(warnings, errors.New("there is more that cannot be read"))...)
}

// toRead are the keys above the first section that decide what commands that only read see, and sign what of it counts.
var toRead = []string{"host", "state_dir", "run_dir", "sign"}

// toReach are the keys of a destination by which it is read. Of it is only written with the others.
var toReach = []string{
	"name", "type", "path", "require_mount",
	"endpoint", "bucket", "prefix", "region", "path_style", "ca_file", "access_key", "secret_key", "instance_role",
}

// goOnWith makes of a configuration in which something is wrong what is right in it, or returns why that is not possible. It
// tells whether whoever needs what is wrong is told so.
func (c *Config) goOnWith(p problem) (isTold bool, err error) {
	section, key, _ := strings.Cut(p.key, ".")
	key, _, _ = strings.Cut(key, ".")
	if slices.Contains(toRead, section) {
		return false, p
	}
	if section == "log" {
		c.Log = Default().Log
	}
	number, isDestination := strings.CutPrefix(section, "destination #")
	n, _ := strconv.Atoi(number) // 0 where it is none
	if !isDestination || n < 1 || n > len(c.Destinations) || p.isUnknown || key != "" && !slices.Contains(toReach, key) ||
		p.isOfWriting {
		return false, nil
	}
	d := &c.Destinations[n-1]
	d.Wrong = errors.Join(d.Wrong, p)
	return true, nil
}

// without is a text without the section in which a fault is, or why it cannot be left out. Above the first section it leaves out
// the one line.
func without(content []byte, fault *toml.DecodeError, cause error) ([]byte, error) {
	row, _ := fault.Position()
	all := strings.Split(string(content), "\n")
	if row < 1 || row > len(all) {
		return nil, explain(cause, content)
	}
	from, end, section := row-1, row, ""
	for from > 0 && tableLine.FindString(all[from]) == "" {
		from--
	}
	if table := tableLine.FindStringSubmatch(all[from]); table != nil {
		section, _, _ = strings.Cut(table[1], ".")
		for end < len(all) && tableLine.FindString(all[end]) == "" {
			end++
		}
	} else if key := fault.Key(); len(key) > 0 {
		section, from = key[0], row-1
	}
	if section == "" || slices.Contains(toRead, section) {
		return nil, explain(cause, content)
	}
	for i := from; i < end; i++ {
		all[i] = "" // the lines of the others stay
	}
	return []byte(strings.Join(all, "\n")), nil
}

// unreadable is the error of a file that cannot be read.
func unreadable(err error) error { return fmt.Errorf("cannot read the configuration: %w", err) }
