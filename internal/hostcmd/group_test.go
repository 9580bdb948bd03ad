package hostcmd

import (
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// Once a command has ended its number may be another's: the timer that was to kill it does not outlive it.
func TestNothingIsSentToAGroupThatHasEnded(t *testing.T) {
	c := exec.Command("sleep", "1000")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var group processGroup
	if err := group.end(c.Process.Pid); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // it was killed
	group.ended(c.Process.Pid, false)
	if group.kill.Reset(time.Hour) {
		t.Error("the timer that kills still runs")
	}
	group.kill.Stop()
	if err := group.end(c.Process.Pid); err == nil {
		t.Error("a group that has ended is ended again")
	}
}
