//go:build pictures

package report

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pictureFolder is where the pictures go, seen from this folder.
const pictureFolder = "../pictures"

func looks(widths ...int) (list []look) {
	for _, width := range widths {
		list = append(list, look{width, false}, look{width, true})
	}
	return list
}

// keepPictures shows a page in every look, keeps a picture of each and reports what is wrong with its layout.
func keepPictures(t *testing.T, b *browser, name, page string, list []look) {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".html")
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		b.show(file, l)
		for _, fault := range b.faults() {
			t.Errorf("%s at %s: %s", name, l, fault)
		}
		path := filepath.Join(pictureFolder, name+"-"+l.String()+".png")
		if err := os.WriteFile(path, b.picture(l.Width), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPictures renders the mails and pages that people see, in a real browser, and looks at their layout. `make pictures` runs
// it; the pictures are for people to look at.
func TestPictures(t *testing.T) {
	if err := os.MkdirAll(pictureFolder, 0o755); err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t)
	for _, f := range mailFixtures() {
		trend, err := TrendPNG(append(f.opts.History, PointOf(f.run)))
		if err != nil {
			t.Fatal(err)
		}
		page := html(t, f)
		if trend != nil {
			page = strings.ReplaceAll(page, "cid:trend@voltar", "data:image/png;base64,"+base64.StdEncoding.EncodeToString(trend))
		}
		keepPictures(t, b, "mail-"+f.name, page, looks(400, 900))
	}
}

// The layout checks see what they are for.
func TestLayoutFaultsAreSeen(t *testing.T) {
	b := newBrowser(t)
	for want, body := range map[string]string{
		"wide":       `<div style="width:900px">x</div>`,
		"stands out": `<div style="position:absolute;left:-40px">to the left</div>`,
		"overlap":    `<div>one line of text</div><div style="margin-top:-12px">another line</div>`,
		"hardly":     `<div style="color:#999;background:#aaa">grey</div>`,
		"is cut off": `<div style="width:50px;overflow:hidden;white-space:nowrap">a long line of text</div>`,
		"":           `<div>well</div><div>and well</div>`,
		"hardly be":  `<div style="background:#000">black on black</div>`,
	} {
		file := filepath.Join(t.TempDir(), "page.html")
		if err := os.WriteFile(file, []byte(`<!DOCTYPE html><meta name="viewport" content="width=device-width"><body>`+body), 0o600); err != nil {
			t.Fatal(err)
		}
		b.show(file, look{400, false})
		found := b.faults()
		if (len(found) == 0) != (want == "") || !strings.Contains(fmt.Sprint(found), want) {
			t.Errorf("%s: found %q, want %q", body, found, want)
		}
	}
}
