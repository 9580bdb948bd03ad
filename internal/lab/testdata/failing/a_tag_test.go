//go:build tagged

package failing

import "testing"

func TestLabOfATag(*testing.T) {}
