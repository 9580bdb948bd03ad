package quiesce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"voltar/internal/hostcmd"
)

// commandFreezer runs a pair of commands. That the second succeeds is what proves that it was frozen until then.
type commandFreezer struct {
	run                  *hostcmd.Runner
	timeout              time.Duration
	freezeArgv, thawArgv []string
}

func (f *commandFreezer) freeze(ctx context.Context) error {
	_, err := f.output(ctx, f.freezeArgv)
	if err != nil {
		// It may have frozen something before it failed or hung.
		if _, thawErr := f.output(context.WithoutCancel(ctx), f.thawArgv); thawErr == nil {
			return fmt.Errorf("%w (and was thawed)", err)
		}
	}
	return err
}

func (f *commandFreezer) thaw(ctx context.Context) error {
	_, err := f.output(ctx, f.thawArgv)
	if hostcmd.ExitCode(err) > 0 {
		return fmt.Errorf("%w: %w", ErrNotHeld, err)
	}
	return err
}

func (f *commandFreezer) output(ctx context.Context, argv []string) (string, error) {
	res, err := f.run.Run(ctx, hostcmd.Cmd{Name: argv[0], Args: argv[1:], Timeout: f.timeout})
	return string(res.Stdout), err
}

// virshFreezer has libvirt speak to the guest agent. virsh says how many filesystems it froze and thawed.
type virshFreezer struct {
	commands    commandFreezer
	domain      string
	mountpoints []string
	frozen      int
}

func virshFreeze(domain string, mountpoints []string) []string {
	argv := []string{"virsh", "domfsfreeze", "--domain", domain}
	for _, point := range mountpoints {
		argv = append(argv, "--mountpoint", point)
	}
	return argv
}

// virshThaw thaws all that is frozen: the agent knows nothing else.
func virshThaw(domain string, _ []string) []string {
	return []string{"virsh", "domfsthaw", "--domain", domain}
}

func (f *virshFreezer) freeze(ctx context.Context) error {
	out, err := f.commands.output(ctx, virshFreeze(f.domain, f.mountpoints))
	if err == nil {
		if f.frozen, err = virshCount(out); err == nil && f.frozen == 0 {
			err = errors.New("the guest agent froze no filesystem")
		}
	}
	if err != nil {
		_, thawErr := f.commands.output(context.WithoutCancel(ctx), virshThaw(f.domain, nil))
		return errors.Join(err, thawErr)
	}
	return nil
}

func (f *virshFreezer) thaw(ctx context.Context) error {
	out, err := f.commands.output(ctx, virshThaw(f.domain, nil))
	if err != nil {
		return err
	}
	thawed, err := virshCount(out)
	if err == nil && thawed < f.frozen {
		return fmt.Errorf("%w: %d filesystems were frozen, and %d were to be thawed", ErrNotHeld, f.frozen, thawed)
	}
	return err
}

var countPattern = regexp.MustCompile(`\b(?:Froze|Thawed) (\d+) filesystem`)

// virshCount reads "Froze 2 filesystem(s)".
func virshCount(out string) (int, error) {
	found := countPattern.FindStringSubmatch(out)
	if found == nil {
		return 0, fmt.Errorf("cannot read what virsh says: %.80q", strings.TrimSpace(out))
	}
	return strconv.Atoi(found[1])
}

// agentFreezer speaks to the QEMU guest agent itself (qemu-ga protocol reference): one JSON object a line, after a
// synchronisation that throws away what an earlier client has left.
type agentFreezer struct {
	socket      string
	mountpoints []string
	frozen      int
}

func (f *agentFreezer) freeze(ctx context.Context) error {
	command, arguments := "guest-fsfreeze-freeze", any(nil)
	if len(f.mountpoints) > 0 {
		command, arguments = "guest-fsfreeze-freeze-list", map[string]any{"mountpoints": f.mountpoints}
	}
	err := agentAsk(ctx, f.socket, command, arguments, &f.frozen)
	if err == nil && f.frozen == 0 {
		err = errors.New("the guest agent froze no filesystem")
	}
	if err != nil {
		return errors.Join(err, agentThaw(context.WithoutCancel(ctx), f.socket, nil))
	}
	return nil
}

func (f *agentFreezer) thaw(ctx context.Context) error {
	var thawed int
	if err := agentThaw(ctx, f.socket, &thawed); err != nil {
		return err
	}
	if thawed < f.frozen {
		return fmt.Errorf("%w: %d filesystems were frozen, and %d were to be thawed", ErrNotHeld, f.frozen, thawed)
	}
	return nil
}

func agentThaw(ctx context.Context, socket string, thawed *int) error {
	if thawed == nil {
		thawed = new(int)
	}
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	return agentAsk(ctx, socket, "guest-fsfreeze-thaw", nil, thawed)
}

// agentSync is an arbitrary number that the agent repeats.
const agentSync = 1967

// maxAgentBytes bounds what is read from a guest, which is not trusted.
const maxAgentBytes = 1 << 20

// agentAsk runs one command on a connection of its own and decodes what it returns.
func agentAsk(ctx context.Context, socket, command string, arguments, result any) (err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("cannot reach the guest agent: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return fmt.Errorf("cannot bound the talk with the guest agent: %w", err)
		}
	}
	replies := json.NewDecoder(io.LimitReader(conn, maxAgentBytes))
	var id int
	if err := agentTell(conn, replies, "guest-sync", map[string]any{"id": agentSync}, &id); err != nil {
		return err
	}
	for id != agentSync { // answers to what an earlier client asked
		if err := agentReply(replies, "guest-sync", &id); err != nil {
			return err
		}
	}
	return agentTell(conn, replies, command, arguments, result)
}

func agentTell(conn io.Writer, replies *json.Decoder, command string, arguments, result any) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	line, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("cannot encode %s: %w", command, err)
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("cannot ask the guest agent for %s: %w", command, err)
	}
	return agentReply(replies, command, result)
}

func agentReply(replies *json.Decoder, command string, result any) error {
	var reply struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Desc string `json:"desc"`
		} `json:"error"`
	}
	if err := replies.Decode(&reply); err != nil {
		return fmt.Errorf("no answer of the guest agent to %s: %w", command, err)
	}
	if reply.Error != nil {
		return fmt.Errorf("the guest agent refuses %s: %.200s", command, reply.Error.Desc)
	}
	if err := json.Unmarshal(reply.Return, result); err != nil {
		if command == "guest-sync" {
			return nil // an older answer, of another shape
		}
		return fmt.Errorf("cannot read the guest agent's answer to %s: %w", command, err)
	}
	return nil
}
