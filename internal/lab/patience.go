package lab

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
)

const (
	// slownessVariable hands on what measureSpeed found.
	slownessVariable = "VOLTAR_LAB_SLOWNESS"
	// quietStart is how long a start of lvm takes in a machine on a processor of 2020 that has nothing else to do. It is
	// two thousand hand-overs between the machine's processes on the host, the price of which differs several times from
	// one host to another.
	quietStart = 120 * time.Millisecond
	// starts are measured.
	starts = 4
	// startLimit holds for each. A machine on which it takes longer is none to test on.
	startLimit = 2 * time.Minute
	// room is how many times slower a machine may become after it was measured.
	room = 4
	// outside is how slow a machine may be of which nothing is known yet.
	outside = 10
)

// Patience returns how long a test waits for what takes d at most on a quiet machine. Every limit of a lab test comes from
// here, those in configurations for the product, too. It follows the time that starting programs took when the machine
// began, with room for one that becomes slower; on the host, it knows nothing and allows for much.
func Patience(d time.Duration) time.Duration {
	slowness, err := strconv.ParseFloat(os.Getenv(slownessVariable), 64)
	if err != nil {
		slowness = outside
	}
	return time.Duration(float64(d) * slowness).Round(time.Second)
}

// measureSpeed sets what Patience goes by, here and in what this process starts.
func measureSpeed() error {
	begin := time.Now()
	for range starts {
		if _, err := commandWithin(context.Background(), startLimit, "lvm", "version"); err != nil {
			return fmt.Errorf("cannot measure the machine's speed: %w", err)
		}
	}
	return os.Setenv(slownessVariable, slowness(time.Since(begin)/starts))
}

// slowness is what a start tells.
func slowness(start time.Duration) string {
	times := max(1, float64(start)/float64(quietStart))
	return strconv.FormatFloat(room*times, 'f', 2, 64)
}
