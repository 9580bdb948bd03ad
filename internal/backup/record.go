package backup

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"voltar/internal/placement"
	"voltar/report"
)

// record is the report of a run while it is made. Many goroutines write to it.
type record struct {
	log      *slog.Logger
	progress Progress // nil tells nobody

	mu     sync.Mutex
	report report.Run
}

func (r *record) warn(message, hint string) {
	r.log.Warn(message, "run", r.report.ID)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Warnings = append(r.report.Warnings, report.Problem{Message: message, Hint: hint})
}

// warnOf warns of an error, with its own hints.
func (r *record) warnOf(err error) {
	problem := report.ProblemOf(err)
	r.warn(problem.Message, problem.Hint)
}

func (r *record) warnAll(problems []report.Problem) {
	for _, p := range problems {
		r.warn(p.Message, p.Hint)
	}
}

// leaveOut enters what no backup is made of.
func (r *record) leaveOut(what report.Excluded) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Excluded = append(r.report.Excluded, what)
}

// hand takes the result of a source that is done.
func (r *record) hand(result report.Volume) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Volumes = append(r.report.Volumes, result)
	if r.progress != nil {
		r.progress.VolumeEnded(result)
	}
}

// done names the sources that are done and that fit.
func (r *record) done(fits func(report.Volume) bool) (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range r.report.Volumes {
		if fits(v) {
			names = append(names, v.Name)
		}
	}
	return names
}

// mend says in the result of a source that tonight's backup stands after all on a destination on which it had failed.
func (r *record) mend(caught placement.Caught) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.report.Volumes {
		v := &r.report.Volumes[i]
		if v.Backup != caught.Backup {
			continue
		}
		whole := true
		for j := range v.Copies {
			c := &v.Copies[j]
			if c.Destination == caught.To && c.Error != nil {
				v.Warnings = append(v.Warnings, report.Problem{
					Message: fmt.Sprintf("on %s it failed at first (%s), and was copied from %s", caught.To, c.Error.Message, caught.From),
					Hint:    c.Error.Hint,
				})
				c.Error, c.Path = nil, caught.Path
			}
			whole = whole && c.Error == nil
		}
		if whole && v.Status == report.VolumePartial {
			v.Status = report.VolumeOK
		}
	}
}

// finish makes up the report. The error is why the run as a whole came to nothing, or nil.
func (r *record) finish(now time.Time, destinations []report.Destination, err error) *report.Run {
	if err != nil {
		problems := report.ProblemsOf(err)
		for i := range problems {
			problems[i].Destinations = placement.Unreachable(err)
		}
		r.report.Errors = append(r.report.Errors, problems...)
	}
	r.report.Destinations = destinations
	slices.SortFunc(r.report.Volumes, func(a, b report.Volume) int { return strings.Compare(a.Name, b.Name) })
	r.report.Ended = now.UTC()
	return &r.report
}
