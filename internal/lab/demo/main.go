// Demo shows two nights of voltar on real logical volumes, in a throw-away machine: it boots one, runs demo.sh in it and
// leaves backups and mails in the folder demo. `make demo` calls it with the paths of the program and of an S3 server.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"voltar/internal/lab"
)

//go:embed demo.sh
var script string

// diskBytes is the size of the volume group's disk, a sparse file.
const diskBytes = 3 << 30

func main() {
	if len(os.Args) == 3 && os.Args[1] == "mail-server" {
		fail(serveMail(os.Args[2]))
	}
	if len(os.Args) != 3 {
		fail(errors.New("usage: demo PATH-OF-VOLTAR PATH-OF-VERSITYGW"))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status, err := demo(ctx, os.Args[1], os.Args[2])
	stop()
	fail(err)
	os.Exit(status)
}

// fail ends the program when there is an error.
func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo runs the script in a machine and returns its status.
func demo(ctx context.Context, voltar, versitygw string) (status int, err error) {
	program, err := filepath.Abs(voltar)
	if err != nil {
		return 0, err
	}
	server, err := filepath.Abs(versitygw)
	if err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	share, err := filepath.Abs("demo")
	if err != nil {
		return 0, err
	}
	if err := os.RemoveAll(share); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(share, 0o755); err != nil {
		return 0, err
	}
	work, err := os.MkdirTemp("", "voltar-demo-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	disk := filepath.Join(work, "disk.img")
	if err := lab.NewDisk(disk, diskBytes); err != nil {
		return 0, err
	}
	return lab.Run(ctx, lab.Machine{
		Script: fmt.Sprintf("VOLTAR='/host%s'\nVERSITYGW='/host%s'\nDEMO='/host%s'\n%s", program, server, self, script),
		Stdout: os.Stdout, MemoryBytes: 3 << 30, Disk: disk, Share: share,
	})
}
