package extent

import (
	"context"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/placement"
)

// earlier is what an extent's archive carries over from; nil inside where that is nothing.
type earlier struct{ *placement.Earlier }

// openEarlier opens what the earlier backup has of an extent. The caller must close it.
func (f *Files) openEarlier(ctx context.Context, x *Extent, state catalog.State) earlier {
	if f.Carry == nil {
		return earlier{}
	}
	return earlier{f.Carry.Open(ctx, x.Name, state, f.Level)}
}

// Carrier is for the writer of an archive.
func (e earlier) Carrier() archive.Carrier {
	if e.Earlier == nil {
		return nil
	}
	return e.Earlier
}

// Close lets the earlier archive go.
func (e earlier) Close() error {
	if e.Earlier == nil {
		return nil
	}
	return e.Earlier.Close()
}

// carried says what of an archive, of so many members and bytes, was taken over.
func (f *Files) carried(e earlier, taken archive.Carried, members, sizeBytes int64) *catalog.Carried {
	if e.Earlier == nil {
		return nil
	}
	return &catalog.Carried{
		From: f.Carry.From(), Members: taken.Members, Bytes: taken.Bytes,
		NewMembers: members - taken.Members, NewBytes: sizeBytes - taken.Bytes,
	}
}
