package say

import (
	"fmt"
	"strconv"
	"strings"
)

// Size gives a number of bytes for people in binary units: "0 B", "1023 B", "3.5 GiB", "267 GiB", "1.0 PiB".
func Size(bytes int64) string {
	if bytes < 0 {
		return "-" + magnitude(uint64(-(bytes+1))+1)
	}
	return magnitude(uint64(bytes))
}

func magnitude(bytes uint64) string {
	if bytes < 1024 {
		return fmt.Sprintf("%d B", bytes)
	}
	value := float64(bytes)
	for _, unit := range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		value /= 1024
		switch {
		case value < 99.95:
			return fmt.Sprintf("%.1f %s", value, unit)
		case value < 1023.5:
			return fmt.Sprintf("%.0f %s", value, unit)
		}
	}
	return fmt.Sprintf("%.0f EiB", value)
}

// Count gives a number with its thousands apart: "1 234 567".
func Count(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for at := len(digits) - 3; at > 0 && digits[at-1] != '-'; at -= 3 {
		digits = digits[:at] + " " + digits[at:]
	}
	return digits
}

// Counted is a number of things in words: "1 volume", "2 volumes", "3 directories".
func Counted[N int | int64](n N, noun string) string {
	stem, isIrregular := strings.CutSuffix(noun, "y")
	switch {
	case n == 1:
		return "1 " + noun
	case isIrregular && strings.HasSuffix(stem, "r"): // directory, entry, but not day
		return Count(int64(n)) + " " + stem + "ies"
	}
	return Count(int64(n)) + " " + noun + "s"
}
