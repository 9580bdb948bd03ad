package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"voltar/internal/catalog"
	"voltar/internal/store"
)

// checkPartners looks whether the backups stand that belong with this one: those of other volumes on which a volume group
// of the guest lies too.
func (v *verifier) checkPartners(ctx context.Context) error {
	for _, id := range v.backup.Manifest.Partners() {
		partner, err := catalog.Load(ctx, v.store, v.backup.Host, id)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		what := whatOf(v.backup.Manifest, id)
		var message string
		switch {
		case errors.Is(err, store.ErrNotExist):
			message = fmt.Sprintf("the backup %s is missing, which has %s", id, what)
		case err != nil:
			message = fmt.Sprintf("the backup %s cannot be used, which has %s: %v", id, what, err)
		case !slices.ContainsFunc(partner.Manifest.Partners(), func(other catalog.ID) bool { return other.Compare(v.backup.ID) == 0 }):
			message = fmt.Sprintf("the backup %s does not belong with it, which should have %s", id, what)
		default:
			continue
		}
		v.result.Findings = append(v.result.Findings, Finding{Message: message})
	}
	return nil
}

// whatOf says what a partner of a backup has that the backup needs.
func whatOf(m *catalog.Manifest, partner catalog.ID) string {
	for _, x := range m.Extents {
		if x.PV != nil && x.PV.Home == partner.String() {
			return "the logical volumes of the guest's volume group " + x.PV.VG
		}
	}
	for _, x := range m.Extents {
		if x.PV != nil && slices.ContainsFunc(x.PV.Others, func(o catalog.OtherShare) bool { return o.Backup == partner.String() }) {
			return fmt.Sprintf("the part of the guest's volume group %s on %s", x.PV.VG, partner.Ref)
		}
	}
	return "a part of it"
}
