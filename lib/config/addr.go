package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Addr is a host and a port. Addrs may be compared with ==.
type Addr struct {
	Host string // name, address or network interface
	Port int    // 0 to 65535; 0 lets the system choose

	text string // the port as it was written, if it was written as a string
}

// ParseAddr reads HOST:PORT, as in 127.0.0.1:10673, eth0:10673 or [::1]:10673.
func ParseAddr(s string) (Addr, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return Addr{}, fmt.Errorf("address %q is not HOST:PORT, such as 127.0.0.1:10673 or [::1]:10673, with 0.0.0.0 for all addresses", s)
	}
	if err := validHost(host); err != nil {
		return Addr{}, fmt.Errorf("address %q: %w", s, err)
	}
	n, err := parsePort(port)
	if err != nil {
		return Addr{}, fmt.Errorf("address %q: %w", s, err)
	}
	return Addr{Host: host, Port: n}, nil
}

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("port %q is not a number from 0 to 65535", s)
	}
	return int(n), nil
}

func validHost(host string) error {
	if host == "" {
		return errors.New("the host is empty: write 0.0.0.0 for all addresses")
	}
	if len(host) > 255 || strings.ContainsFunc(host, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }) {
		return fmt.Errorf("host %q is neither a name, an address nor an interface", host)
	}
	return nil
}

// String returns HOST:PORT, with an IPv6 address in brackets.
func (a Addr) String() string { return net.JoinHostPort(a.Host, strconv.Itoa(a.Port)) }

// Text returns the address as Python prints the pair, which is the identity of
// a server: ('127.0.0.1', 10673), or ('127.0.0.1', '10673') if the port was
// written as a string.
func (a Addr) Text() string {
	port := a.portText()
	if a.text != "" {
		port = pythonRepr(port)
	}
	return "(" + pythonRepr(a.Host) + ", " + port + ")"
}

// ParseText reads the form of Text.
func ParseText(s string) (a Addr, ok bool) {
	inner := strings.TrimSuffix(strings.TrimPrefix(s, "("), ")")
	i := strings.LastIndex(inner, ", ")
	if i < 2 {
		return Addr{}, false
	}
	port := strings.Trim(inner[i+2:], "'")
	n, err := parsePort(port)
	if err != nil {
		return Addr{}, false
	}
	a = Addr{Host: inner[1 : i-1], Port: n}
	if port != inner[i+2:] {
		a.text = port
	}
	return a, a.Text() == s && validHost(a.Host) == nil
}

// Line returns "HOST PORT", the form of active_connectors.json.
func (a Addr) Line() string { return a.Host + " " + a.portText() }

func (a Addr) portText() string {
	if a.text != "" {
		return a.text
	}
	return strconv.Itoa(a.Port)
}

// decodeAddr reads [host, port].
func decodeAddr(raw []byte) (Addr, string) {
	const want = `an array of host and port, such as ["127.0.0.1", 10673]`
	pair, ok := decodeArray(raw)
	if !ok || len(pair) != 2 {
		return Addr{}, want
	}
	host, ok := decodeString(pair[0])
	if !ok {
		return Addr{}, want
	}
	if err := validHost(host); err != nil {
		return Addr{}, want + " (" + err.Error() + ")"
	}
	port, text, ok := decodePort(pair[1])
	if !ok {
		return Addr{}, want + ", with a port from 0 to 65535"
	}
	return Addr{host, port, text}, ""
}

// decodePort reads a port written as a number, or as a string of digits, which
// is then returned too.
func decodePort(raw []byte) (port int, text string, ok bool) {
	if s, isString := decodeString(raw); isString {
		port, err := parsePort(s)
		return port, s, err == nil
	}
	n, ok := decodeInt(raw)
	return int(n), "", ok && n >= 0 && n <= 65535
}

func (a Addr) appendJSON(dst []byte) []byte {
	dst = appendString(append(dst, '['), a.Host)
	dst = append(dst, ',')
	dst = a.appendPort(dst)
	return append(dst, ']')
}

func (a Addr) appendPort(dst []byte) []byte {
	if a.text != "" {
		return appendString(dst, a.text)
	}
	return strconv.AppendInt(dst, int64(a.Port), 10)
}

// BindHost returns the address to bind to or to connect to for a configured
// host. A host that names a network interface, and is neither an address nor
// contains a dot, stands for the interface's first IPv4 address, or its first
// IPv6 address if it has no other; any other host is returned as it is. The
// error is that of an interface without address.
func BindHost(host string) (string, error) {
	if strings.Contains(host, ".") {
		return host, nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return host, nil
	}
	itf, err := net.InterfaceByName(host)
	if err != nil {
		return host, nil // a name for the resolver, as localhost is
	}
	addrs, err := itf.Addrs()
	if err != nil {
		return "", fmt.Errorf("interface %s: %w", host, err)
	}
	first := ""
	for _, a := range addrs {
		ipNet, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip := ipNet.IP.To4(); ip != nil {
			return ip.String(), nil
		}
		if first == "" {
			first = ipNet.IP.String()
			if ipNet.IP.IsLinkLocalUnicast() {
				first += "%" + host
			}
		}
	}
	if first == "" {
		return "", fmt.Errorf("interface %s has no address: bring it up, or write an address instead", host)
	}
	return first, nil
}

// pythonRepr returns the text that Python's repr gives for a str.
func pythonRepr(s string) string {
	quote := '\''
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	var b strings.Builder
	b.WriteRune(quote)
	for _, r := range s {
		switch {
		case r == quote || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < utf8.RuneSelf && r >= ' ' && r != 0x7f || r >= utf8.RuneSelf && unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	b.WriteRune(quote)
	return b.String()
}
