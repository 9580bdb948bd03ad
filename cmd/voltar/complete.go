package main

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"voltar/internal/catalog"
	"voltar/internal/cmdline"
	"voltar/internal/config"
	"voltar/internal/history"
	"voltar/internal/say"
	"voltar/internal/setup"
	"voltar/report"
)

// completeTimeout bounds how long a person at a prompt waits for what a word can be. What is not known by then is not shown.
const completeTimeout = 10 * time.Second

// Kinds of words that this program completes.
const (
	ofVolume      cmdline.Kind = "volume"      // of this host
	ofSource      cmdline.Kind = "source"      // that has backups
	ofBackup      cmdline.Kind = "backup"      // VOLUME[@TIME]
	ofDestination cmdline.Kind = "destination" // of the configuration
	ofPlace       cmdline.Kind = "place"       // a destination, or a folder
	ofHost        cmdline.Kind = "host"        // that has backups
	ofStream      cmdline.Kind = "stream"
	ofRun         cmdline.Kind = "run" // of the history
	ofSet         cmdline.Kind = "set" // of kept snapshots
)

// completion says what the words of each command can be. A kind with bars lists the words itself.
func completion() cmdline.Completion {
	return cmdline.Completion{
		Arguments: map[string][]cmdline.Kind{
			"run": {ofVolume}, "cancel": {ofVolume, cmdline.KindNone}, "volumes": {ofVolume}, "snapshot create": {ofVolume},
			"list": {ofSource}, "prune": {ofSource}, "forget": {ofBackup},
			"restore": {ofBackup, cmdline.KindNone}, "ls": {ofBackup, cmdline.KindNone}, "cat": {ofBackup, cmdline.KindNone},
			"extract": {ofBackup, cmdline.KindNone}, "verify": {ofBackup}, "drill": {ofBackup}, "copy": {ofBackup}, "sign": {ofBackup},
			"mount":  {ofBackup, cmdline.KindFolder, cmdline.KindNone},
			"stream": {ofStream, cmdline.KindNone}, "report": {ofRun, cmdline.KindNone},
			"snapshot list": {ofSet, cmdline.KindNone}, "snapshot remove": {ofSet, cmdline.KindNone}, "snapshot merge": {ofSet, cmdline.KindNone},
			"help": {cmdline.KindCommand, cmdline.KindNone}, "completion": {"bash|zsh|fish", cmdline.KindNone},
		},
		Flags: map[string]cmdline.Kind{
			"--config": cmdline.KindFile, "--log-level": "debug|info|warn|error", "--identity": cmdline.KindFile,
			"--from": ofPlace, "--host": ofHost, "--to": cmdline.KindFolder, "copy --from": ofDestination, "copy --to": ofDestination,
			"sign --from": ofDestination, "forget --from": ofDestination,
			"report --from": ofDestination, "--html": cmdline.KindFile, "--trend": cmdline.KindFile,
			"--to-lv": ofVolume, "--to-device": cmdline.KindFile, "--to-image": cmdline.KindFile, "--to-dir": cmdline.KindFolder,
			"--guest": ofBackup, "--overwrite": "never|replace|keep", "--verify": "first|stream|none", "--name": ofSet,
		},
	}
}

// completeCommand is what the shells' scripts ask. Whatever goes wrong, it has no answer and says nothing.
func (a *app) completeCommand(p *cmdline.Program) *cli.Command {
	return &cli.Command{
		Name: "complete", Usage: "list what may stand in place of the last word", ArgsUsage: "-- WORD...", Hidden: true, SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			ctx, cancel := context.WithTimeout(c.Context, completeTimeout)
			defer cancel()
			words := c.Args().Slice()
			if at := slices.Index(words, "--"); at >= 0 { // what stands before are flags, as if of the line that is completed
				words = slices.Concat(words[:at], words[at+1:])
			}
			of := completion()
			of.Values = func(kind cmdline.Kind, beginning string, line cmdline.Line) []cmdline.Candidate {
				return a.candidates(ctx, kind, beginning, line)
			}
			list, shell := p.Complete(of, words)
			return cmdline.Print(a.rawOut, list, shell)
		},
	}
}

// candidates lists the words of a kind.
func (a *app) candidates(ctx context.Context, kind cmdline.Kind, beginning string, line cmdline.Line) []cmdline.Candidate {
	if strings.Contains(string(kind), "|") {
		return words(strings.Split(string(kind), "|"), "")
	}
	common := commonOptions{config: cmp.Or(line.Value("config"), os.Getenv(configVariable))}
	opts := a.setupOptions(setupOptions{commonOptions: common, lookup: true, readOnly: true})
	opts.Log = func(string) (*slog.Logger, error) { return slog.New(slog.DiscardHandler), nil }
	s, err := setup.New("", opts)
	if err != nil {
		return nil
	}
	s.Config.FoundBy.Command = nil // a person at a prompt does not wait for another program's answer
	switch kind {
	case ofVolume:
		return volumeCandidates(ctx, s, beginning)
	case ofDestination, ofPlace:
		return words(say.Names(s.Config.Destinations, func(d config.Destination) string { return d.Name }), "destination")
	case ofStream:
		return words(say.Names(s.Config.Streams, func(d config.Dump) string { return d.Name }), "stream")
	case ofRun:
		return runCandidates(s)
	case ofSet:
		return setCandidates(ctx, s)
	}
	stores, err := s.StoresFrom(line.Value("from"))
	if err != nil {
		return nil
	}
	if kind == ofHost {
		hosts, _ := hostsOn(ctx, stores) // completion says nothing of what fails
		return words(hosts, "host")
	}
	return backupCandidates(ctx, s, stores, s.HostOr(line.Value("host")), kind, beginning)
}

func words(list []string, text string) []cmdline.Candidate {
	var candidates []cmdline.Candidate
	for _, word := range list {
		candidates = append(candidates, cmdline.Candidate{Word: word, Text: text})
	}
	return candidates
}

// volumeCandidates are the volumes of the host and the directories and dumps of the configuration, by their full names, or by
// their short ones where a person has begun one.
func volumeCandidates(ctx context.Context, s *setup.Setup, beginning string) []cmdline.Candidate {
	var list []cmdline.Candidate
	for _, d := range s.Config.Directories {
		list = append(list, cmdline.Candidate{Word: "@directory/" + d.Name, Text: d.Path})
	}
	engine, err := s.Engine(nil)
	if err != nil {
		return list
	}
	if plan, err := engine.Plan(ctx, nil); err == nil {
		for _, g := range plan.Guests.Guests {
			if len(g.Disks) > 0 {
				list = append(list, cmdline.Candidate{Word: g.Name, Text: "guest"})
			}
		}
		for _, c := range plan.Choices {
			text := "volume"
			if c.Rule != "" {
				text = "left out: " + c.Reason
			}
			list = append(list, cmdline.Candidate{Word: c.Name(), Text: text})
			if beginning != "" {
				list = append(list, cmdline.Candidate{Word: c.Volume.Name, Text: text})
			}
		}
	}
	return list
}

func runCandidates(s *setup.Setup) []cmdline.Candidate {
	const shown = 50
	runs, err := s.Past().List(shown)
	if err != nil && len(runs) == 0 {
		return nil
	}
	list := []cmdline.Candidate{{Word: history.Last, Text: "the last run"}}
	for _, run := range runs {
		list = append(list, cmdline.Candidate{Word: run.ID, Text: report.Subject(run)})
	}
	return list
}

func setCandidates(ctx context.Context, s *setup.Setup) []cmdline.Candidate {
	engine, err := s.Engine(nil)
	if err != nil {
		return nil
	}
	kept, err := engine.ListKept(ctx, "")
	if err != nil {
		return nil
	}
	var sets []string
	for _, k := range kept {
		sets = append(sets, k.Name)
	}
	slices.Sort(sets)
	return words(slices.Compact(sets), "snapshots")
}

// backupCandidates are the sources that have backups; where a person has chosen one, and "@", its backups.
func backupCandidates(
	ctx context.Context, s *setup.Setup, stores []setup.Destination, host string, kind cmdline.Kind, beginning string,
) []cmdline.Candidate {
	at := strings.LastIndexByte(beginning, '@')
	filter, source := catalog.Filter{Newest: 1, Now: s.Now(), Known: s.Known()}, ""
	withTime := kind == ofBackup && at > 0
	if withTime {
		filter.Newest, source = 0, beginning[:at]
	}
	var list []cmdline.Candidate
	for _, l := range catalog.ListMeant(ctx, setup.Named(stores), host, source, filter) {
		if l.Err != nil {
			continue
		}
		for _, b := range l.Backups {
			switch {
			case withTime:
				list = append(list, cmdline.Candidate{Word: beginning[:at+1] + catalog.FormatTime(b.ID.Time), Text: shortTime(b.ID.Time)})
				continue
			case beginning != "":
				list = append(list, cmdline.Candidate{Word: b.ID.Ref.Name, Text: "source"})
				if !b.Guest.IsZero() {
					list = append(list, cmdline.Candidate{Word: b.Guest.Name, Text: "guest"},
						cmdline.Candidate{Word: b.Guest.String(), Text: b.ID.Ref.String()})
				}
			}
			list = append(list, cmdline.Candidate{Word: b.ID.Ref.String(), Text: "source"})
		}
	}
	slices.SortFunc(list, func(a, b cmdline.Candidate) int { return strings.Compare(b.Word, a.Word) })
	return slices.Compact(list)
}
