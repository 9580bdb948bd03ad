package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestConfigurationsOfDocs reads what README and the quick starts have people write into /etc/voltar/voltar.toml.
func TestConfigurationsOfDocs(t *testing.T) {
	pages, err := filepath.Glob("../../docs/quickstart-*.md")
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) != 3 {
		t.Errorf("there are %d quick starts", len(pages))
	}
	written := regexp.MustCompile(`(?s)cat >>?/etc/voltar/voltar\.toml <<'END'\n(.*?)\n    END|` + "```toml\n(.*?)```")
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		var whole strings.Builder
		for _, part := range written.FindAllStringSubmatch(string(text), -1) {
			whole.WriteString(strings.ReplaceAll(part[1]+part[2], "\n    ", "\n") + "\n")
		}
		c, err := Parse([]byte(whole.String()))
		switch {
		case err != nil:
			t.Errorf("%s: %v", page, err)
		case len(c.Destinations) == 0:
			t.Errorf("%s configures no destination", page)
		}
	}
}
