package admit

import (
	"fmt"
	"testing"
)

// A night of many volumes that need space, two at a time.
func BenchmarkNight(b *testing.B) {
	for _, volumes := range []int{250, 1000, 4000} {
		b.Run(fmt.Sprint(volumes), func(b *testing.B) {
			for b.Loop() {
				q := New(&fakeSpace{free: 1000}, 2, 0.2)
				tickets := make([]*Ticket, volumes)
				for i := range tickets {
					tickets[i] = q.Join(b.Context(), Request{{"vg", 8, 4}})
				}
				for _, ticket := range tickets {
					grant, err := ticket.Wait()
					if err != nil {
						b.Fatal(err)
					}
					grant.Release()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*volumes), "µs/volume")
		})
	}
}
