package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"aioc/lib/config"
)

// maxProxyAnswer bounds what a proxy may say before the tunnel, in bytes.
const maxProxyAnswer = 16 << 10

// dialProxy connects to server_sockaddr through the proxy, from client_bind_ip if
// there is one. The name of the server is looked up by the proxy.
//
// Differs: the request is in the form that proxies of today want, with a Host
// header, the answer is read to its end however it is split, and ssl_server
// works (aioconnectors core.py reads once, and cannot do TLS there).
func (d *Dialer) dialProxy(ctx context.Context) (net.Conn, error) {
	proxy := d.o.Config.Proxy
	c, err := d.tunnel(ctx, proxy)
	if err == nil {
		return c, nil
	}
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w: %w", err, ctx.Err())
	}
	return nil, fmt.Errorf("proxy %s: %w", proxy.Addr, bare(err))
}

// tunnel is dialProxy without the proxy's name in its errors.
func (d *Dialer) tunnel(ctx context.Context, proxy config.Proxy) (net.Conn, error) {
	user, password := proxy.Username, proxy.Password
	if d.o.ProxyAuthorization != nil {
		var err error
		if user, password, err = d.o.ProxyAuthorization(ctx, user, password); err != nil {
			return nil, &localError{fmt.Errorf("hook_proxy_authorization: %w", err)}
		}
		if strings.Contains(user, ":") {
			return nil, &localError{errors.New("hook_proxy_authorization: a user name cannot contain a colon")}
		}
	}
	request, err := connectRequest(d.o.Config.ServerAddr, user, password)
	if err != nil {
		return nil, err
	}
	raw, err := d.dialTo(ctx, "proxy", proxy.Addr)
	if err != nil {
		return nil, err
	}
	setup(raw)
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	c := raw
	if proxy.TLS {
		if c, err = proxyTLS(ctx, raw, proxy.Addr.Host, d.o.Config.ProxyCAFile); err != nil {
			raw.Close()
			return nil, err
		}
	}
	if _, err = c.Write(request); err == nil {
		if err = readConnected(c, user != "", proxy.TLS); err != nil {
			err = &proxyError{err}
		}
	}
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// connectRequest returns what asks the proxy for a tunnel.
func connectRequest(server config.Addr, user, password string) ([]byte, error) {
	host := net.JoinHostPort(server.Host, strconv.Itoa(server.Port))
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return nil, fmt.Errorf("server_sockaddr: host %q cannot be in a request", server.Host)
	}
	b := []byte("CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\n")
	if user != "" {
		b = append(b, "Proxy-Authorization: Basic "...)
		b = base64.StdEncoding.AppendEncode(b, []byte(user+":"+password))
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

// proxyTLS does TLS with the proxy itself.
func proxyTLS(ctx context.Context, raw net.Conn, host, cafile string) (net.Conn, error) {
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if cafile != "" {
		var err error
		if cfg.RootCAs, err = readCAs(cafile); err != nil {
			return nil, err
		}
	}
	c := tls.Client(raw, cfg)
	err := c.HandshakeContext(ctx)
	var header tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
		return c, nil
	case errors.As(err, &header):
		return nil, errors.New("it does not use TLS: set ssl_server to false")
	case errors.As(err, &unknown):
		return nil, fmt.Errorf("TLS handshake: %w: set proxy_cafile to a file with the certificate of who signed the proxy's", err)
	}
	return nil, fmt.Errorf("TLS handshake: %w", bare(err))
}

// CheckProxyCA tells whether the file proxy_cafile can be used.
func CheckProxyCA(path string) error {
	_, err := readCAs(path)
	return err
}

func readCAs(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("proxy_cafile: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("proxy_cafile: %q has no certificate in PEM", path)
	}
	return pool, nil
}

// readConnected reads the answer to the request, to the end of its header and
// not a byte more: what follows belongs to the tunnel. asked says that a user
// name was sent.
func readConnected(r io.Reader, asked, overTLS bool) error {
	left := maxProxyAnswer
	for {
		header, err := readAnswer(r, &left)
		if err != nil {
			if len(header) > 0 && (header[0] == 21 || header[0] == 22) && !overTLS {
				return errors.New("it uses TLS: set ssl_server to true")
			}
			return err
		}
		status, reason, ok := statusLine(header)
		switch {
		case !ok:
			return fmt.Errorf("it does not answer as an HTTP proxy: %s", quote([]byte(header)))
		case status < 200: // there will be another one
			continue
		case status < 300:
			return nil // a length is to be ignored, RFC 9110, 9.3.6
		case status == 407:
			return authorizationError(header, asked)
		case status == 403 || status == 405:
			return fmt.Errorf("it does not allow a connection to the server: %d %s", status, reason)
		case status >= 500:
			return fmt.Errorf("it cannot connect to the server: %d %s", status, reason)
		}
		return fmt.Errorf("it does not make the connection: %d %s", status, reason)
	}
}

// readAnswer reads lines to an empty one, byte by byte, since only a reader
// without a buffer leaves the rest where it is. After an error it returns what
// there was.
func readAnswer(r io.Reader, left *int) (string, error) {
	var b []byte
	var one [1]byte
	for line := 0; ; {
		if *left--; *left < 0 {
			return string(b), fmt.Errorf("its answer has more than %d bytes of headers", maxProxyAnswer)
		}
		if _, err := io.ReadFull(r, one[:]); err != nil {
			if err == io.EOF && len(b) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return string(b), fmt.Errorf("it closed the connection before its answer: %w", bare(err))
		}
		b = append(b, one[0])
		switch one[0] {
		case '\n':
			if line == 0 {
				return string(b), nil
			}
			line = 0
		case '\r':
		default:
			if line++; len(b) == len("HTTP/") && string(b) != "HTTP/" {
				return string(b), fmt.Errorf("it does not answer as an HTTP proxy: %s", quote(b))
			}
		}
	}
}

// statusLine reads the first line of an answer. The reason is fit for a log.
func statusLine(header string) (status int, reason string, ok bool) {
	line, _, _ := strings.Cut(header, "\n")
	version, rest, ok := strings.Cut(strings.TrimRight(line, "\r"), " ")
	code, reason, _ := strings.Cut(rest, " ")
	if !ok || len(version) != len("HTTP/1.1") || !strings.HasPrefix(version, "HTTP/1.") || len(code) != 3 {
		return 0, "", false
	}
	n, err := strconv.ParseUint(code, 10, 16)
	return int(n), quote([]byte(reason)), err == nil && n >= 100
}

// authorizationError says what to do about a 407.
func authorizationError(header string, asked bool) error {
	var schemes []string
	for line := range strings.Lines(header) {
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(name, "Proxy-Authenticate") {
			scheme, _, _ := strings.Cut(strings.TrimSpace(value), " ")
			if strings.EqualFold(scheme, "Basic") {
				schemes = nil
				break
			}
			schemes = append(schemes, quote([]byte(scheme)))
		}
	}
	switch {
	case len(schemes) > 0:
		return fmt.Errorf("it wants authorization of the kind %s (407): only Basic is supported", strings.Join(schemes[:min(4, len(schemes))], ", "))
	case asked:
		return errors.New("it refuses the user name or password (407): correct authorization in proxy, or what hook_proxy_authorization prints: the name on the first line, the password on the second")
	}
	return errors.New("it wants a user name and password (407): set authorization in proxy, or hook_proxy_authorization")
}
