package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"voltar/internal/catalog"
	"voltar/internal/config"
	"voltar/internal/say"
)

// cutTime cuts "VOLUME@TIME" at its last "@"; one at the beginning belongs to the name.
func cutTime(text string) (name, when string, timed bool) {
	if i := strings.LastIndexByte(text, '@'); i > 0 {
		return text[:i], text[i+1:], true
	}
	return text, "", false
}

// checkTimes refuses names that end in "@": a variable that is not set would take the newest backup for the one that was meant.
func checkTimes(backups []string) error {
	for _, text := range backups {
		if name, when, timed := cutTime(text); timed && when == "" {
			return usageError(say.WithHint(fmt.Errorf("%q has no time behind its @", text),
				fmt.Sprintf("`voltar list %s` shows the times; %s alone means the newest backup", name, name)))
		}
	}
	return nil
}

// refuseTimes refuses names of backups where a command takes those of sources.
func refuseTimes(command string, sources []string) error {
	for _, text := range sources {
		if name, _, timed := cutTime(text); timed {
			return usageError(say.WithHint(fmt.Errorf("%q has a time: voltar %s takes names without one", text, command), "name it as "+name))
		}
	}
	return nil
}

// isNamed tells whether one of the arguments means a backup: VOLUME, a pattern of them, or VOLUME@TIME, cut short or not.
func isNamed(id catalog.ID, args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool {
		name, when, _ := cutTime(arg)
		return (name == id.Ref.Name || refMatcher([]string{name})(id.Ref)) && strings.HasPrefix(catalog.FormatTime(id.Time), when)
	})
}

// unfound is the error of those arguments that mean none of some backups, or nil.
func unfound(args, backups []string) error {
	var errs []error
	for _, arg := range args {
		if !slices.ContainsFunc(backups, func(backup string) bool { return meansBackup(backup, arg) }) {
			errs = append(errs, noBackupFor(arg))
		}
	}
	return errors.Join(errs...)
}

func noBackupFor(arg string) error {
	return say.WithHint(fmt.Errorf("there is no backup for %s", arg), "`voltar list` without a name shows what there is")
}

// meansBackup tells whether an argument means the backup of an identity as it is printed.
func meansBackup(backup, arg string) bool {
	id, err := parseID(backup)
	return err == nil && isNamed(id, []string{arg})
}

// parseID reads the identity of a backup as it is printed.
func parseID(backup string) (catalog.ID, error) {
	name, when, _ := cutTime(backup)
	ref, err := catalog.ParseRef(name)
	if err != nil {
		return catalog.ID{}, err
	}
	at, err := catalog.ParseTime(when)
	return catalog.ID{Ref: ref, Time: at}, err
}

// refMatcher tells whether a source is one of those that patterns name; without patterns all are.
func refMatcher(patterns []string) func(catalog.Ref) bool {
	if len(patterns) == 0 {
		return nil
	}
	return func(ref catalog.Ref) bool {
		group := ref.VG
		if ref.Kind != catalog.SourceVolume {
			group = "@" + string(ref.Kind)
		}
		for _, pattern := range patterns {
			if pattern == ref.String() || config.MatchVolume(pattern, group, ref.Name) {
				return true
			}
		}
		return false
	}
}
