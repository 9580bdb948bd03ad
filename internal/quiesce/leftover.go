package quiesce

import (
	"context"
	"errors"
	"fmt"
	"time"

	"voltar/internal/hostcmd"
)

// agentThawWord stands for the agent's thaw in a journal: there is no command for it.
const agentThawWord = "guest-agent-thaw"

const leftoverTimeout = time.Minute

// ThawLeftover ends what a dead process may have left frozen, as Freeze.Leftover described it. It reports whether there
// was something to end. Nothing frozen any more is what usually is, and no error.
func ThawLeftover(ctx context.Context, run *hostcmd.Runner, argv []string) (thawed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, leftoverTimeout)
	defer cancel()
	switch {
	case len(argv) == 0:
		return false, nil
	case argv[0] == agentThawWord && len(argv) == 2:
		count := 0
		err := agentThaw(ctx, argv[1], &count)
		return count > 0, err
	case argv[0] == "fsfreeze" && len(argv) > 2:
		var all []error
		for _, point := range argv[2:] {
			switch err := ThawMount(point); {
			case err == nil:
				thawed = true
			case !errors.Is(err, ErrNotHeld):
				all = append(all, err)
			}
		}
		return thawed, errors.Join(all...)
	case argv[0] == "dmsetup" && len(argv) > 2:
		return resume(ctx, run, argv[2:])
	case argv[0] == "virsh":
		res, err := run.Run(ctx, hostcmd.Cmd{Name: argv[0], Args: argv[1:], Timeout: leftoverTimeout})
		if err != nil {
			return false, err
		}
		count, err := virshCount(string(res.Stdout))
		return count > 0, err
	}
	if _, err := run.Run(ctx, hostcmd.Cmd{Name: argv[0], Args: argv[1:], Timeout: leftoverTimeout}); err != nil {
		if hostcmd.ExitCode(err) > 0 {
			return false, nil // a thaw command fails when nothing is frozen
		}
		return false, fmt.Errorf("thaw what was left: %w", err)
	}
	return true, nil
}
