//go:build pictures

package report

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
	for name, p := range map[string]Page{"fleet-of-20-hosts": fleetPage(20, 60), "one-host": hostPage(), "hostile": hostilePage()} {
		keepPictures(t, b, "page-"+name, statusPage(t, p), looks(400, 900, 1024, 1280, 1600))
	}
}

// The page's own script runs under the policy that forbids all others: it finds volumes, puts all back, and tells that the page has
// become old.
func TestPageScript(t *testing.T) {
	b := newBrowser(t)
	show := func(p Page) {
		file := filepath.Join(t.TempDir(), "page.html")
		if err := os.WriteFile(file, []byte(statusPage(t, p)), 0o600); err != nil {
			t.Fatal(err)
		}
		b.show(file, look{1600, false})
	}
	p := fleetPage(20, 60)
	p.Made = time.Now()
	show(p)
	count := func() (n int) {
		b.eval(`[...document.querySelectorAll("tbody tr")].filter(row => row.checkVisibility()).length`, &n)
		return n
	}
	search := func(text string) {
		b.eval(fmt.Sprintf(`{ const s = document.getElementById("search"); s.value = %q; s.dispatchEvent(new Event("input")) }`, text), nil)
	}
	before := count()
	search("VOLUME-00000500")
	if n := count(); n != 1 {
		t.Errorf("%d volumes found by name", n)
	}
	search("host-07")
	if n := count(); n != 60 {
		t.Errorf("%d volumes found by host", n)
	}
	search("")
	if n := count(); n != before {
		t.Errorf("%d rows after the search, %d before", n, before)
	}
	old := func() (shown bool) {
		b.eval(`!document.getElementById("old").hidden`, &shown)
		return shown
	}
	if old() {
		t.Error("a fresh page calls itself old")
	}
	p.Made = time.Now().Add(-27 * time.Hour)
	if show(p); !old() {
		t.Error("an old page does not say so")
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
