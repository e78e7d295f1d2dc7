package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Certificates: how many clients a server can enrol and meet. The clients are goroutines of this process.

const (
	enrolments     = 1000 // clients that enrol at once
	handshakers    = 8    // that connect again and again
	enrolTime      = 90 * time.Second
	opensslSeconds = "1"
)

// handshakes measures enrolment and full handshakes with a certificate per client, the latter compared
// with what the arithmetic of one alone allows, as openssl speed tells it.
func (b *bench) handshakes(ctx context.Context) {
	fmt.Fprintln(b.log, "bench: certificates")
	if err := b.measureHandshakes(ctx); err != nil {
		b.failed("certificates", err)
	}
	limit, err := opensslLimit(ctx)
	if err != nil {
		b.failed("openssl speed", err)
		return
	}
	b.add(figure{Name: "full handshakes", Subject: "openssl speed", Unit: "1/s"}, []float64{limit})
	b.ratio("full handshakes", "aioc", "openssl speed", figure{})
}

// measureHandshakes does the work of handshakes.
func (b *bench) measureHandshakes(ctx context.Context) (err error) {
	l, err := newLine(ctx, "")
	if err != nil {
		return err
	}
	defer func() { err = l.end(err) }()
	al := &aiocLine{line: l, bin: b.bin}
	if al.port, err = freePort(); err != nil {
		return err
	}
	dir := l.path("server")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	p, err := al.tool("aioc-certs", command{args: []string{"create", dir}})
	if err == nil {
		err = p.wait()
	}
	if err != nil {
		return err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", al.port)
	args := []string{"-addr", addr, "-dir", dir, "-tls", "certs", "-set", "certificates_directory_path=" + strconv.Quote(dir),
		"-set", "max_certs=" + strconv.Itoa(enrolments+1)}
	if al.server, err = al.tool("aioc-server", command{args: args, lasting: true}); err != nil {
		return err
	}
	if err := al.appears(filepath.Join(dir, "uds_path_send_to_connector_server_*")); err != nil {
		return err
	}
	certs := filepath.Join(dir, "certificates", "client", "client-certs")
	enrol, err := tls.LoadX509KeyPair(filepath.Join(certs, "default.pem"), filepath.Join(certs, "default.key"))
	if err != nil {
		return err
	}
	clients, took, err := enrolAll(ctx, addr, enrol)
	if err != nil {
		return err
	}
	_, most, err := memory(al.server.cmd.Process.Pid)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d clients enrol at once", enrolments)
	b.add(figure{Name: what, Subject: "seconds", Unit: "s"}, []float64{took.Seconds()})
	b.add(figure{Name: what, Subject: "most memory of the server, MiB", Unit: "MiB"}, []float64{float64(most) / (1 << 20)})
	var rates []float64
	for range b.runs {
		rate, err := connectAgain(ctx, addr, clients[:handshakers], b.target)
		if err != nil {
			return err
		}
		rates = append(rates, rate)
	}
	b.add(figure{Name: "full handshakes", Subject: "aioc", Unit: "1/s"}, rates)
	return al.server.stop()
}

// identityOf is a client that has a certificate.
type identityOf struct {
	name string
	cert tls.Certificate
}

// enrolAll enrols all clients at once, each as the Python client does, until each has a certificate. They
// must be different ones.
func enrolAll(ctx context.Context, addr string, first tls.Certificate) ([]identityOf, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, enrolTime)
	defer cancel()
	clients := make([]identityOf, enrolments)
	errs := make([]error, enrolments)
	begin := time.Now()
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			clients[i].name = "client" + strconv.Itoa(i)
			// A server keeps crowds of strangers away: those come again, later and later, as a client does.
			for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
				clients[i].cert, errs[i] = enrolOne(ctx, addr, first, clients[i].name)
				if errs[i] == nil || ctx.Err() != nil {
					return
				}
				select {
				case <-time.After(pause/2 + rand.N(pause/2)):
				case <-ctx.Done():
				}
			}
		})
	}
	all.Wait()
	took := time.Since(begin)
	seen := map[string]bool{}
	for i, c := range clients {
		if errs[i] != nil {
			return nil, 0, fmt.Errorf("enrolment of %s: %w", c.name, errs[i])
		}
		seen[string(c.cert.Certificate[0])] = true
	}
	if len(seen) != enrolments {
		return nil, 0, fmt.Errorf("%d clients got %d certificates", enrolments, len(seen))
	}
	return clients, took, nil
}

// enrolOne gets a certificate.
func enrolOne(ctx context.Context, addr string, first tls.Certificate, name string) (none tls.Certificate, err error) {
	c, err := dialTLS(ctx, addr, first)
	if err != nil {
		return none, err
	}
	defer c.Close()
	ask := appendFrame(nil, fmt.Appendf(nil, `{"message_type": "_ssl", "source_id": "%s"}`, name), []byte(`{"cmd": "get_new_certificate"}`))
	if _, err := c.Write(ask); err != nil {
		return none, err
	}
	var reply struct{ Crt, Key string }
	whole := func(frame []byte) error {
		start, end := strings.Index(string(frame), `{"cmd"`), strings.LastIndexByte(string(frame), '}')
		if start < 0 || end < start {
			return errFrame
		}
		if err := json.Unmarshal(frame[start:end+1], &reply); err != nil {
			return err
		}
		return errEnough
	}
	if err := eachFrameSize(c, 16<<10, whole, func() error { return nil }); !errors.Is(err, errEnough) {
		return none, fmt.Errorf("no certificate: %w", errors.Join(err, io.EOF))
	}
	return tls.X509KeyPair([]byte(reply.Crt), []byte(reply.Key))
}

// dialTLS makes a full handshake.
func dialTLS(ctx context.Context, addr string, cert tls.Certificate) (*tls.Conn, error) {
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c.(*tls.Conn), nil
}

// connectAgain returns how often in a second the clients together connect and get an answer: only that
// tells that the server has accepted the certificate.
func connectAgain(ctx context.Context, addr string, clients []identityOf, target time.Duration) (float64, error) {
	var done atomic.Int64
	errs := make(chan error, len(clients))
	begin := time.Now()
	end := begin.Add(target)
	for _, id := range clients {
		go func() {
			for time.Now().Before(end) {
				if err := pingOnce(ctx, addr, id); err != nil {
					errs <- err
					return
				}
				done.Add(1)
			}
			errs <- nil
		}()
	}
	for range clients {
		if err := <-errs; err != nil {
			return 0, err
		}
	}
	return float64(done.Load()) / time.Since(begin).Seconds(), nil
}

// pingOnce connects, gets an answer and closes.
func pingOnce(ctx context.Context, addr string, id identityOf) error {
	c, err := dialTLS(ctx, addr, id.cert)
	if err != nil {
		return err
	}
	defer func() { _ = c.NetConn().(*net.TCPConn).SetLinger(0); _ = c.NetConn().Close() }()
	ping := appendFrame(nil, fmt.Appendf(nil, `{"message_type": "_ping", "await_response": true, "request_id": 1, "source_id": "%s"}`, id.name), nil)
	if _, err := c.Write(ping); err != nil {
		return err
	}
	enough := func([]byte) error { return errEnough }
	if err := eachFrameSize(c, 4<<10, enough, func() error { return nil }); !errors.Is(err, errEnough) {
		return fmt.Errorf("no answer to a ping: %w", errors.Join(err, io.EOF))
	}
	return nil
}

// opensslLimit is how many full handshakes a second the processors could compute, both ends: each end makes
// a signature, checks one, and has two operations of the key exchange.
func opensslLimit(ctx context.Context) (float64, error) {
	out, err := exec.CommandContext(ctx, "openssl", "speed", "-seconds", opensslSeconds, "ecdsap256", "ecdhx25519").Output()
	if err != nil {
		return 0, err
	}
	return parseOpenssl(string(out), runtime.NumCPU())
}

// parseOpenssl reads the tables of openssl speed.
func parseOpenssl(out string, processors int) (float64, error) {
	var sign, verify, exchange float64
	s := bufio.NewScanner(strings.NewReader(out))
	for s.Scan() {
		f := strings.Fields(s.Text())
		var err error
		switch {
		case strings.Contains(s.Text(), "nistp256") && len(f) >= 2:
			if verify, err = strconv.ParseFloat(f[len(f)-1], 64); err == nil {
				sign, err = strconv.ParseFloat(f[len(f)-2], 64)
			}
		case strings.Contains(s.Text(), "X25519") && len(f) >= 1:
			exchange, err = strconv.ParseFloat(f[len(f)-1], 64)
		}
		if err != nil {
			return 0, fmt.Errorf("openssl speed: %q: %w", s.Text(), err)
		}
	}
	if sign <= 0 || verify <= 0 || exchange <= 0 {
		return 0, errors.New("openssl speed: its output is not understood")
	}
	return float64(processors) / (2 * (1/sign + 1/verify + 2/exchange)), nil
}
