package progress

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"voltar/internal/say"
	"voltar/report"
)

// newBar adds a bar, or a count of bytes alone where nobody knows how much there is.
func newBar(bars *mpb.Progress, total int64, name string, counters decor.Decorator, last []decor.Decorator) *mpb.Bar {
	label := decor.Name(name, decor.WCSyncSpaceR)
	if total <= 0 {
		return bars.AddSpinner(0, mpb.PrependDecorators(label, counters), mpb.AppendDecorators(last[0]), mpb.BarRemoveOnComplete())
	}
	return bars.AddBar(total, mpb.PrependDecorators(label, counters), mpb.AppendDecorators(last...), mpb.BarRemoveOnComplete(), wideEnough())
}

// leastColumns is what a bar needs that shows anything.
const leastColumns = 10

// wideEnough leaves the bar out of its line where too little room is left for it.
func wideEnough() mpb.BarOption {
	return mpb.BarFillerMiddleware(func(bar mpb.BarFiller) mpb.BarFiller {
		return mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
			if s.AvailableWidth < leastColumns {
				return nil
			}
			return bar.Fill(w, s)
		})
	})
}

// countedBytes shows how many bytes are done, and of how many where that is known.
func countedBytes() decor.Decorator {
	return decor.Any(func(s decor.Statistics) string {
		if s.Total <= 0 {
			return say.Size(s.Current)
		}
		return say.Size(s.Current) + " / " + say.Size(s.Total)
	}, decor.WCSyncWidth)
}

// speedSince shows the bytes a second since a time.
func speedSince(began time.Time) decor.Decorator {
	return decor.Any(func(s decor.Statistics) string { return speedText(s.Current, time.Since(began)) }, decor.WC{W: 12})
}

func speedText(done int64, took time.Duration) string {
	if took <= 0 {
		return say.Size(0) + "/s"
	}
	return say.Size(int64(float64(done)/took.Seconds())) + "/s"
}

// leftSince shows, behind a text, how long the rest takes at the speed since a time; nothing before anything is done.
func leftSince(began time.Time, before string) decor.Decorator {
	return decor.Any(func(s decor.Statistics) string {
		if text := leftText(s.Current, s.Total, time.Since(began)); text != "" {
			return before + text
		}
		return ""
	})
}

func leftText(done, total int64, took time.Duration) string {
	if done <= 0 || total < done {
		return ""
	}
	left := float64(took) * (float64(total-done) / float64(done))
	const longest = 1000 * time.Hour // more says nothing
	if left > float64(longest) {
		return ""
	}
	rest := time.Duration(left).Round(time.Second)
	if rest < time.Minute {
		return fmt.Sprintf("%d s left", rest/time.Second)
	}
	return report.FormatDuration(rest) + " left"
}
