// Package faults tries the program as it is shipped against everything that can go wrong around it. Its tests build the
// binary as `make build` does, start it in a lab machine, and break one thing from outside at one step: a command that it
// calls, a system call that it makes, the devices below it, the clock, the mail server, itself. After each fault the same
// invariants must hold; docs/reliability.md has them, the table of what was tried, and how to run it.
package faults
