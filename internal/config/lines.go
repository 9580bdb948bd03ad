package config

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// lines says on which line of a file each key and each table stands, counted from 1, by names as "mail.to" and "destination #2.path".
type lines map[string]int

// linesOf reads where things stand in a text, as far as it is TOML.
func linesOf(text []byte) lines {
	found := lines{}
	counts := map[string]int{}
	table := ""
	var p unstable.Parser
	p.Reset(text)
	for p.NextExpression() {
		node := p.Expression()
		var name []string
		line := 0
		for part := node.Key(); part.Next(); {
			if line == 0 {
				line = p.Shape(part.Node().Raw).Start.Line
			}
			name = append(name, string(part.Node().Data))
		}
		key := strings.Join(name, ".")
		if node.Kind == unstable.KeyValue {
			key = strings.TrimPrefix(table+"."+key, ".")
		} else {
			if node.Kind == unstable.ArrayTable {
				counts[key]++
			}
			if n := counts[name[0]]; n > 0 {
				name[0] += " #" + strconv.Itoa(n)
			}
			table = strings.Join(name, ".")
			key = table
		}
		if found[key] == 0 {
			found[key] = line
		}
	}
	return found
}

// of is the line of a key or, where that is not written, of the nearest table that it belongs to; 0 for none.
func (l lines) of(key string) int {
	for key != "" && l[key] == 0 {
		key = key[:max(strings.LastIndexByte(key, '.'), 0)]
	}
	return l[key]
}

// keyWords are what stands between the number of a table and a key in a message about it, for people.
var keyWords = regexp.MustCompile(`^(\w+ #\d+) \(.*\)(: |$)`)

// plainKey is a key of a message as lines has it.
func plainKey(key string) string {
	key = keyWords.ReplaceAllString(key, "$1$2")
	return strings.Replace(key, ": ", ".", 1)
}
