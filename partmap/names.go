package partmap

import (
	"strconv"
	"strings"
)

// MapName returns the name that kpartx gives a partition of a device, and sfdisk, too: the device's name and the number,
// with a "p" between them when the name ends in a digit.
func MapName(device string, number int) string {
	if n := len(device); n > 0 && device[n-1] >= '0' && device[n-1] <= '9' {
		device += "p"
	}
	return device + strconv.Itoa(number)
}

// DMName returns the device-mapper name of a logical volume, with the hyphens of both names doubled as lvm2 does.
func DMName(vg, lv string) string {
	return strings.ReplaceAll(vg, "-", "--") + "-" + strings.ReplaceAll(lv, "-", "--")
}
