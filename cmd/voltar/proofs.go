package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"voltar/internal/config"
	"voltar/internal/history"
	"voltar/internal/say"
	"voltar/report"
)

// proofsFlags are those of `voltar report` for restores.
func proofsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "proofs", Usage: "report which drills and restores there were, and what they took"},
		&cli.StringFlag{Name: "since", DefaultText: "365d", Usage: "with --proofs: those of the last `AGE`"},
		&cli.BoolFlag{Name: "csv", Usage: "with --proofs: as a table for spreadsheets"},
	}
}

// proofsAge is how far back the proofs go unless a flag says otherwise.
const proofsAge = 365 * 24 * time.Hour

type proofsOptions struct {
	setupOptions
	since time.Duration
	csv   bool
}

func readProofs(c *cli.Context) (proofsOptions, error) {
	o := proofsOptions{setupOptions: setupOptions{commonOptions: readCommon(c), lookup: true}, csv: c.Bool("csv")}
	for _, name := range []string{"fleet", "html", "trend", "send", "list", "older-than", "from", "except"} {
		if c.IsSet(name) {
			return o, usageError(fmt.Errorf("--%s does not go with --proofs", name))
		}
	}
	if o.csv && o.json {
		return o, usageError(errors.New("--csv and --json cannot both go to standard output"))
	}
	if c.NArg() > 0 {
		return o, usageError(errors.New("--proofs is about all drills and restores: name no run"))
	}
	since := config.Duration(proofsAge)
	if text := c.String("since"); text != "" {
		if err := since.UnmarshalText([]byte(text)); err != nil {
			return o, usageError(fmt.Errorf("--since: %w", err))
		}
	}
	o.since = since.Span()
	return o, nil
}

// proofs prints what drills and restores have proven.
func (a *app) proofs(o proofsOptions) error {
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return err
	}
	runs, err := s.Past().Earlier()
	if err != nil {
		s.Log.Warn("the history cannot be read completely", "err", err)
	}
	all := history.ProofsSince(runs, s.Host, a.now().UTC().Add(-o.since))
	switch {
	case o.csv:
		return a.writeProofsCSV(all.Proofs)
	case o.json:
		return a.printJSON(all)
	}
	return a.printProofs(all)
}

// printProofs prints each volume with what its proofs come to, and then the proofs themselves.
func (a *app) printProofs(all history.Proofs) error {
	table := a.newTable()
	say.Printf(table, "VOLUME\tLAST RESTORED\tPROVEN\tFAILED\tBACK IN\tMEDIAN\tWORST\n")
	for _, v := range all.Volumes {
		last := "never"
		if !v.LastRestored.IsZero() {
			last = shortTime(v.LastRestored)
		}
		say.Printf(table, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n", nameAndGuest(v.Volume, v.Guest), last, v.Proofs, v.Failed,
			secondsWords(v.LastSeconds), secondsWords(v.MedianSeconds), secondsWords(v.WorstSeconds))
	}
	if len(all.Proofs) > 0 {
		say.Printf(table, "\nTIME\tWHAT\tBACKUP\tFROM\tRESULT\tBACK IN\tCHECKED\n")
	}
	for _, p := range all.Proofs {
		say.Printf(table, "%s\t%s to %s\t%s\t%s\t%s\t%s\t%s\n", shortTime(p.Time), p.Command, p.To, p.Backup, p.Destination, p.Verdict,
			secondsWords(p.Seconds), strings.Join(p.Checked, ", "))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	say.Printf(a.stdout, "\n%s since %s, of %s; %d never restored.\n", restores(len(all.Proofs)), shortTime(all.Since),
		say.Counted(len(all.Volumes), "volume"), all.Never)
	if all.RestoreAll != nil {
		say.Printf(a.stdout, "Time to restore all: %s.\n", all.RestoreAll.String())
	}
	return nil
}

// restores is a number of restores in words.
func restores(n int) string {
	if n == 1 {
		return "1 drill or restore"
	}
	return fmt.Sprintf("%d drills and restores", n)
}

// nameAndGuest names a volume, and whose disk it is.
func nameAndGuest(volume, guest string) string {
	if guest == "" {
		return volume
	}
	return volume + " (" + guest + ")"
}

// secondsWords is a duration for people; none was measured for 0.
func secondsWords(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	return report.FormatDuration(time.Duration(seconds * float64(time.Second)))
}

// writeProofsCSV writes a line for each proof (RFC 4180).
func (a *app) writeProofsCSV(proofs []history.Proof) error {
	w := csv.NewWriter(a.stdout)
	rows := [][]string{{"time", "command", "volume", "guest", "backup", "destination", "to", "verdict", "seconds", "total_seconds", "stored",
		"written", "checked", "error"}}
	seconds := func(s float64) string { return strconv.FormatFloat(s, 'f', 1, 64) }
	for _, p := range proofs {
		row := []string{p.Time.UTC().Format(time.RFC3339), p.Command, p.Volume, noFormula(p.Guest), p.Backup,
			p.Destination, p.To, string(p.Verdict), seconds(p.Seconds), seconds(p.TotalSeconds), strconv.FormatInt(p.StoredBytes, 10),
			strconv.FormatInt(p.WrittenBytes, 10), strings.Join(p.Checked, " "), noFormula(p.Error)}
		for i, cell := range row {
			row[i] = say.Clean(cell)
		}
		rows = append(rows, row)
	}
	return w.WriteAll(rows)
}

// noFormula is a text in one line that a spreadsheet takes for nothing else.
func noFormula(text string) string {
	text = strings.ReplaceAll(text, "\n", "; ")
	if strings.ContainsAny(text[:min(len(text), 1)], "=+-@\t\r") {
		return "'" + text
	}
	return text
}
