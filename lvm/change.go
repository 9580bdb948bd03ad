package lvm

import (
	"context"
	"errors"
	"fmt"
)

// VolumeRequest says what volume to make.
type VolumeRequest struct {
	VG, Name  string
	SizeBytes int64    // rounded up to extents
	Pool      string   // the thin pool to make it in; empty for a linear volume
	Tags      []string // set in the same step
}

// CreateVolume makes a linear or thin volume, active, without what an older volume may
// have left at its start, and waits for its
// device node. SizeBytes of the result is what lvm2 made of the request. When it returns an error it has removed what
// it made, provided that there are tags to know it by, or says that it could not.
func (c *Client) CreateVolume(ctx context.Context, req VolumeRequest) (Volume, error) {
	fail := func(err error) (Volume, error) {
		return Volume{}, fmt.Errorf("create volume %s/%s: %w", req.VG, req.Name, err)
	}
	if err := ValidVolumeName(req.VG, req.Name); err != nil {
		return fail(err)
	}
	if req.SizeBytes <= 0 {
		return fail(fmt.Errorf("cannot make a volume of %d bytes", req.SizeBytes))
	}
	switch _, err := c.Lookup(ctx, req.VG, req.Name); {
	case err == nil:
		return fail(ErrExists)
	case !errors.Is(err, ErrNotFound):
		return fail(err)
	}
	tags, err := tagArgs("--addtag", req.Tags)
	if err != nil {
		return fail(err)
	}
	args := append([]string{"-y", "-ay", "-n", req.Name}, tags...)
	if req.Pool != "" {
		args = append(args, "-V", bytesArg(req.SizeBytes), "-T", req.VG+"/"+req.Pool) // reads as zeros from the start
	} else {
		args = append(args, "-Wy", "-Zy", "-L", bytesArg(req.SizeBytes), req.VG)
	}
	_, err = c.change(ctx, "lvcreate", args...)
	if err != nil && noSpace(err) {
		err = errors.Join(ErrNoSpace, err)
	}
	var v Volume
	if err == nil {
		v, err = c.ready(ctx, req.VG, req.Name)
	}
	if err != nil {
		return fail(errors.Join(err, c.undoCreate(ctx, err, req.VG, req.Name, req.Tags)))
	}
	return v, nil
}

// Activate makes a volume's device appear on this host, the activation-skip flag notwithstanding, and returns the
// volume as it then is.
func (c *Client) Activate(ctx context.Context, vg, name string) (Volume, error) {
	_, err := c.change(ctx, "lvchange", "-y", "-ay", "-K", vg+"/"+name)
	var v Volume
	if err == nil {
		v, err = c.ready(ctx, vg, name)
	}
	if err != nil {
		return Volume{}, fmt.Errorf("activate %s/%s: %w", vg, name, err)
	}
	return v, nil
}

// Deactivate takes a volume's device away. It refuses classic snapshots and their origins, which lvm2 deactivates all
// together.
func (c *Client) Deactivate(ctx context.Context, vg, name string) error {
	v, err := c.Lookup(ctx, vg, name)
	if err == nil && (v.IsClassicSnapshot() || v.HasClassicSnapshots()) {
		err = errors.New("cannot deactivate it alone: origin and classic snapshots go together")
	}
	if err == nil && v.Active {
		_, err = c.change(ctx, "lvchange", "-y", "-an",
			"--config", unmonitored, v.String())
		if err != nil {
			err = c.explainBusy(ctx, v, err)
		}
	}
	if err != nil {
		return fmt.Errorf("deactivate %s/%s: %w", vg, name, err)
	}
	return nil
}

// AddTag adds a tag to a volume; one that it has already is a success.
func (c *Client) AddTag(ctx context.Context, vg, name, tag string) error {
	return c.changeTag(ctx, "--addtag", vg, name, tag)
}

// DelTag takes a tag from a volume; one that it lacks is a success.
func (c *Client) DelTag(ctx context.Context, vg, name, tag string) error {
	return c.changeTag(ctx, "--deltag", vg, name, tag)
}

func (c *Client) changeTag(ctx context.Context, flag, vg, name, tag string) error {
	args, err := tagArgs(flag, []string{tag})
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		_, err = c.change(ctx, "lvchange", append(append([]string{"-y"}, args...), vg+"/"+name)...)
		// It may have been ended when it had done its work, or have said that it did what it had not.
		if v, lookErr := c.Lookup(context.WithoutCancel(ctx), vg, name); lookErr == nil {
			switch isDone := v.HasTag(tag) == (flag == "--addtag"); {
			case isDone:
				return nil
			case err == nil:
				err = errors.New("lvchange succeeded, and the tags are as they were")
			}
		}
	}
	if err != nil {
		return fmt.Errorf("change tag %s of %s/%s: %w", tag, vg, name, err)
	}
	return nil
}
