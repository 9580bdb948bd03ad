package notify

import (
	"context"
	"net"
	"strings"
)

// Resolver looks names up; *net.Resolver does.
type Resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
	LookupCNAME(ctx context.Context, host string) (string, error)
}

// FullName gives the fully qualified name of a host, as `hostname -f` does: its addresses' names, as /etc/hosts or DNS has
// them, or its canonical name. It returns "" where there is none.
func FullName(ctx context.Context, resolver Resolver, host string) string {
	if isFull(host) {
		return strings.TrimSuffix(host, ".")
	}
	addresses, err := resolver.LookupHost(ctx, host)
	if err != nil {
		return ""
	}
	for _, address := range addresses {
		names, err := resolver.LookupAddr(ctx, address)
		if err != nil {
			continue // the next may have a name
		}
		for _, name := range names {
			if name = strings.TrimSuffix(name, "."); isFull(name) && strings.HasPrefix(name, host+".") {
				return name
			}
		}
	}
	if name, err := resolver.LookupCNAME(ctx, host); err == nil && isFull(name) {
		return strings.TrimSuffix(name, ".")
	}
	return ""
}

// isFull says that a name has a domain.
func isFull(name string) bool { return strings.Contains(strings.Trim(name, "."), ".") }

// Literal gives an address of this host as a client without a name has to greet a server (RFC 5321, 4.1.3): "[192.0.2.1]".
func Literal(addresses []net.Addr) string {
	best := "[127.0.0.1]"
	for _, address := range addresses {
		network, ok := address.(*net.IPNet)
		switch {
		case !ok || !network.IP.IsGlobalUnicast():
		case network.IP.To4() != nil:
			return "[" + network.IP.String() + "]"
		default:
			best = "[IPv6:" + network.IP.String() + "]"
		}
	}
	return best
}
