package lab

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// UntilFrozen writes to a filesystem over and over until the kernel holds a write up because the filesystem is frozen. It
// returns where the end of that write is told. The kernel is asked what the write waits for: how long it takes says nothing.
func UntilFrozen(t testing.TB, write func() error) <-chan error {
	t.Helper()
	for limit := time.Now().Add(Patience(5 * time.Minute)); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		thread, written := make(chan int, 1), make(chan error, 1)
		go func() {
			runtime.LockOSThread()
			thread <- unix.Gettid()
			written <- write()
		}()
		if waitsForThaw(t, <-thread, written) {
			return written
		}
	}
	t.Fatal("nothing was frozen")
	return nil
}

// waitsForThaw tells whether a write by a thread was held up, or ended, which fails the test where it failed.
func waitsForThaw(t testing.TB, thread int, written <-chan error) bool {
	t.Helper()
	for {
		select {
		case err := <-written:
			if err != nil {
				t.Fatal(err)
			}
			return false
		case <-time.After(5 * time.Millisecond):
		}
		waits, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/wchan", thread))
		if err == nil && strings.Contains(string(waits), "percpu_rwsem_wait") { // only a freeze takes that lock for itself
			return true
		}
	}
}
