package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// injection is one way in which system calls of a kind fail.
type injection struct {
	calls string // names for strace
	how   string // strace(1), inject
	cause string
}

// injections are tried at several calls of each step. Of write(2) the Go runtime makes some of its own, which no program
// outlives.
var injections = []injection{
	{"write", "error=ENOSPC", "no space left"},
	{"write", "error=EIO", "input/output error"},
	{"write", "error=EDQUOT", "disk quota exceeded"},
	{"write", "error=ENOMEM", "cannot allocate memory"},
	{"write", "error=EROFS", "read-only file system"},
	{"pwrite64", "error=ENOSPC", "no space left"},
	{"fsync,fdatasync", "error=EIO", "input/output error"},
	{"fsync,fdatasync", "error=ENOSPC", "no space left"},
	{"fsync,fdatasync", "error=EDQUOT", "disk quota exceeded"},
	{"fsync,fdatasync", "error=ENOMEM", "cannot allocate memory"},
	{"rename,renameat,renameat2", "error=EIO", "input/output error"},
	{"rename,renameat,renameat2", "error=ENOSPC", "no space left"},
	{"rename,renameat,renameat2", "error=EROFS", "read-only file system"},
	{"rename,renameat,renameat2", "error=ENOMEM", "cannot allocate memory"},
	{"openat", "error=EIO", "input/output error"},
	{"openat", "error=ENOSPC", "no space left"},
	{"openat", "error=EMFILE", "too many open files"},
	{"openat", "error=ENOMEM", "cannot allocate memory"},
	{"mkdir,mkdirat", "error=EROFS", "read-only file system"},
	{"mkdir,mkdirat", "error=EDQUOT", "disk quota exceeded"},
	{"unlink,unlinkat,rmdir", "error=EIO", "input/output error"},
	{"unlink,unlinkat,rmdir", "error=EROFS", "read-only file system"},
	{"ftruncate", "error=EIO", "input/output error"},
	{"flock", "error=ENOLCK", "no locks available"},
	{"getdents64", "error=EIO", "input/output error"},
	{"pread64", "error=EIO", "input/output error"},
	{"pread64", "retval=0", "(?i)eof|short|ended|bytes|shrunk"},
	{"read", "error=EIO", "input/output error"},
	{"read", "retval=0", "(?i)eof|short|ended|bytes|shrunk|json|empty|broken pipe|there is no destination"}, // the last in a configuration
	{"lseek", "error=EIO", "input/output error"},
	{"ioctl", "error=EIO", "input/output error"},
	{"statfs,fstatfs", "error=EIO", "input/output error"},
	{"newfstatat,fstat,statx", "error=EIO", "input/output error"},
	{"clone,clone3,vfork", "error=EAGAIN", "resource temporarily unavailable"},
	{"fsync,fdatasync", "signal=KILL", ""},
	{"rename,renameat,renameat2", "signal=KILL", ""},
	{"unlink,unlinkat,rmdir", "signal=KILL", ""},
	{"ioctl", "signal=KILL", ""}, // as in the middle of sharing blocks
}

// moments are at which call of its thread an injection strikes.
var moments = []int{1, 2, 4, 8}

func systemCallFaults() []fault {
	var list []fault
	for _, s := range []step{stepRun, stepRestore, stepPrune, stepCleanup} {
		for _, in := range injections {
			for _, moment := range moments {
				class := "system call"
				if in.cause == "" {
					class = "signal"
				}
				list = append(list, fault{
					step: s, class: class, name: fmt.Sprintf("%s %s at %d", in.calls, in.how, moment), cause: in.cause,
					arm: armInjection(in, moment),
				})
			}
		}
	}
	return list
}

// armInjection starts the program under strace, which does not follow the commands that it calls.
func armInjection(in injection, moment int) func(*testing.T, *host) armed {
	return func(t *testing.T, _ *host) armed {
		trace := filepath.Join(t.TempDir(), "trace")
		return armed{
			under: []string{
				"/usr/bin/strace", "-f", "-b", "execve", "--seccomp-bpf", "-qq", "-o", trace, "-e", "trace=" + in.calls, "-e", "signal=none",
				"-e", fmt.Sprintf("inject=%s:%s:when=%d", in.calls, in.how, moment),
			},
			struck: func() bool {
				text, err := os.ReadFile(trace)
				return err == nil && (strings.Contains(string(text), "(INJECTED)") || strings.Contains(string(text), "killed by SIGKILL"))
			},
		}
	}
}
