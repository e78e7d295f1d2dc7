package peer

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"

	"aioc/lib/wire"
)

// recorder keeps what has been read from a connection.
type recorder struct {
	net.Conn
	read bytes.Buffer
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.read.Write(b[:n])
	return n, err
}

// prf12 is the pseudorandom function of TLS 1.2, RFC 5246 section 5.
func prf12(secret, seed []byte, size int) []byte {
	sum := func(parts ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	var out []byte
	for a := sum(seed); len(out) < size; a = sum(a) {
		out = append(out, sum(a, seed)...)
	}
	return out[:size]
}

// clientHello returns a TLS 1.2 handshake message that begins a new handshake.
func clientHello() []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...) // version, random
	body = append(body, 0)                            // no session
	body = append(body, 0, 2, 0xc0, 0x2b)             // one cipher suite
	body = append(body, 1, 0)                         // no compression
	body = append(body, 0, 5, 0xff, 1, 0, 1, 0)       // renegotiation_info
	return append([]byte{1, 0, 0, byte(len(body))}, body...)
}

func TestASecondTLSHandshakeEndsTheConnection(t *testing.T) {
	h := newHome(t, false)
	s := h.start(t, Options{})
	o := h.client(t, s, "pump7")
	first := runWith(t, o, nil)
	wait(t, "enrolled", s.conns)
	first.end()

	cfg, err := ClientTLS(o.Config, o.Client, true)
	if err != nil {
		t.Fatal(err)
	}
	var keys bytes.Buffer
	cfg = cfg.Clone()
	cfg.MaxVersion, cfg.KeyLogWriter = tls.VersionTLS12, &keys
	cfg.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	raw := &recorder{Conn: dialTo(t, s.Listener)}
	c := tls.Client(raw, cfg)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	far := wait(t, "identified", s.conns)

	// The key with which the client writes: RFC 5246 section 6.3.
	line := strings.Fields(keys.String())
	if len(line) != 3 || line[0] != "CLIENT_RANDOM" {
		t.Fatalf("key log: got %q", line)
	}
	clientRandom, err1 := hex.DecodeString(line[1])
	master, err2 := hex.DecodeString(line[2])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	hello := raw.read.Bytes() // record header 5, message header 4, version 2
	if len(hello) < 43 || hello[0] != 22 || hello[5] != 2 {
		t.Fatalf("no server hello: % x", hello[:min(len(hello), 43)])
	}
	serverRandom := hello[11:43]
	block := prf12(master, bytes.Join([][]byte{[]byte("key expansion"), serverRandom, clientRandom}, nil), 40)
	key, iv := block[:16], block[32:36]

	aead, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(aead)
	if err != nil {
		t.Fatal(err)
	}
	message := clientHello()
	const sequence = 1 // Finished was 0
	explicit := binary.BigEndian.AppendUint64(nil, sequence)
	extra := append(binary.BigEndian.AppendUint64(nil, sequence), 22, 3, 3, 0, byte(len(message)))
	sealed := gcm.Seal(nil, append(append([]byte(nil), iv...), explicit...), message, extra)
	record := append([]byte{22, 3, 3, 0, byte(len(explicit) + len(sealed))}, explicit...)
	if _, err := raw.Conn.Write(append(record, sealed...)); err != nil {
		t.Fatal(err)
	}
	var f wire.Frame
	err = far.Reader.Next(&f)
	if err == nil || !strings.Contains(err.Error(), "unexpected") {
		t.Errorf("the server: got %v, want an unexpected message", err)
	}
	if _, err := io.ReadAll(c); err == nil || !alerted(err) {
		t.Errorf("the client: got %v, want an alert", err)
	}
}
