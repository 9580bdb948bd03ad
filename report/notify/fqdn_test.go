package notify

import (
	"context"
	"errors"
	"net"
	"testing"
)

// hosts is a resolver of one host.
type hosts struct {
	addresses []string
	names     map[string][]string // by address
	canonical string
}

var errNoName = errors.New("no such name")

func (h hosts) LookupHost(context.Context, string) ([]string, error) {
	if h.addresses == nil {
		return nil, errNoName
	}
	return h.addresses, nil
}

func (h hosts) LookupAddr(_ context.Context, address string) ([]string, error) {
	if h.names[address] == nil {
		return nil, errNoName
	}
	return h.names[address], nil
}

func (h hosts) LookupCNAME(context.Context, string) (string, error) {
	if h.canonical == "" {
		return "", errNoName
	}
	return h.canonical, nil
}

func TestFullName(t *testing.T) {
	for _, c := range []struct {
		name, host string
		hosts      hosts
		want       string
	}{
		{"full already", "volumes.example.org", hosts{}, "volumes.example.org"},
		{"as Debian has it in /etc/hosts", "volumes", hosts{[]string{"127.0.1.1"},
			map[string][]string{"127.0.1.1": {"volumes", "volumes.example.org"}}, ""}, "volumes.example.org"},
		{"by DNS", "volumes", hosts{[]string{"192.0.2.1"}, nil, "volumes.example.org."}, "volumes.example.org"},
		{"another's name for its address", "volumes", hosts{[]string{"192.0.2.1"}, map[string][]string{"192.0.2.1": {"nat.example.net."}}, "volumes."}, ""},
		{"unknown", "volumes", hosts{}, ""},
	} {
		if got := FullName(t.Context(), c.hosts, c.host); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestLiteral(t *testing.T) {
	address := func(text string) net.Addr {
		ip, network, err := net.ParseCIDR(text)
		if err != nil {
			t.Fatal(err)
		}
		network.IP = ip
		return network
	}
	loopback, six, four := address("127.0.0.1/8"), address("2001:db8::1/64"), address("192.0.2.1/24")
	for want, addresses := range map[string][]net.Addr{
		"[127.0.0.1]": {loopback}, "[IPv6:2001:db8::1]": {loopback, six, address("fe80::1/64")}, "[192.0.2.1]": {loopback, six, four},
	} {
		if got := Literal(addresses); got != want {
			t.Errorf("%v: %s, want %s", addresses, got, want)
		}
	}
}
