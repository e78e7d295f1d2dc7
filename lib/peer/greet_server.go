package peer

import (
	"fmt"

	"aioc/lib/config"
	"aioc/lib/wire"
)

// refusal is why a client was refused.
type refusal struct {
	reason string // one of the Reason constants
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// refuse returns a refusal.
func refuse(reason, format string, args ...any) error {
	return &refusal{reason, fmt.Errorf(format, args...)}
}

// greetServer reads what a new client says first and returns its name. The
// connection has a deadline and the reader a small limit; what follows the
// handshake stays in the reader.
func greetServer(m mode, r *wire.Reader) (name string, err error) {
	var f wire.Frame
	if err := r.Next(&f); err != nil {
		return "", err
	}
	switch m {
	case modePlain, modeAnonymous:
		return readHello(m.hello(), &f)
	}
	return "", fmt.Errorf("no handshake for mode %d", m) // Options.check has refused it
}

// readHello returns the name in the hello f, which must be of the given type.
//
// Differs: the hello comes first and once. The original takes messages before
// it, and a second one renames the connection (aioconnectors connection.py).
func readHello(messageType string, f *wire.Frame) (name string, err error) {
	h := f.Header
	switch got := string(h.Type); {
	case got == messageType:
	case got == wire.TypeHelloPlain:
		return "", refuse(ReasonHello, "hello of a client whose use_ssl is false: set it alike at both ends")
	case got == wire.TypeHelloTLS:
		return "", refuse(ReasonHello, "hello of a client whose use_ssl is true: set it alike at both ends")
	case got == wire.TypeToken:
		return "", refuse(ReasonHello, "hello of a client whose use_token is true: set it alike at both ends")
	case got == wire.TypeSSL:
		return "", refuse(ReasonHello, "the client asks for a certificate, its ssl_allow_all is false: set it alike at both ends")
	case h.Type == nil:
		return "", refuse(ReasonHello, "first message has no type")
	default:
		return "", refuse(ReasonHello, "first message is %s, not a hello", quote(h.Type))
	}
	if string(f.Data) != wire.HelloData {
		return "", refuse(ReasonHello, "hello has other data: %s", quote(f.Data))
	}
	if h.Source == nil {
		return "", refuse(ReasonName, "hello has no source_id")
	}
	if err := config.ValidName(string(h.Source)); err != nil {
		return "", &refusal{ReasonName, err}
	}
	return string(h.Source), nil
}

// quote returns the beginning of what a stranger sent, for an error.
func quote(b []byte) string {
	const most = 40
	if len(b) > most {
		return fmt.Sprintf("%q...", b[:most])
	}
	return fmt.Sprintf("%q", b)
}
