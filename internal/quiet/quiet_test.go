package quiet

import (
	"errors"
	"strings"
	"testing"
	"time"

	"voltar/internal/quiesce"
	"voltar/internal/say"
)

// A backup is called as consistent as what was proven to have lasted makes it, and never more once something is missing.
func TestHowConsistentASnapshotIs(t *testing.T) {
	filesystem := &hold{Freeze: quiesce.Freeze{Name: "web", Method: quiesce.MethodSSH}}
	database := &hold{Freeze: quiesce.Freeze{Name: "db", Method: quiesce.MethodMySQL}}
	for _, c := range []struct {
		name  string
		held  []*hold
		miss  error
		level string
		text  string
	}{
		{"nothing", nil, nil, levelCrash, "crash-consistent, group g"},
		{"a filesystem", []*hold{filesystem}, nil, levelFilesystem, "frozen 1.5 s, group g"},
		{"a database and its filesystem", []*hold{filesystem, database}, nil, levelApplication, "application-consistent, held 1.5 s, group g"},
		{"one of two", []*hold{filesystem}, errors.New("no answer"), levelCrash, "crash-consistent, group g"},
	} {
		for _, missFirst := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				var told []error
				v := &Volume{Group: "g", Tell: func(err error, must bool) { told = append(told, err) }}
				if c.miss != nil && missFirst {
					v.Miss(c.miss, false)
				}
				for _, h := range c.held {
					v.result.add(h, 1500*time.Millisecond, "position of "+h.Name)
				}
				if c.miss != nil && !missFirst {
					v.Miss(c.miss, false)
				}
				f := v.Facts()
				if f.Level != c.level || v.String() != c.text || f.Group != "g" || (len(told) > 0) != (c.miss != nil) {
					t.Errorf("%+v, %q, told %v", f, v, told)
				}
				if c.miss != nil && f.Note != c.miss.Error() {
					t.Errorf("note %q", f.Note)
				}
				if len(c.held) > 1 && f.Databases["db"] != "position of db" {
					t.Errorf("databases %v", f.Databases)
				}
			})
		}
	}
}

// What must happen and did not is for the volume to fail of, and no note on it; a note has no hints.
func TestWhatMustBeQuiet(t *testing.T) {
	var told error
	v := &Volume{Tell: func(err error, must bool) {
		if must {
			told = err
		}
	}}
	failure := say.WithHint(errors.New("the guest does not answer"), "start its agent")
	v.Miss(failure, true)
	if !errors.Is(told, failure) || v.Facts().Note != "" {
		t.Errorf("%v, %+v", told, v.Facts())
	}
	v.Miss(failure, false)
	if f := v.Facts(); f.Note != "the guest does not answer" || strings.Contains(f.Note, "agent") || f.Level != levelCrash {
		t.Errorf("%+v", f)
	}
}

// Databases let writing go on last: what is behind them must be frozen first and thawed first.
func TestDatabasesAreHeldAroundFilesystems(t *testing.T) {
	stages := stagesOf([]*hold{
		{Freeze: quiesce.Freeze{Name: "fs", Method: quiesce.MethodLocal}}, {Freeze: quiesce.Freeze{Name: "db", Method: quiesce.MethodMySQL}},
	})
	if len(stages) != 2 || len(stages[0]) != 1 || stages[0][0].Name != "db" || len(stages[1]) != 1 || stages[1][0].Name != "fs" {
		t.Errorf("%+v", stages)
	}
}

// What two volumes want of one guest is one hold; guests of one name are two.
func TestHoldsAreOfOneGuest(t *testing.T) {
	var w wanted
	v := &Volume{}
	for _, domain := range []string{"uuid-1", "uuid-2", "uuid-1"} {
		w.hold(quiesce.Freeze{Name: "web", Method: quiesce.MethodVirsh, Domain: domain}, v)
	}
	for _, socket := range []string{"/1", "/2", "/2"} {
		w.hold(quiesce.Freeze{Name: "web", Method: quiesce.MethodAgent, Socket: socket}, v)
	}
	if len(w.list) != 4 {
		t.Errorf("%d holds of four guests", len(w.list))
	}
}
