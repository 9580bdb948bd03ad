package store

import "context"

// Unavailable stands in for a store that could not be opened: every operation fails with the reason, in a WholeError. So one
// destination that is missing is reported where its backups would have been, and the others are used.
func Unavailable(where string, err error) Store { return unavailable{where, &WholeError{Err: err}} }

type unavailable struct {
	where string
	err   error
}

func (u unavailable) Create(context.Context, string, PutOptions) (Writer, error) { return nil, u.err }
func (u unavailable) Open(context.Context, string) (Reader, error)               { return nil, u.err }
func (u unavailable) Stat(context.Context, string) (Object, error)               { return Object{}, u.err }
func (u unavailable) List(context.Context, string) ([]Object, error)             { return nil, u.err }
func (u unavailable) Folders(context.Context, string) ([]string, error)          { return nil, u.err }
func (u unavailable) Look(context.Context, string, ...string) ([]Folder, error)  { return nil, u.err }
func (u unavailable) Delete(context.Context, string) error                       { return u.err }
func (u unavailable) Sweep(context.Context, string) (int64, error)               { return 0, u.err }
func (u unavailable) Probe(context.Context) ([]string, error)                    { return nil, u.err }
func (u unavailable) Usage(context.Context) (Usage, error)                       { return Usage{}, u.err }
func (u unavailable) String() string                                             { return u.where }
