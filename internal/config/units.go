package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written with a unit: "512MiB", "10G", "1.5TB". The letters alone (K, M, G, T) are powers
// of 1024, as lvm2 takes them.
type Size int64

var sizeUnits = map[string]float64{
	"": 1, "b": 1,
	"k": 1 << 10, "kib": 1 << 10, "kb": 1e3,
	"m": 1 << 20, "mib": 1 << 20, "mb": 1e6,
	"g": 1 << 30, "gib": 1 << 30, "gb": 1e9,
	"t": 1 << 40, "tib": 1 << 40, "tb": 1e12,
	"p": 1 << 50, "pib": 1 << 50, "pb": 1e15,
}

// ParseSize reads a Size.
func ParseSize(text string) (Size, error) {
	text = strings.TrimSpace(text)
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit, known := sizeUnits[strings.ToLower(strings.TrimSpace(text[len(digits):]))]
	number, err := strconv.ParseFloat(digits, 64)
	if err != nil || !known || math.IsNaN(number) || number < 0 {
		return 0, fmt.Errorf(`cannot read %q as a size: write it like "512MiB" or "10GB"`, text)
	}
	if number*unit >= math.MaxInt64 {
		return 0, fmt.Errorf("size %q is too large", text)
	}
	return Size(number * unit), nil
}

// UnmarshalText reads a Size from the file.
func (s *Size) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSize(string(text))
	return err
}

// Bytes returns the size as a plain number.
func (s Size) Bytes() int64 { return int64(s) }

// Duration is a time span, written as time.ParseDuration takes it, or in whole days ("30d") or weeks ("2w").
type Duration time.Duration

// UnmarshalText reads a Duration from the file.
func (d *Duration) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	for suffix, unit := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if count, found := strings.CutSuffix(s, suffix); found {
			n, err := strconv.Atoi(count)
			if err != nil || n < 0 || int64(n) > math.MaxInt64/int64(unit) {
				return fmt.Errorf(`cannot read %q as a duration: write it like "90s", "2h30m" or "30d"`, s)
			}
			*d = Duration(time.Duration(n) * unit)
			return nil
		}
	}
	span, err := time.ParseDuration(s)
	if err != nil || span < 0 {
		return fmt.Errorf(`cannot read %q as a duration: write it like "90s", "2h30m" or "30d"`, s)
	}
	*d = Duration(span)
	return nil
}

// Span returns the duration as the standard library has it.
func (d Duration) Span() time.Duration { return time.Duration(d) }

// SnapshotSize is the copy-on-write space of a classic snapshot: a part of its origin ("20%ORIGIN", "20%") or bytes.
type SnapshotSize struct {
	Percent float64 // of the origin; 0 when Bytes says it
	Bytes   int64
}

// UnmarshalText reads a SnapshotSize from the file.
func (s *SnapshotSize) UnmarshalText(text []byte) error {
	word := strings.TrimSpace(string(text))
	percent, isPercent := strings.CutSuffix(strings.TrimSuffix(strings.ToUpper(word), "ORIGIN"), "%")
	if isPercent {
		n, err := strconv.ParseFloat(percent, 64)
		if err != nil || math.IsNaN(n) || n <= 0 || n > 200 {
			return fmt.Errorf(`cannot read %q as a part of the origin: write it like "100%%ORIGIN"`, word)
		}
		*s = SnapshotSize{Percent: n}
		return nil
	}
	size, err := ParseSize(word)
	if err == nil && size == 0 {
		err = errors.New("a snapshot needs more than 0 bytes")
	}
	if err != nil {
		return fmt.Errorf(`%w (or as a part of the origin: "100%%ORIGIN")`, err)
	}
	*s = SnapshotSize{Bytes: size.Bytes()}
	return nil
}
