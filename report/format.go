package report

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"voltar/internal/say"
)

// cleaned returns a copy of run in which every string is clean. It goes by the type's shape, so that a field added
// later cannot be forgotten. Only the texts of a Problem keep their line breaks.
func cleaned(run Run) Run {
	return cleanedValue(reflect.ValueOf(run), say.Clean).Interface().(Run)
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
			cleanText = func(s string) string { return say.CleanLines(strings.TrimSpace(s)) }
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

// plural gives "1 volume", "2 volumes".
func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return say.Count(n) + " " + noun + "s"
}

// shorten cuts a text to limit characters, the last of them an ellipsis when something is missing.
func shorten(s string, limit int) string {
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	return strings.TrimRight(string([]rune(s)[:limit-1]), " ") + "…"
}

// formatAge tells how long before now something was.
func formatAge(now, then time.Time) string {
	age := now.Sub(then)
	switch days := int64(age / (24 * time.Hour)); {
	case age < time.Hour:
		return "just now"
	case days >= 2:
		return plural(days, "day") + " ago"
	default:
		return plural(int64(age/time.Hour), "hour") + " ago"
	}
}
