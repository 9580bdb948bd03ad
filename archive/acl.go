package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
)

// Attributes that hold POSIX ACLs, in the form of linux/posix_acl_xattr.h.
const (
	aclAccessName  = "system.posix_acl_access"
	aclDefaultName = "system.posix_acl_default"
)

// XFS shows root its ACLs a second time, as it stores them. On any other filesystem they would be attributes without a
// meaning.
const (
	xfsACLAccessName  = "trusted.SGI_ACL_FILE"
	xfsACLDefaultName = "trusted.SGI_ACL_DEFAULT"
)

const (
	aclVersion    = 2
	aclHeadBytes  = 4
	aclEntryBytes = 8
)

// Tags of ACL entries.
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

// aclText turns the attribute that holds a POSIX ACL into the text that tar has in SCHILY.acl records: entries between
// commas, ids as numbers, since the names of the guest are not known here.
func aclText(raw []byte) (string, error) {
	if len(raw) < aclHeadBytes || (len(raw)-aclHeadBytes)%aclEntryBytes != 0 {
		return "", fmt.Errorf("cannot read an ACL of %d bytes", len(raw))
	}
	if v := binary.LittleEndian.Uint32(raw); v != aclVersion {
		return "", fmt.Errorf("cannot read an ACL of version %d", v)
	}
	var text []byte
	for raw = raw[aclHeadBytes:]; len(raw) > 0; raw = raw[aclEntryBytes:] {
		perm, id := binary.LittleEndian.Uint16(raw[2:]), binary.LittleEndian.Uint32(raw[4:])
		if len(text) > 0 {
			text = append(text, ',')
		}
		switch binary.LittleEndian.Uint16(raw) {
		case aclUserObj:
			text = append(text, "user::"...)
		case aclUser:
			text = append(strconv.AppendUint(append(text, "user:"...), uint64(id), 10), ':')
		case aclGroupObj:
			text = append(text, "group::"...)
		case aclGroup:
			text = append(strconv.AppendUint(append(text, "group:"...), uint64(id), 10), ':')
		case aclMask:
			text = append(text, "mask::"...)
		case aclOther:
			text = append(text, "other::"...)
		default:
			return "", errors.New("cannot read an ACL with an unknown tag")
		}
		for i, c := range []byte("rwx") {
			if perm&(4>>i) == 0 {
				c = '-'
			}
			text = append(text, c)
		}
	}
	return string(text), nil
}
