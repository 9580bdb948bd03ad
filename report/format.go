package report

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"voltar/internal/say"
)

// Bounds of what a rendering for people shows of one text. The JSON has all of it.
const (
	textLimit = 512 // characters of a line
	lineLimit = 60  // lines of a problem
)

// cleaned returns a copy of run in which every string is clean and bounded. It goes by the type's shape, so that a field
// added later cannot be forgotten. Only the texts of a Problem keep their line breaks.
func cleaned(run Run) Run {
	return cleanedValue(reflect.ValueOf(run), cleanedText).Interface().(Run)
}

func cleanedText(s string) string { return shorten(say.Clean(s), textLimit) }

func cleanedLines(s string) string {
	lines := strings.Split(say.CleanLines(strings.TrimSpace(s)), "\n")
	if more := len(lines) - lineLimit; more > 0 {
		lines = append(lines[:lineLimit], fmt.Sprintf("… and %s", say.Counted(int64(more), "more line")))
	}
	for i := range lines {
		lines[i] = shorten(lines[i], textLimit)
	}
	return strings.Join(lines, "\n")
}

func cleanedValue(v reflect.Value, cleanText func(string) string) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.String:
		out.SetString(cleanText(v.String()))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return v
		}
		if v.Type() == reflect.TypeFor[Problem]() {
			cleanText = cleanedLines
		}
		for i := range v.NumField() {
			out.Field(i).Set(cleanedValue(v.Field(i), cleanText))
		}
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		for i := range v.Len() {
			out.Index(i).Set(cleanedValue(v.Index(i), cleanText))
		}
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		out.Set(reflect.New(v.Type().Elem()))
		out.Elem().Set(cleanedValue(v.Elem(), cleanText))
	default:
		return v
	}
	return out
}

// FormatDuration gives a duration for people: "0.4 s", "59.9 s", "1 m 0 s", "1 h 15 m 35 s", "2 d 3 h 4 m 5 s". It is
// rounded before it is split, so that no part reaches its limit.
func FormatDuration(d time.Duration) string {
	d = max(d, 0)
	if tenths := d.Round(time.Second / 10); tenths < time.Minute {
		return fmt.Sprintf("%.1f s", tenths.Seconds())
	}
	seconds := int64(d.Round(time.Second) / time.Second)
	text := fmt.Sprintf("%d m %d s", seconds/60%60, seconds%60)
	if hours := seconds / 3600; hours >= 24 {
		return fmt.Sprintf("%d d %d h %s", hours/24, hours%24, text)
	} else if hours > 0 {
		return fmt.Sprintf("%d h %s", hours, text)
	}
	return text
}

// FormatPercent gives a share of 100 for people: "0 %", "<0.1 %", "3.2 %", "35 %", "99.9 %", "100 %". A share that is
// neither nothing nor all is never shown as if it were.
func FormatPercent(percent float64) string {
	switch {
	case math.IsNaN(percent) || math.IsInf(percent, 0):
		return "unknown"
	case percent < 0:
		return "-" + FormatPercent(-percent)
	case percent == 0:
		return "0 %"
	case percent < 0.1:
		return "<0.1 %"
	case percent < 9.95:
		return fmt.Sprintf("%.1f %%", percent)
	case percent > 99 && percent < 100:
		return fmt.Sprintf("%.1f %%", min(percent, 99.9))
	default:
		return fmt.Sprintf("%.0f %%", percent)
	}
}

// nounOf is the word for what has some names: volumes, directories, dumps and streams are sources, and what has no name may be any.
func nounOf(names []string) string {
	noun := ""
	for _, name := range names {
		is := "volume"
		if kind, _, found := strings.Cut(name, "/"); found && strings.HasPrefix(kind, "@") {
			is = strings.TrimPrefix(kind, "@")
		}
		if noun != "" && noun != is {
			return "source"
		}
		noun = is
	}
	return cmp.Or(noun, "source")
}

// noun is the word for what the run is of, as far as its results tell.
func (r Run) noun() string { return nounOf(namesOf(r.Volumes)) }

func namesOf(volumes []Volume) []string {
	return say.Names(volumes, func(v Volume) string { return v.Name })
}

// shorten cuts a text to limit characters, the last of them an ellipsis when something is missing.
func shorten(s string, limit int) string {
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	return strings.TrimRight(string([]rune(s)[:limit-1]), " ") + "…"
}

// squeeze cuts the middle out of a name that is longer than limit characters.
func squeeze(s string, limit int) string {
	runes := []rune(s)
	if len(runes) <= limit {
		return s
	}
	tail := limit / 2
	return string(runes[:limit-tail-1]) + "…" + string(runes[len(runes)-tail:])
}

// formatAge tells how long before now something was.
func formatAge(now, then time.Time) string {
	age := now.Sub(then)
	switch days := int64(age / (24 * time.Hour)); {
	case age < time.Hour:
		return "just now"
	case days >= 2:
		return say.Counted(days, "day") + " ago"
	default:
		return say.Counted(int64(age/time.Hour), "hour") + " ago"
	}
}

// safeName are names that a shell takes as they are.
var safeName = regexp.MustCompile(`^[A-Za-z0-9@][A-Za-z0-9@/_.+-]*$`)

// command puts names behind a command line, or returns "" where one is not fit to be typed.
func command(line string, names ...string) string {
	for _, name := range names {
		if !safeName.MatchString(name) {
			return ""
		}
		line += " " + name
	}
	return line
}
