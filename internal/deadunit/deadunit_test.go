package deadunit

import (
	"testing"
	"time"
)

func TestMarkerIsForTheUnitWhoseRunLeftIt(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	t.Setenv("INVOCATION_ID", "0123abcd")
	if err := WriteMarker(Marker{Run: "bad", Told: true}); err != nil {
		t.Fatal(err)
	}
	if marker, err := TakeMarker("ffff"); err != nil || marker != (Marker{}) {
		t.Errorf("another unit took %+v, %v", marker, err)
	}
	if marker, err := TakeMarker("0123abcd"); err != nil || marker != (Marker{Run: "bad", Told: true}) {
		t.Errorf("took %+v, %v", marker, err)
	}
	if marker, err := TakeMarker("0123abcd"); err != nil || marker != (Marker{}) {
		t.Errorf("taken twice: %+v, %v", marker, err)
	}
	if path := markerPath("../../etc/passwd"); path != "" {
		t.Errorf("a path from outside: %s", path)
	}
}

func TestParse(t *testing.T) {
	now := time.Date(2026, 11, 20, 1, 0, 0, 0, time.UTC)
	dead := parse("voltar.service", "Result=signal\nExecMainCode=2\nExecMainStatus=9\n"+
		"ExecMainStartTimestampMonotonic=40000000\nInvocationID=0123abcd\nNew=1\n", now, 100*time.Second)
	want := Unit{Name: "voltar.service", Invocation: "0123abcd", Result: "signal", Killed: true, Status: 9, Started: now.Add(-time.Minute)}
	if dead != want {
		t.Errorf("got %+v, want %+v", dead, want)
	}
	if got := parse("a", "Result=resources\nExecMainStartTimestampMonotonic=0\n", now, time.Second); !got.Started.IsZero() {
		t.Errorf("one that was never started, started at %s", got.Started)
	}
}
