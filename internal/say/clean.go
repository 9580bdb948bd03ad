package say

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Clean makes a string that came from a guest, a store, a command or a configuration safe to show anywhere: everything that
// is not a visible character or a plain space is written as its Go escape. That covers control characters and with them
// terminal escapes and line breaks, marks that change the direction of text, invisible characters and bytes that are no
// UTF-8. What is visible stays as it is. Cleaning twice changes nothing more.
func Clean(s string) string { return clean(s, false) }

// CleanLines is Clean for text that may have several lines, such as the output of a command.
func CleanLines(s string) string { return clean(s, true) }

func clean(s string, lines bool) string {
	visible := func(r rune) bool { return r == ' ' || r == '\n' && lines || unicode.IsPrint(r) }
	first := strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError || !visible(r) })
	if first < 0 {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:first])
	for s = s[first:]; len(s) > 0; {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case visible(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
		s = s[size:]
	}
	return b.String()
}

// JSON encodes a value for programs and terminals alike: indented unless indent is "", without a final newline. Strings are
// as they came, but what is not a visible character is written as a \u escape; bytes that are no UTF-8 become U+FFFD.
func JSON(value any, indent string) ([]byte, error) {
	var data []byte
	var err error
	if indent == "" {
		data, err = json.Marshal(value)
	} else {
		data, err = json.MarshalIndent(value, "", indent)
	}
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, r := range string(data) { // outside of strings JSON is plain ASCII
		switch {
		case r < 0x7f || unicode.IsPrint(r):
			out.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.Bytes(), nil
}

// Writer takes text for people: line ends pass, and everything else goes through Clean. Close before the end writes what was
// left of a character.
type Writer struct {
	to   io.Writer
	rest []byte // the beginning of a character whose end is yet to come

	colors bool // as UseColors says
}

// NewWriter returns a Writer in front of another.
func NewWriter(to io.Writer) *Writer { return &Writer{to: to} }

// Write cleans and passes on.
func (w *Writer) Write(p []byte) (int, error) {
	text := append(w.rest, p...)
	whole := len(text)
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		if at := len(text) - back; utf8.RuneStart(text[at]) {
			if !utf8.FullRune(text[at:]) {
				whole = at
			}
			break
		}
	}
	w.rest = bytes.Clone(text[whole:])
	if _, err := io.WriteString(w.to, CleanLines(string(text[:whole]))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close passes on what is left. It does not close the writer behind.
func (w *Writer) Close() error {
	_, err := io.WriteString(w.to, CleanLines(string(w.rest)))
	w.rest = nil
	return err
}

// Printf writes text for people like fmt.Fprintf: line ends and tabs are those of the format alone, for what is said in it
// is clean.
func Printf(to io.Writer, format string, args ...any) (int, error) {
	return fmt.Fprintf(to, format, cleanArgs(args)...)
}

// Println writes a line for people like fmt.Fprintln: one line, whatever is said.
func Println(to io.Writer, args ...any) (int, error) { return fmt.Fprintln(to, cleanArgs(args)...) }

func cleanArgs(args []any) []any {
	clean := make([]any, len(args))
	for i, arg := range args {
		clean[i] = cleanArg{arg}
	}
	return clean
}

// cleanArg is anything, formatted as it would be and then cleaned.
type cleanArg struct{ value any }

func (a cleanArg) Format(state fmt.State, verb rune) {
	_, _ = io.WriteString(state, Clean(fmt.Sprintf(fmt.FormatString(state, verb), a.value))) // as fmt does: the writer behind says what fails
}
