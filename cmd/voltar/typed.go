package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"voltar/internal/progress"
)

// isTyped tells whether whoever gave the command reads what it says, and not a timer or cron: at a terminal, or over ssh, where the
// answer goes. What a person reads may be a terminal where the input is none. A unit of systemd (INVOCATION_ID) may write to a terminal
// (StandardOutput=tty); it has one of its own only where a person gave it that (`systemd-run --pty`).
func (a *app) isTyped() bool {
	if progress.IsTerminal(a.stdin) || a.ownsTerminal() {
		return true
	}
	if os.Getenv("INVOCATION_ID") != "" {
		return false
	}
	return progress.IsTerminal(a.rawOut.to) || progress.IsTerminal(a.rawErr) || isBelowSSH(a.proc, os.Getppid())
}

// ownsTerminal tells whether the process has a controlling terminal, wherever its input and output lead: cron and units have none.
func (a *app) ownsTerminal() bool {
	f, err := os.Open(a.tty)
	return err == nil && f.Close() == nil
}

// isBelowSSH tells whether a process, or one that it descends from, is a server of ssh. Environments do not tell: sudo drops
// SSH_CONNECTION, and at(1) keeps it. proc is the folder /proc; what cannot be read there ends the way up.
func isBelowSSH(proc string, pid int) bool {
	const deepest = 100
	for range deepest {
		stat, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat")) // 12 (name) S 1 ...
		begin, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		if err != nil || begin < 0 || end < begin {
			return false
		}
		if name := string(stat[begin+1 : end]); strings.HasPrefix(name, "sshd") || name == "dropbear" {
			return true
		}
		fields := bytes.Fields(stat[end+1:])
		if len(fields) < 2 {
			return false
		}
		if pid, err = strconv.Atoi(string(fields[1])); err != nil || pid <= 1 {
			return false
		}
	}
	return false
}
