package say

import "io"

// Color is one of a terminal's, as it stands in its escape sequence.
type Color string

// The colours that voltar uses.
const (
	Red    Color = "31" // what failed
	Green  Color = "32" // what is well
	Yellow Color = "33" // what warns
)

// UseColors has Painted write colours to the terminal behind w.
func (w *Writer) UseColors(on bool) { w.colors = on }

// Painted writes text for people in one piece: before and after as they are, and between them a word in a colour, where to is a Writer
// that uses colours. All is cleaned; line ends pass.
func Painted(to io.Writer, before string, color Color, word, after string) (int, error) {
	if w, ok := to.(*Writer); ok && w.colors {
		text := CleanLines(before) + "\x1b[" + string(color) + "m" + Clean(word) + "\x1b[0m" + CleanLines(after)
		if _, err := io.WriteString(w.to, text); err != nil {
			return 0, err
		}
		return len(text), nil
	}
	return io.WriteString(to, CleanLines(before)+Clean(word)+CleanLines(after))
}
