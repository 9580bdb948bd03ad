// Demo-mail takes every mail on the loopback, in the machine of demo.sh, and keeps the latest in a file, as it came. `make demo`
// runs the script, and so does a test.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/emersion/go-smtp"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demo-mail FILE")
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "demo-mail:", serve(os.Args[1]))
	os.Exit(1)
}

// serve takes mails until it fails.
func serve(file string) error {
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return session{file}, nil }))
	server.Addr, server.Domain = "127.0.0.1:25", "localhost"
	server.ReadTimeout, server.WriteTimeout = time.Minute, time.Minute
	server.ErrorLog = log.New(os.Stderr, "demo-mail: ", 0)
	return server.ListenAndServe()
}

type session struct{ file string }

func (session) Mail(string, *smtp.MailOptions) error { return nil }
func (session) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (session) Reset()                               {}
func (session) Logout() error                        { return nil }

// Data keeps one mail in place of the one before.
func (s session) Data(r io.Reader) error {
	file, err := os.OpenFile(s.file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, r); err != nil {
		_ = file.Close() // the first error counts
		return err
	}
	return file.Close()
}
