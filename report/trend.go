package report

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"slices"
	"time"

	"voltar/internal/say"
)

// trendRuns is how many runs the trend shows.
const trendRuns = 30

// Point is what the trend and the forecast need to know of one run.
type Point struct {
	Time         time.Time // of its start
	Verdict      Verdict
	StoredBytes  int64 // tonight's backups, on one destination
	Duration     time.Duration
	Destinations []Room
}

// Room is the room of one destination after a run.
type Room struct {
	Name       string
	TotalBytes int64 // -1: not known
	FreeBytes  int64
}

// PointOf gives the point of a run.
func PointOf(run Run) Point {
	p := Point{
		Time:        run.Started,
		Verdict:     run.Verdict(),
		StoredBytes: run.storedBytes(),
		Duration:    run.Ended.Sub(run.Started),
	}
	for _, d := range run.Destinations {
		p.Destinations = append(p.Destinations, Room{Name: d.Name, TotalBytes: d.TotalBytes, FreeBytes: d.FreeBytes})
	}
	return p
}

// latest gives the last trendRuns points, oldest first.
func latest(points []Point) []Point {
	sorted := slices.Clone(points)
	slices.SortStableFunc(sorted, func(a, b Point) int { return a.Time.Compare(b.Time) })
	return sorted[max(0, len(sorted)-trendRuns):]
}

// A forecast needs enough runs over enough time not to be a guess, and is not made for longer than it can be meant.
const (
	forecastMinRuns = 5
	forecastMinDays = 4.0
	forecastMaxDays = 3 * 365.0
)

// forecast is when a destination runs out of room, by a straight line through what the last 30 runs found used there (least
// squares).
type forecast struct {
	Runs        int       // that it is by; 0 where the room of the destination is not known
	TooFew      bool      // to go by
	Full        bool      // by now
	Known       bool      // it fills up
	Days        float64   // until it is full
	When        time.Time // it is full
	BytesPerDay int64     // by which it fills up
}

// forecastOf looks at the room that one destination had after each run; the points include the latest run's.
func forecastOf(points []Point, destination string, loc *time.Location) forecast {
	var days, used []float64
	var last Room
	var first, latestTime time.Time
	for _, p := range latest(points) {
		for _, room := range p.Destinations {
			if room.Name != destination || room.TotalBytes < 0 || room.FreeBytes < 0 {
				continue
			}
			if room.TotalBytes != last.TotalBytes {
				days, used, first = nil, nil, p.Time // made larger or smaller: what was before tells another story
			}
			days = append(days, p.Time.Sub(first).Hours()/24)
			used = append(used, float64(room.TotalBytes-room.FreeBytes))
			last, latestTime = room, p.Time
		}
	}
	f := forecast{Runs: len(days)}
	switch {
	case len(days) == 0:
		return f
	case last.FreeBytes == 0:
		f.Full = true
		return f
	case len(days) < forecastMinRuns || days[len(days)-1] < forecastMinDays:
		f.TooFew = true
		return f
	}
	perDay, scatter := fitLine(days, used)
	span := days[len(days)-1]
	if perDay <= 0 || perDay*span <= 2*scatter {
		return f
	}
	f.Known, f.BytesPerDay, f.Days = true, int64(perDay), float64(last.FreeBytes)/perDay
	if f.Days <= forecastMaxDays {
		f.When = latestTime.Add(time.Duration(f.Days * 24 * float64(time.Hour))).In(loc)
	}
	return f
}

// Forecast says in words when a destination runs out of room. It says so when there is too little to go by. The points
// include the latest run's.
func Forecast(points []Point, destination string, loc *time.Location) string {
	switch f := forecastOf(points, destination, loc); {
	case f.Runs == 0:
		return ""
	case f.Full:
		return "It is full."
	case f.TooFew:
		return fmt.Sprintf("No forecast yet: it needs %d runs over %.0f days, there are %d.",
			forecastMinRuns, forecastMinDays, f.Runs)
	case !f.Known:
		return fmt.Sprintf("Not filling up, by the last %d runs.", f.Runs)
	case f.When.IsZero():
		return fmt.Sprintf("Full in more than 3 years at %s a day, by the last %d runs.", say.Size(f.BytesPerDay), f.Runs)
	default:
		return fmt.Sprintf("Full in about %s, on %s, at %s a day, by the last %d runs.",
			say.Counted(int64(math.Ceil(f.Days)), "day"), f.When.Format("2006-01-02"), say.Size(f.BytesPerDay), f.Runs)
	}
}

// fitLine gives the slope of the straight line through the points and the standard deviation of the points from it.
func fitLine(x, y []float64) (slope, scatter float64) {
	n := float64(len(x))
	var meanX, meanY float64
	for i := range x {
		meanX += x[i] / n
		meanY += y[i] / n
	}
	var xx, xy float64
	for i := range x {
		xx += (x[i] - meanX) * (x[i] - meanX)
		xy += (x[i] - meanX) * (y[i] - meanY)
	}
	slope = xy / xx
	var squares float64
	for i := range x {
		off := y[i] - (meanY + slope*(x[i]-meanX))
		squares += off * off
	}
	return slope, math.Sqrt(squares / n)
}

// Measures of the trend's picture in pixels, drawn at twice the size at which it is shown.
const (
	trendWidth  = 1120
	trendHeight = 240
	trendMargin = 8
	trendGap    = 8
)

// TrendPNG draws the last 30 runs, oldest on the left: a bar for each run's stored bytes in the colour of its verdict
// (green, amber, red), and a line for its duration. The background is transparent and the colours stand out from white
// and black alike, for mail programs that turn dark. With fewer than two runs there is no picture, and it returns nil.
func TrendPNG(points []Point) ([]byte, error) {
	points = latest(points)
	if len(points) < 2 {
		return nil, nil
	}
	picture := image.NewNRGBA(image.Rect(0, 0, trendWidth, trendHeight))
	plot := picture.Bounds().Inset(trendMargin)
	for quarter := range 5 {
		y := plot.Max.Y - quarter*(plot.Dy()-1)/4
		fill(picture, image.Rect(plot.Min.X, y-1, plot.Max.X, y), color.NRGBA{128, 128, 128, 90})
	}

	var mostBytes int64 = 1
	var longest time.Duration = 1
	for _, p := range points {
		mostBytes, longest = max(mostBytes, p.StoredBytes), max(longest, p.Duration)
	}
	step := plot.Dx() / trendRuns
	left := plot.Max.X - step*len(points)
	var before image.Point
	for i, p := range points {
		x := left + i*step
		height := int(float64(max(p.StoredBytes, 0)) / float64(mostBytes) * float64(plot.Dy()))
		bar := image.Rect(x+trendGap/2, plot.Max.Y-max(height, 4), x+step-trendGap/2, plot.Max.Y)
		fill(picture, bar, verdictColour(p.Verdict))
		at := image.Pt(x+step/2, plot.Max.Y-int(float64(max(p.Duration, 0))/float64(longest)*float64(plot.Dy()-6))-3)
		if i > 0 {
			line(picture, before, at, color.NRGBA{84, 120, 220, 255})
		}
		before = at
	}
	var out bytes.Buffer
	if err := png.Encode(&out, picture); err != nil {
		return nil, fmt.Errorf("cannot draw the trend: %w", err)
	}
	return out.Bytes(), nil
}

func verdictColour(v Verdict) color.NRGBA {
	switch v {
	case VerdictOK:
		return color.NRGBA{46, 160, 88, 255}
	case VerdictWarning:
		return color.NRGBA{222, 154, 24, 255}
	default:
		return color.NRGBA{214, 58, 58, 255}
	}
}

func fill(picture draw.Image, area image.Rectangle, c color.Color) {
	draw.Draw(picture, area, image.NewUniform(c), image.Point{}, draw.Over)
}

// line draws a line of four pixels' width.
func line(picture draw.Image, from, to image.Point, c color.Color) {
	steps := max(abs(to.X-from.X), abs(to.Y-from.Y), 1)
	for i := range steps + 1 {
		x := from.X + (to.X-from.X)*i/steps
		y := from.Y + (to.Y-from.Y)*i/steps
		fill(picture, image.Rect(x-2, y-2, x+2, y+2), c)
	}
}

func abs[N int | int64](n N) N { return max(n, -n) }
