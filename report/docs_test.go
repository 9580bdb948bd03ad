package report

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Every field of the JSON and every metric is documented.
func TestDocumentation(t *testing.T) {
	data, err := os.ReadFile("../docs/report-json.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for _, name := range jsonNames(reflect.TypeFor[document]()) {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("the field %q is not in docs/report-json.md", name)
		}
	}
	metrics := string(Metrics(goodRun(), MetricsOptions{}))
	for _, match := range regexp.MustCompile(`(?m)^# TYPE (\w+)`).FindAllStringSubmatch(metrics, -1) {
		if !strings.Contains(page, "    "+match[1]+"{") {
			t.Errorf("the metric %s is not in docs/report-json.md", match[1])
		}
	}
}

func jsonNames(t reflect.Type) []string {
	switch {
	case t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer:
		return jsonNames(t.Elem())
	case t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]():
		return nil
	}
	var names []string
	for i := range t.NumField() {
		field := t.Field(i)
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
		names = append(names, jsonNames(field.Type)...)
	}
	return names
}
