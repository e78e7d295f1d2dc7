package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"aioc/lib/wire"
)

func TestADefaultCertificateIsForEnrolmentOnly(t *testing.T) {
	for _, test := range []struct{ name, header, data, reason string }{
		{"a message", `{"message_type": "any", "source_id": "pump7"}`, "x", ReasonHello},
		{"a ping", `{"message_type": "_ping", "source_id": "pump7"}`, "x", ReasonHello},
		{"a hello", `{"message_type": "_handshake_ssl", "source_id": "pump7"}`, "hello", ReasonHello},
		{"another command", `{"message_type": "_ssl", "source_id": "pump7"}`, `{"cmd": "set_new_certificate"}`, ReasonHello},
		{"no JSON", `{"message_type": "_ssl", "source_id": "pump7"}`, `get_new_certificate`, ReasonHello},
		{"no name", `{"message_type": "_ssl"}`, `{"cmd": "get_new_certificate"}`, ReasonName},
		{"a name with a newline behind it", `{"message_type": "_ssl", "source_id": "pump7\n"}`, `{"cmd": "get_new_certificate"}`, ReasonName},
		{"a name with path parts", `{"message_type": "_ssl", "source_id": "../../x"}`, `{"cmd": "get_new_certificate"}`, ReasonName},
		{"the name of a default certificate", `{"message_type": "_ssl", "source_id": "default2"}`, `{"cmd": "get_new_certificate"}`, ReasonName},
		{"a request that is none", `{"message_type": "_ssl", "source_id": "pump7"}`, `{"cmd": "get_new_certificate", "csr": "x"}`, ReasonIssue},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHome(t, false)
			s := h.start(t, Options{})
			c := dialAs(t, s, h.client(t, s, "pump7"), false)
			if _, err := c.Write(frame(test.header, test.data)); err != nil {
				t.Fatal(err)
			}
			if got := wait(t, "reason", s.refused); got != test.reason {
				t.Errorf("reason: got %q, want %q", got, test.reason)
			}
			ended(t, c)
			none(t, "identified", s.conns)
			if names := h.server.Names(); len(names) != 0 {
				t.Errorf("certificates were made for %q", names)
			}
			s.end()
			if lines := s.log.lines(t, slog.LevelInfo); len(lines) != 1 || lines[0].Msg != "client refused" {
				t.Errorf("log: got %+v, want one line", lines)
			}
		})
	}
}

func TestCertificatesThatAreNotKnownAreRefused(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	own := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	modes(t, func(t *testing.T, h *home) {
		for _, test := range []struct {
			name   string
			tls    *tls.Config
			reason string
			text   string
		}{
			{"one of its own", &tls.Config{Certificates: []tls.Certificate{own}}, ReasonCertificate, "not known here"},
			{"one of its own in TLS 1.2", &tls.Config{Certificates: []tls.Certificate{own}, MaxVersion: tls.VersionTLS12}, ReasonCertificate, "not known here"},
			{"none", &tls.Config{}, ReasonCertificate, "shows no certificate"},
			{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, ReasonTLS, "unsupported versions"},
		} {
			t.Run(test.name, func(t *testing.T) {
				s := h.start(t, Options{})
				test.tls.InsecureSkipVerify = true
				c := tls.Client(dialTo(t, s.Listener), test.tls)
				_, err := c.Write(frame(`{"message_type": "any", "source_id": "pump7"}`, "x"))
				if err == nil {
					ended(t, c)
				}
				if got := wait(t, "reason", s.refused); got != test.reason {
					t.Errorf("reason: got %q, want %q", got, test.reason)
				}
				none(t, "identified", s.conns)
				s.end()
				if lines := s.log.lines(t, slog.LevelInfo); len(lines) != 1 || !strings.Contains(lines[0].Err, test.text) {
					t.Errorf("log: got %+v, want one line with %q", lines, test.text)
				}
			})
		}
	})
}

func TestOnlyTheRightTokenIsTaken(t *testing.T) {
	h := newHome(t, true)
	token, err := h.tokens.New("pump7")
	if err != nil {
		t.Fatal(err)
	}
	other, err := h.tokens.New("pump8")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, client, data, reason string }{
		{"the right one", "pump7", `{"cmd": "authenticate", "token": "` + token + `"}`, ""},
		{"that of another client", "pump7", `{"cmd": "authenticate", "token": "` + other + `"}`, ReasonToken},
		{"another one of the same length", "pump7", `{"cmd": "authenticate", "token": "` + strings.Repeat("0", 64) + `"}`, ReasonToken},
		{"a shorter one", "pump7", `{"cmd": "authenticate", "token": "` + token[:63] + `"}`, ReasonToken},
		{"a longer one", "pump7", `{"cmd": "authenticate", "token": "` + strings.Repeat("0", 6400) + `"}`, ReasonToken},
		{"an empty one", "pump7", `{"cmd": "authenticate", "token": ""}`, ReasonToken},
		{"none", "pump7", `{"cmd": "authenticate"}`, ReasonToken},
		{"one that is no text", "pump7", `{"cmd": "authenticate", "token": [1]}`, ReasonToken},
		{"of a client without one", "pump9", `{"cmd": "authenticate", "token": "` + token + `"}`, ReasonToken},
		{"a name with a newline behind it", `pump7\n`, `{"cmd": "authenticate", "token": "` + token + `"}`, ReasonName},
		{"another command", "pump7", `{"cmd": "delete", "token": "` + token + `"}`, ReasonHello},
		{"no JSON", "pump7", token, ReasonHello},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := h.start(t, Options{})
			c := dialAs(t, s, h.client(t, s, "pump7"), false)
			if _, err := c.Write(frame(`{"message_type": "_token", "source_id": "`+test.client+`"}`, test.data)); err != nil {
				t.Fatal(err)
			}
			if test.reason == "" {
				var f wire.Frame
				if err := wire.NewReader(c, 1000).Next(&f); err != nil || string(f.Header.Type) != "_token" || string(f.Data) != `{"result": "success"}` {
					t.Errorf("got %s %s, %v", f.Header.Type, f.Data, err)
				}
				wait(t, "identified", s.conns)
				return
			}
			if got := wait(t, "reason", s.refused); got != test.reason {
				t.Errorf("reason: got %q, want %q", got, test.reason)
			}
			ended(t, c)
			s.end()
			s.log.mu.Lock()
			defer s.log.mu.Unlock()
			if text := s.log.buf.String(); strings.Contains(text, token) || strings.Contains(text, other) {
				t.Error("a token is in the log")
			}
		})
	}
}
