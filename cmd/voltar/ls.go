package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"voltar/archive"
	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/say"
)

func (a *app) lsCommand() *cli.Command {
	return &cli.Command{
		Name: "ls", Usage: "list the contents of a backup", ArgsUsage: "BACKUP [pN:/PATH...]",
		UsageText: "voltar ls web # the extents of the newest backup\n" +
			"voltar ls -l web p1:/etc\n" +
			"voltar ls -R web@2026-11-20 p1:/home\n" +
			"voltar ls web1:vda # a disk of a guest\n",
		Description: "BACKUP is VOLUME[@TIME]; without a time, the newest. Without a path, lists the extents of a partitioned volume. For a\n" +
			"volume without partitions, give /PATH alone. Reads only the parts of the index that it needs.",
		Flags: []cli.Flag{untrustedFlag(),
			fromFlag(),
			hostFlag(),
			identityFlag(),
			&cli.BoolFlag{Name: "long", Aliases: []string{"l"}, Usage: "show mode, owner, size and time"},
			&cli.BoolFlag{Name: "recursive", Aliases: []string{"R"}, Usage: "also list everything below, with its path"},
		},
		Action: func(c *cli.Context) error {
			o, err := readBrowse(c)
			if err != nil {
				return err
			}
			return a.ls(c.Context, lsOptions{browseOptions: o, long: c.Bool("long"), recursive: c.Bool("recursive")})
		},
	}
}

type lsOptions struct {
	browseOptions
	long, recursive bool
}

func (a *app) ls(ctx context.Context, o lsOptions) error {
	b, meta, err := a.browse(ctx, o.browseOptions)
	if err != nil {
		return err
	}
	texts := o.paths
	if len(texts) == 0 {
		extents := b.Extents()
		if len(extents) != 1 || extents[0].Name != "" || extents[0].State != catalog.StateFiles {
			return a.listExtents(meta, o.json)
		}
		texts = []string{"/"}
	}
	out := bufio.NewWriter(a.stdout)
	l := lister{out: out, long: o.long, recursive: o.recursive, json: o.json}
	if l.json {
		l.out.WriteByte('[')
	}
	for _, text := range texts {
		if err := l.list(ctx, b, text); err != nil {
			return hinted(err, meta)
		}
	}
	if l.json {
		say.Printf(l.out, "\n]\n")
	}
	return out.Flush()
}

// extentLine is one extent in the output of `voltar ls`.
type extentLine struct {
	Extent     string `json:"extent"`
	State      string `json:"state"`
	Filesystem string `json:"filesystem,omitempty"`
	Label      string `json:"label,omitempty"`
	SizeBytes  int64  `json:"size"`
	Entries    int64  `json:"entries"`
	Reason     string `json:"reason,omitempty"`
}

// listExtents shows the ledger of a backup.
func (a *app) listExtents(b catalog.Backup, asJSON bool) error {
	lines := []extentLine{}
	for _, x := range b.Manifest.Extents {
		line := extentLine{Extent: x.Name, State: string(x.State), SizeBytes: x.SizeBytes, Entries: x.Entries, Reason: x.Reason}
		if x.Filesystem != nil {
			line.Filesystem, line.Label = x.Filesystem.Type, x.Filesystem.Label
		}
		lines = append(lines, line)
	}
	if asJSON {
		return a.printJSON(lines)
	}
	table := a.newTable()
	say.Printf(table, "EXTENT\tSTATE\tHOLDS\tLABEL\tSIZE\tFILES\tREASON\n")
	for _, l := range lines {
		if l.Extent == "" {
			l.Extent = "-"
		}
		say.Printf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", l.Extent, l.State, l.Filesystem,
			l.Label, say.Size(l.SizeBytes), l.Entries, l.Reason)
	}
	return table.Flush()
}

// lister prints entries as they come: a listing may have millions.
type lister struct {
	out                   *bufio.Writer
	long, recursive, json bool
	printed               bool
}

// list prints a folder's entries, or the one that is no folder. Like ls(1), it shows what a symbolic link leads to
// unless the listing is long.
func (l *lister) list(ctx context.Context, b *browse.Backup, text string) (err error) {
	place, err := b.Parse(text)
	if err != nil {
		return err
	}
	tree, err := b.Tree(ctx, place.Extent)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	e, err := tree.Lookup(ctx, place.Path, !l.long || strings.HasSuffix(text, "/"))
	if err != nil {
		return err
	}
	if e.Type != archive.TypeDir {
		return l.print(place, e, place.Path)
	}
	return l.listFolder(place, e.Path, tree.List(ctx, e.Path, l.recursive))
}

func (l *lister) listFolder(place browse.Place, dir string, entries iter.Seq2[archive.Entry, error]) error {
	for e, err := range entries {
		if err != nil {
			return err
		}
		name := path.Base(e.Path)
		if l.recursive {
			name = e.Path
			if dir != "." {
				name = strings.TrimPrefix(e.Path, dir+"/")
			}
		}
		if err := l.print(place, e, name); err != nil {
			return err
		}
	}
	return nil
}

// entryLine is one entry in the JSON of `voltar ls`. What is not UTF-8 is in the fields ending in _b64 instead.
type entryLine struct {
	Extent    string `json:"extent"`
	Path      string `json:"path,omitempty"`
	PathB64   []byte `json:"path_b64,omitempty"`
	Type      string `json:"type"`
	SizeBytes int64  `json:"size"`
	Mode      string `json:"mode"`
	UID       uint32 `json:"uid"`
	GID       uint32 `json:"gid"`
	MTime     string `json:"mtime"` // RFC 3339, with more digits if the year has more, which time.Time refuses to write
	Link      string `json:"link,omitempty"`
	LinkB64   []byte `json:"link_b64,omitempty"`
	Damaged   string `json:"damaged,omitempty"`
}

func (l *lister) print(place browse.Place, e archive.Entry, name string) error {
	if l.json {
		return l.printJSON(place, e)
	}
	if !l.long {
		_, err := say.Println(l.out, name)
		return err
	}
	if e.Linkname != "" {
		arrow := " -> "
		if e.Type == archive.TypeHardlink {
			arrow = " link to "
		}
		name += arrow + e.Linkname
	}
	if e.Damaged != "" {
		name += " (damaged when it was backed up: " + e.Damaged + ")"
	}
	size := fmt.Sprint(e.SizeBytes)
	if e.Type == archive.TypeChar || e.Type == archive.TypeBlock {
		size = fmt.Sprintf("%d, %d", e.DevMajor, e.DevMinor)
	}
	_, err := say.Printf(l.out, "%s %5d %5d %12s %s %s\n", modeText(e), e.UID, e.GID, size, shortTime(e.MTime), name)
	return err
}

func (l *lister) printJSON(place browse.Place, e archive.Entry) error {
	line := entryLine{Extent: place.Extent.Name, Path: e.Path, Type: string(e.Type), SizeBytes: e.SizeBytes, Mode: fmt.Sprintf("%04o", e.Mode),
		UID: e.UID, GID: e.GID, MTime: e.MTime.Format(time.RFC3339Nano), Link: e.Linkname, Damaged: e.Damaged}
	if !utf8.ValidString(e.Path) {
		line.Path, line.PathB64 = "", []byte(e.Path)
	}
	if !utf8.ValidString(e.Linkname) {
		line.Link, line.LinkB64 = "", []byte(e.Linkname)
	}
	data, err := say.JSON(line, "")
	if err != nil {
		return err
	}
	if l.printed {
		l.out.WriteByte(',')
	}
	l.printed = true
	_, err = say.Printf(l.out, "\n  %s", data)
	return err
}

// modeText writes a mode as ls(1) does.
func modeText(e archive.Entry) string {
	text := []byte("?rwxrwxrwx")
	switch e.Type {
	case archive.TypeFile, archive.TypeHardlink:
		text[0] = '-'
	default:
		text[0] = e.Type[0]
	}
	for i := range 9 {
		if e.Mode>>(8-i)&1 == 0 {
			text[i+1] = '-'
		}
	}
	for _, special := range []struct {
		bit  uint32
		at   int
		with byte
	}{{0o4000, 3, 's'}, {0o2000, 6, 's'}, {0o1000, 9, 't'}} {
		if e.Mode&special.bit == 0 {
			continue
		}
		if text[special.at] == '-' {
			special.with -= 'a' - 'A' // without the right to execute
		}
		text[special.at] = special.with
	}
	return string(text)
}
