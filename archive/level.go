package archive

import (
	"fmt"
	"strconv"
)

// Level is how hard to compress, from 1 (least) to 9, in the terms of klauspost/compress. The zero value stands for
// LevelDefault.
type Level int

// Levels that have names.
const (
	LevelFast    Level = 2
	LevelDefault Level = 6
	LevelBest    Level = 9
)

// ParseLevel reads "fast", "default", "best" or a number from 1 to 9.
func ParseLevel(s string) (Level, error) {
	switch s {
	case "fast":
		return LevelFast, nil
	case "default":
		return LevelDefault, nil
	case "best":
		return LevelBest, nil
	}
	if n, err := strconv.Atoi(s); err == nil && n >= 1 && n <= 9 {
		return Level(n), nil
	}
	return 0, fmt.Errorf("cannot read compression level %q: use fast, default, best or a number from 1 to 9", s)
}

func (l Level) orDefault() Level {
	if l == 0 {
		return LevelDefault
	}
	return l
}

func (l Level) check() error {
	if l < 0 || l > 9 {
		return fmt.Errorf("cannot compress at level %d: levels go from 1 to 9", int(l))
	}
	return nil
}
