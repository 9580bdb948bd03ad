package lvm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"voltar/internal/say"
)

// ThinPool is the state of a thin pool. Whoever fills one harms every volume in it.
type ThinPool struct {
	VG, Name, UUID  string
	SizeBytes       int64
	DataPercent     float64 // 0 to 100, or Unknown when not active
	MetadataBytes   int64
	MetadataPercent float64 // 0 to 100, or Unknown when not active
	WhenFull        string  // queue or error
	Health          string  // empty, out_of_data, metadata_read_only, failed, …
	CheckNeeded     bool
}

// ThinPool reads the state of a thin pool.
func (c *Client) ThinPool(ctx context.Context, vg, name string) (ThinPool, error) {
	v, err := c.Lookup(ctx, vg, name)
	if err != nil {
		return ThinPool{}, err
	}
	if v.Kind != KindThinPool {
		return ThinPool{}, fmt.Errorf("read thin pool %s: %w: it is %s", v, ErrNotOurs, v.Kind)
	}
	return poolOf(v), nil
}

func poolOf(v Volume) ThinPool {
	return ThinPool{
		VG: v.VG, Name: v.Name, UUID: v.UUID, SizeBytes: v.SizeBytes, DataPercent: v.DataPercent,
		MetadataBytes: v.MetadataBytes, MetadataPercent: v.MetadataPercent, WhenFull: v.WhenFull, Health: v.Health,
		CheckNeeded: v.CheckNeeded,
	}
}

// Check returns nil while the pool is healthy and below both limits, in percent; else an error with the numbers that
// wraps ErrPoolFull or ErrPoolUnhealthy.
func (p ThinPool) Check(limitData, limitMetadata float64) error {
	switch {
	case p.CheckNeeded:
		return say.WithHint(fmt.Errorf("%w: the metadata of %s/%s needs a check", ErrPoolUnhealthy, p.VG, p.Name),
			fmt.Sprintf("lvconvert --repair %s/%s", p.VG, p.Name))
	case p.DataPercent >= limitData || p.MetadataPercent >= limitMetadata:
	case p.Health != "":
		return fmt.Errorf("%w: %s/%s is %s", ErrPoolUnhealthy, p.VG, p.Name, p.Health)
	case p.DataPercent == Unknown || p.MetadataPercent == Unknown:
		return fmt.Errorf("%w: the use of %s/%s is unknown, as it is not active", ErrPoolUnhealthy, p.VG, p.Name)
	default:
		return nil
	}
	var full []string
	if p.DataPercent >= limitData {
		full = append(full, fmt.Sprintf("data %.2f %% of %s used, limit %g %%", p.DataPercent, say.Size(p.SizeBytes), limitData))
	}
	if p.MetadataPercent >= limitMetadata {
		full = append(full, fmt.Sprintf("metadata %.2f %% of %s used, limit %g %%",
			p.MetadataPercent, say.Size(p.MetadataBytes), limitMetadata))
	}
	return say.WithHint(fmt.Errorf("%w: %s/%s: %s", ErrPoolFull, p.VG, p.Name, strings.Join(full, "; ")),
		"extend it with lvextend (--poolmetadatasize for its metadata), or remove what is no longer needed")
}

// CheckPoolOf reads the state of the pool that a thin volume lives in, from the device-mapper or, where that cannot tell, from lvm2,
// and checks it against both limits, in percent.
func (c *Client) CheckPoolOf(ctx context.Context, v Volume, limitData, limitMetadata float64) (ThinPool, error) {
	p, err := c.kernelPool(v)
	if err != nil {
		p, err = c.ThinPool(ctx, v.VG, v.Pool)
	}
	if err != nil {
		return p, err
	}
	return p, p.Check(limitData, limitMetadata)
}

// PoolOf returns the pool that a thin volume lives in, as the report had it.
func (inv Inventory) PoolOf(v Volume) (ThinPool, error) {
	i := slices.IndexFunc(inv.Volumes, func(pool Volume) bool { return pool.UUID == v.PoolUUID && pool.Kind == KindThinPool })
	if i < 0 {
		return ThinPool{}, fmt.Errorf("find the thin pool %s/%s: %w", v.VG, v.Pool, ErrNotFound)
	}
	return poolOf(inv.Volumes[i]), nil
}
