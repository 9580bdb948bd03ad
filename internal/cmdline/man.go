package cmdline

import (
	"fmt"
	"strings"

	"voltar/internal/exitcode"

	"github.com/urfave/cli/v2"
)

// manPage writes a page in the macros of man(7).
type manPage struct {
	strings.Builder
	version string
}

// text escapes what troff would take for its own.
func manText(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", "").Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

func (p *manPage) title(name string, section int, manual string) {
	fmt.Fprintf(p, ".TH %s %d \"\" \"voltar %s\" \"%s\"\n", strings.ToUpper(name), section, manText(p.version), manual)
}

func (p *manPage) section(name string) { p.line(".SH " + strings.ToUpper(name)) }

func (p *manPage) line(s string) { p.WriteString(s + "\n") }

// prose writes text; an empty line begins a paragraph.
func (p *manPage) prose(text string) {
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" {
			p.line(".PP")
			continue
		}
		p.line(manText(line))
	}
}

// item writes a term and what it means.
func (p *manPage) item(term, text string) {
	p.line(".TP")
	p.line(term)
	p.prose(text)
}

func (p *manPage) flags(flags []cli.Flag, leaveOut []cli.Flag) {
	for _, flag := range flags {
		if isIn(flag, leaveOut) {
			continue
		}
		docs, ok := flag.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		var names []string
		placeholder, usage := placeholderOf(docs.GetUsage())
		for _, name := range flag.Names() {
			dashes := "--"
			if len(name) == 1 {
				dashes = "-"
			}
			text := `\fB` + manText(dashes+name) + `\fR`
			if docs.TakesValue() {
				text += ` \fI` + manText(placeholder) + `\fR`
			}
			names = append(names, text)
		}
		p.item(strings.Join(names, ", "), usage)
	}
}

// examples writes command lines, each with what it does.
func (p *manPage) examples(command *cli.Command) {
	for _, e := range Examples(command) {
		p.line(".PP")
		p.line(`.B ` + manText(e.Line))
		p.line(".RS")
		p.prose(e.Text)
		p.line(".RE")
	}
}

// placeholderOf takes the name of a flag's value out of its usage, where it stands between backquotes.
func placeholderOf(usage string) (name, text string) {
	_, rest, found := strings.Cut(usage, "`")
	name, _, closed := strings.Cut(rest, "`")
	if !found || !closed {
		return "VALUE", usage
	}
	return name, strings.ReplaceAll(usage, "`", "")
}

// ProgramPage is voltar(8), made from what the program knows of its subcommands.
func ProgramPage(program *Program) string {
	p := manPage{version: program.Version}
	p.title("voltar", 8, "System Administration")
	p.section("Name")
	p.line(`voltar \- ` + manText(program.Usage))
	p.section("Synopsis")
	p.line(`.B voltar`)
	p.line(`.I COMMAND`)
	p.line(`[\fIOPTION\fR]... [\fIARGUMENT\fR]...`)
	p.section("Description")
	p.prose("voltar backs up the logical volumes of a host. It snapshots each volume, mounts the filesystems in it read-only, and\n" +
		"archives their files to disk or S3 as plain tar.gz files, with a list of checksums and a written recipe. It removes old\n" +
		"backups by a policy, and mails a report. A VOLUME is VG/LV, or LV if that is unique.\n\n" +
		"Results go to standard output, everything else to standard error or, under systemd, to the journal.")
	for _, group := range Groups(program.Commands) {
		p.section(group.Name)
		p.commands("voltar", group.Commands, program.Common)
	}
	p.section("Common options")
	p.line("Each command takes these, before or after its arguments.")
	p.flags(program.Common, nil)
	p.section("Exit status")
	for _, status := range []struct {
		code int
		text string
	}{
		{exitcode.Done, "Done."},
		{exitcode.Nothing, "Nothing succeeded, or nothing was selected."},
		{exitcode.Usage, "The command line or the configuration is wrong."},
		{exitcode.Attention, "Done, but something needs your attention: a volume, a destination or a file failed."},
		{exitcode.Locked, "Another run holds the lock."},
		{exitcode.NotDelivered, "The backups are good, but the report could not be delivered. It goes out with the next run."},
		{exitcode.Interrupted, "Interrupted, and cleaned up."},
		{exitcode.Unread, "Nobody read the output to its end, as after \"voltar list | head\"."},
	} {
		p.item(fmt.Sprintf(`\fB%d\fR`, status.code), status.text)
	}
	p.section("Files")
	p.item(`.I /etc/voltar/voltar.toml`, "The configuration.")
	p.item(`.I /var/lib/voltar`, "Journals of what runs own on the host, past reports, unsent reports.")
	p.item(`.I /run/voltar`, "Locks.")
	p.section("Units")
	p.item(`.I voltar.timer`, "Starts voltar.service every night. Enable it: systemctl enable --now voltar.timer")
	p.item(`.I voltar\-verify.timer`, "Starts voltar-verify.service every week, once it is enabled.")
	p.item(`.I voltar\-drill.timer`, "Starts voltar-drill.service every day, once it is enabled.")
	p.item(`.I voltar\-cleanup.service`, "Removes what a killed run has left, at boot and after such a run.")
	p.section("See also")
	p.line(`.BR voltar.toml (5),`)
	p.line(`.BR lvm (8),`)
	p.line(`.BR systemctl (1)`)
	return p.String()
}

func (p *manPage) commands(path string, list []*cli.Command, common []cli.Flag) {
	for _, command := range list {
		if command.Hidden {
			continue
		}
		name := path + " " + command.Name
		if len(command.Subcommands) > 0 {
			p.commands(name, command.Subcommands, common)
			continue
		}
		heading := `.SS "` + manText(name)
		if command.ArgsUsage != "" {
			heading += " " + manText(command.ArgsUsage)
		}
		p.line(heading + `"`)
		text := command.Description
		if text == "" {
			text = strings.ToUpper(command.Usage[:1]) + command.Usage[1:] + "."
		}
		p.prose(text)
		p.flags(command.Flags, common)
		p.examples(command)
	}
}

// ConfigPage is voltar.toml(5), made from the commented file: tables become sections, comments prose, and keys stand as
// they are written.
func ConfigPage(sample, version string) string {
	p := manPage{version: version}
	p.title("voltar.toml", 5, "File Formats")
	p.section("Name")
	p.line(`voltar.toml \- configuration of voltar(8)`)
	p.section("Description")
	p.prose("/etc/voltar/voltar.toml is a TOML file. An unknown key is an error. voltar reports all errors at once;\n" +
		"voltar check tries the file. Below is every key with its default, or with an example if the default is empty.")
	p.section("General")
	keys := false // a literal block is open
	closeKeys := func() {
		if keys {
			p.line(".fi")
			p.line(".RE")
			p.line(".PP")
		}
		keys = false
	}
	_, rest, _ := strings.Cut(sample, "\n\n") // the head of the file says what stands above
	for line := range strings.Lines(rest) {
		line = strings.TrimRight(line, "\n")
		bare := strings.TrimPrefix(line, "#")
		switch {
		case line == "":
			closeKeys()
			p.line(".PP")
		case strings.HasPrefix(bare, " "):
			closeKeys()
			p.prose(strings.TrimPrefix(bare, " "))
		case strings.HasPrefix(bare, "["):
			closeKeys()
			p.line(".SH " + manText(bare))
		default:
			if !keys {
				p.line(".PP")
				p.line(".RS")
				p.line(".nf")
				keys = true
			}
			p.line(manText(bare))
		}
	}
	closeKeys()
	p.section("See also")
	p.line(`.BR voltar (8)`)
	return p.String()
}
