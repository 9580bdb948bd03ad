//go:build pictures

package report

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// browser is a headless Chromium, driven over the DevTools protocol through pipes: each message ends with a zero byte.
type browser struct {
	t       *testing.T
	to      io.Writer
	from    *bufio.Reader
	last    int
	session string
}

// browserPatience bounds the life of the browser: one that hangs fails the test.
const browserPatience = 15 * time.Minute

func newBrowser(t *testing.T) *browser {
	t.Helper()
	fromUs, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, toUs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("chromium", "--headless", "--log-level=3", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--force-color-profile=srgb", "--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{fromUs, toUs} // 3 and 4 of the browser
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("cannot start chromium, which `make pictures` installs: %v", err)
	}
	if err := errors.Join(fromUs.Close(), toUs.Close()); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(browserPatience, func() { _ = cmd.Process.Kill() }) // what is read then says so
	b := &browser{t: t, to: to, from: bufio.NewReader(from)}
	t.Cleanup(func() {
		_, closeErr := fmt.Fprintf(to, `{"id":%d,"method":"Browser.close"}%c`, b.last+1, 0)
		err := errors.Join(closeErr, cmd.Wait())
		limit.Stop()
		if err := errors.Join(err, to.Close(), from.Close()); err != nil {
			t.Errorf("chromium: %v\n%s", err, log.String())
		}
	})
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	b.call("Page.enable", nil, nil)
	return b
}

// message is what goes over the pipes: a command, its answer or an event.
type message struct {
	ID        int                       `json:"id,omitempty"`
	SessionID string                    `json:"sessionId,omitempty"`
	Method    string                    `json:"method,omitempty"`
	Params    any                       `json:"params,omitempty"`
	Result    json.RawMessage           `json:"result,omitempty"`
	Error     *struct{ Message string } `json:"error,omitempty"`
}

// call gives a command and waits for its answer.
func (b *browser) call(method string, params, result any) {
	b.t.Helper()
	b.last++
	data, err := json.Marshal(message{ID: b.last, SessionID: b.session, Method: method, Params: params})
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.to.Write(append(data, 0)); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	b.until(method, func(m message) bool {
		if m.ID != b.last {
			return false
		}
		if m.Error != nil {
			b.t.Fatalf("%s: %s", method, m.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				b.t.Fatalf("%s: %v", method, err)
			}
		}
		return true
	})
}

// until reads messages up to the one that is waited for.
func (b *browser) until(what string, is func(message) bool) {
	b.t.Helper()
	for {
		data, err := b.from.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: %v", what, err)
		}
		var m message
		if err := json.Unmarshal(bytes.TrimSuffix(data, []byte{0}), &m); err != nil {
			b.t.Fatalf("%s: %v", what, err)
		}
		if is(m) {
			return
		}
	}
}

// look is how a page is looked at.
type look struct {
	Width int // pixels
	Dark  bool
}

func (l look) String() string {
	if l.Dark {
		return fmt.Sprintf("%d-dark", l.Width)
	}
	return fmt.Sprintf("%d-light", l.Width)
}

// show opens a page and waits until it is there.
func (b *browser) show(page string, l look) {
	b.t.Helper()
	scheme := "light"
	if l.Dark {
		scheme = "dark"
	}
	b.call("Emulation.setDeviceMetricsOverride",
		map[string]any{"width": l.Width, "height": 900, "deviceScaleFactor": 1, "mobile": l.Width < 600}, nil)
	b.call("Emulation.setEmulatedMedia",
		map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.call("Page.navigate", map[string]any{"url": "file://" + page}, nil)
	b.eval(`new Promise(done => document.readyState == "complete" ? done() : addEventListener("load", done))`, nil)
}

// eval runs a script in the page and reads what it gives.
func (b *browser) eval(script string, result any) {
	b.t.Helper()
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Text string }
	}
	b.call("Runtime.evaluate", map[string]any{"expression": script, "awaitPromise": true, "returnByValue": true}, &answer)
	if answer.ExceptionDetails != nil {
		b.t.Fatalf("the page's script failed: %s", answer.ExceptionDetails.Text)
	}
	if result == nil {
		return
	}
	if err := json.Unmarshal(answer.Result.Value, result); err != nil {
		b.t.Fatal(err)
	}
}

// maxPictureHeight is what of a long page is kept.
const maxPictureHeight = 6000

// picture makes a PNG of the whole page, or of its first part.
func (b *browser) picture(width int) []byte {
	b.t.Helper()
	var height int
	b.eval("Math.ceil(document.documentElement.scrollHeight)", &height)
	var answer struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true,
		"clip": map[string]any{"x": 0, "y": 0, "width": width, "height": min(height, maxPictureHeight), "scale": 1}}, &answer)
	data, err := base64.StdEncoding.DecodeString(answer.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// faults are what is wrong with the layout of the page that is shown: what stands out at the sides, texts that overlap or are
// cut off, and letters that hardly differ from what is behind them.
func (b *browser) faults() []string {
	b.t.Helper()
	var found []string
	b.eval(layoutScript, &found)
	return found
}

const layoutScript = `(() => {
const faults = [], width = document.documentElement.clientWidth;
const root = document.documentElement;
if (root.scrollWidth > width) faults.push("the page is " + root.scrollWidth + " wide in a window of " + width);
const rgb = text => { const m = text.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m };
const light = c => { const f = c.slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
	return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2] };
const behind = el => { for (; el; el = el.parentElement) { const c = rgb(getComputedStyle(el).backgroundColor); if (c[3] == 1) return c } return [255, 255, 255, 1] };
const texts = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; (node = walker.nextNode());) {
	const el = node.parentElement, text = node.nodeValue.trim();
	if (!text || text == "\u00a0" || ["SCRIPT", "STYLE"].includes(el.tagName) || !el.checkVisibility()) continue;
	if (el.closest("[style*='max-height:0']")) continue;
	const range = document.createRange(); range.selectNodeContents(node);
	const name = JSON.stringify(text.slice(0, 60));
	for (const r of range.getClientRects()) {
		if (r.width < 1 || r.height < 1) continue;
		if (r.left < -0.5 || r.right > width + 0.5) faults.push(name + " stands out: " + r.left + " to " + r.right + " of " + width);
		texts.push({ name, node, top: r.top, bottom: r.bottom, left: r.left, right: r.right });
	}
	const a = light(rgb(getComputedStyle(el).color)), b = light(behind(el));
	const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
	if (contrast < 4.5) faults.push(name + " can hardly be read: contrast " + contrast.toFixed(1));
	if (el.scrollWidth > el.clientWidth + 1 && getComputedStyle(el).overflowX == "hidden") faults.push(name + " is cut off");
}
texts.sort((a, b) => a.top - b.top);
for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length && texts[j].top < texts[i].bottom - 3; j++) {
	const a = texts[i], b = texts[j];
	if (a.node != b.node && Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1) faults.push(a.name + " and " + b.name + " overlap");
}
return faults.slice(0, 5);
})()`
