package config

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestParseAddr(t *testing.T) {
	for text, want := range map[string]Addr{
		"127.0.0.1:10673":     {Host: "127.0.0.1", Port: 10673},
		"[::1]:1":             {Host: "::1", Port: 1},
		"[fe80::1%eth0]:1":    {Host: "fe80::1%eth0", Port: 1},
		"eth0:65535":          {Host: "eth0", Port: 65535},
		"café.example.org:80": {Host: "café.example.org", Port: 80},
		"h:0":                 {Host: "h"},
	} {
		got, err := ParseAddr(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", text, got, err, want)
		}
		if got.String() != text {
			t.Errorf("%s: printed as %s", text, got)
		}
	}
	for _, text := range []string{"", "127.0.0.1", ":10673", "::1:80", "h:65536", "h:-1", "h:http", "h:+1", "a b:1", "h\n:1", "h:1 "} {
		if got, err := ParseAddr(text); err == nil {
			t.Errorf("%q: accepted as %+v", text, got)
		}
	}
}

func TestAddrTextIsPythons(t *testing.T) {
	for text, want := range map[string]string{
		`["127.0.0.1", 10673]`:        `('127.0.0.1', 10673)`,
		`["127.0.0.1", "10673"]`:      `('127.0.0.1', '10673')`,
		`["127.0.0.1", "010"]`:        `('127.0.0.1', '010')`,
		`["a'b", 1]`:                  `("a'b", 1)`,
		`["a\"b", 1]`:                 `('a"b', 1)`,
		`["a'b\"c", 1]`:               `('a\'b"c', 1)`,
		`["a\\b", 1]`:                 `('a\\b', 1)`,
		`["\u00e9\ud83d\ude00", 1.0]`: `('é😀', 1)`,
	} {
		addr, problem := decodeAddr([]byte(text))
		if problem != "" || addr.Text() != want {
			t.Errorf("%s: got %s %s, want %s", text, addr.Text(), problem, want)
		}
	}
	if got, want := pythonRepr("\n\r\t\x00\x7f\u00a0\u2028\U000e0001"), `'\n\r\t\x00\x7f\xa0\u2028\U000e0001'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestBindHost(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "::1", "localhost", "my-host.example.org", "no-such-interface"} {
		if got, err := BindHost(host); got != host || err != nil {
			t.Errorf("%s: got %s, %v, want it unchanged", host, got, err)
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, itf := range interfaces {
		addrs, err := itf.Addrs()
		if err != nil || strings.Contains(itf.Name, ".") {
			continue
		}
		got, err := BindHost(itf.Name)
		if len(addrs) == 0 {
			if err == nil || !strings.Contains(err.Error(), itf.Name+" has no address") {
				t.Errorf("%s without address: got %s, %v", itf.Name, got, err)
			}
			continue
		}
		ip, parseErr := netip.ParseAddr(got)
		if err != nil || parseErr != nil {
			t.Errorf("%s: got %s, %v, want one of %v", itf.Name, got, err, addrs)
			continue
		}
		found, has4 := false, false
		for _, a := range addrs {
			ipNet := a.(*net.IPNet)
			found = found || ipNet.IP.Equal(net.IP(ip.WithZone("").AsSlice()))
			has4 = has4 || ipNet.IP.To4() != nil
		}
		if !found || has4 != ip.Is4() {
			t.Errorf("%s: got %s, want one of %v, IPv4 first", itf.Name, got, addrs)
		}
	}
}

func TestParseTextReadsWhatTextWrites(t *testing.T) {
	for _, a := range []Addr{{Host: "127.0.0.1", Port: 10673}, {Host: "::1", Port: 1}, {Host: "h", Port: 443, text: "443"}} {
		if got, ok := ParseText(a.Text()); !ok || got != a {
			t.Errorf("%s: got %+v, %v, want %+v", a.Text(), got, ok, a)
		}
	}
	for _, s := range []string{"", "pump7", "(", "('h')", "('h', x)", "('', 1)", "'h', 1", "(, 1)", "('h', 1", "('h', 99999)"} {
		if got, ok := ParseText(s); ok {
			t.Errorf("%q: got %+v", s, got)
		}
	}
}
