package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The yardstick: the same four processes as a line of aioc, which do as little as can be done. The
// functions here are the main functions of those processes; this program starts itself as each.

// modes are the processes that this program can be, by its first argument.
func modes() map[string]func(args []string, stdin *os.File, stdout io.Writer) error {
	return map[string]func([]string, *os.File, io.Writer) error{
		"relay":     relayMain,
		"send":      sendMain,
		"receive":   receiveMain,
		"ask":       askMain,
		"spread":    spreadMain,
		"subscribe": subscribeMain,
		"answer":    answerMain,

		"ask-aioc":    askAiocMain,
		"answer-aioc": answerAiocMain,
		"crowd-aioc":  crowdAiocMain,

		"file-from": fileFromMain,
		"file-to":   fileToMain,
	}
}

// splitAddr splits NETWORK:ADDRESS.
func splitAddr(s string) (network, addr string) {
	network, addr, _ = strings.Cut(s, ":")
	return network, addr
}

// relayMain is one daemon of the yardstick: it dials one address, accepts one connection on another,
// and passes bytes between them both ways until it is told to end.
func relayMain(args []string, _ *os.File, stdout io.Writer) error {
	fs := flag.NewFlagSet("relay", flag.ContinueOnError)
	listen := fs.String("listen", "", "accept on `NETWORK:ADDRESS`")
	dial := fs.String("dial", "", "connect to `NETWORK:ADDRESS`")
	secure := fs.Bool("tls", false, "use TLS on the side that is TCP")
	lookup := fs.Bool("lookup", false, "look every frame up and copy it")
	if err := fs.Parse(args); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)

	network, addr := splitAddr(*dial)
	out, err := net.Dial(network, addr)
	if err != nil {
		return err
	}
	if *secure && network == "tcp" {
		c := tls.Client(out, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true})
		if err := c.Handshake(); err != nil {
			return err
		}
		out = c
	}
	network, addr = splitAddr(*listen)
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	var cfg *tls.Config
	if *secure && network == "tcp" {
		if cfg, err = selfSigned(); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(stdout, "ready %s\n", l.Addr()); err != nil {
		return err
	}
	in, err := l.Accept()
	if err != nil {
		return err
	}
	if cfg != nil {
		in = tls.Server(in, cfg)
	}
	pass := pump
	if *lookup {
		pass = pumpFrames
	}
	errs := make(chan error, 2)
	go func() { errs <- half(out, in, pass) }()
	go func() { errs <- half(in, out, pass) }()
	for range 2 {
		select {
		case err := <-errs:
			// The ends close as they like when the last frame has come through.
			if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				return err
			}
		case <-stop:
			return nil
		}
	}
	<-stop
	return nil
}

// half passes one direction and tells dst when it is over.
func half(dst, src net.Conn, pass func(io.Writer, io.Reader) error) error {
	err := pass(dst, src)
	if c, ok := dst.(interface{ CloseWrite() error }); ok && err == nil {
		// The other end may be gone already, which is what it was to learn.
		_ = c.CloseWrite()
	}
	return err
}

// selfSigned makes a TLS 1.3 server configuration with a new certificate.
func selfSigned() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates:                []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:                  tls.VersionTLS13,
		DynamicRecordSizingDisabled: true,
	}, nil
}

// sendMain is the sender of the yardstick: NUL-ended records from standard input, again from its
// start as often as needed, each as a frame to a Unix socket.
func sendMain(args []string, stdin *os.File, _ io.Writer) error {
	fs := flag.NewFlagSet("send", flag.ContinueOnError)
	to := fs.String("to", "", "write to the Unix socket `PATH`")
	port := fs.Int("port", 0, "`PORT` of the server, for the header")
	count := fs.Int("count", 0, "send `N` messages")
	typ := fs.String("type", "any", "send messages of `TYPE`")
	if err := fs.Parse(args); err != nil {
		return err
	}
	c, err := net.Dial("unix", *to)
	if err != nil {
		return err
	}
	header := bytes.Replace(headerJSON(*port), []byte(`"any"`), []byte(`"`+*typ+`"`), 1)
	return errors.Join(frames(c, stdin, header, *count), c.Close())
}

// receiveMain is the receiver of the yardstick: it accepts one connection, counts frames, and prints
// how many there were and their bytes.
func receiveMain(args []string, _ *os.File, stdout io.Writer) error {
	fs := flag.NewFlagSet("receive", flag.ContinueOnError)
	listen := fs.String("listen", "", "accept on the Unix socket `PATH`")
	count := fs.Int("count", 0, "end after `N` messages")
	if err := fs.Parse(args); err != nil {
		return err
	}
	c, err := acceptOne(*listen, stdout)
	if err != nil {
		return err
	}
	frames, bytes := 0, 0
	whole := func(frame []byte) error {
		frames++
		bytes += len(frame)
		return nil
	}
	batch := func() error {
		if frames >= *count {
			return errEnough
		}
		return nil
	}
	if err := eachFrame(c, whole, batch); err != nil && !errors.Is(err, errEnough) {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%d %d\n", frames, bytes)
	return err
}

// errEnough ends the reading of frames.
var errEnough = errors.New("enough")

// acceptOne listens on a Unix socket, says ready and returns the first connection.
func acceptOne(path string, stdout io.Writer) (net.Conn, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintln(stdout, "ready"); err != nil {
		return nil, err
	}
	return l.Accept()
}

// askMain is the requester of the yardstick: it sends a frame, waits until one comes back, and so on,
// and prints how long each took.
func askMain(args []string, _ *os.File, stdout io.Writer) error {
	fs := flag.NewFlagSet("ask", flag.ContinueOnError)
	to := fs.String("to", "", "write to the Unix socket `PATH`")
	port := fs.Int("port", 0, "`PORT` of the server, for the header")
	count := fs.Int("count", 0, "ask `N` times")
	warm := fs.Int("warm", 0, "ask `N` times before that without measuring")
	size := fs.Int("size", 100, "`BYTES` of data")
	if err := fs.Parse(args); err != nil {
		return err
	}
	c, err := net.Dial("unix", *to)
	if err != nil {
		return err
	}
	frame := appendFrame(nil, headerJSON(*port), record(0, *size, false))
	in := make([]byte, len(frame))
	return times(stdout, *warm, *count, func() error {
		if _, err := c.Write(frame); err != nil {
			return err
		}
		_, err := io.ReadFull(c, in)
		return err
	})
}

// times calls f warm times, then count times or, where that is negative, until it returns errEnough, and
// prints the durations of the latter calls in nanoseconds as a JSON array.
func times(stdout io.Writer, warm, count int, f func() error) error {
	took := make([]int64, 0, max(count, 0))
	for i := 0; count < 0 || i < warm+count; i++ {
		begin := time.Now()
		if err := f(); err == errEnough && count < 0 {
			break
		} else if err != nil {
			return fmt.Errorf("request %d: %w", i, err)
		}
		if i >= warm {
			took = append(took, int64(time.Since(begin)))
		}
	}
	return json.NewEncoder(stdout).Encode(took)
}

// answerMain is the responder of the yardstick: it sends every frame back.
func answerMain(args []string, _ *os.File, stdout io.Writer) error {
	fs := flag.NewFlagSet("answer", flag.ContinueOnError)
	listen := fs.String("listen", "", "accept on the Unix socket `PATH`")
	if err := fs.Parse(args); err != nil {
		return err
	}
	c, err := acceptOne(*listen, stdout)
	if err != nil {
		return err
	}
	return pumpFrames(c, c)
}

// sink accepts connections on a Unix socket and throws away what they say, until it is closed.
type sink struct {
	l  net.Listener
	wg sync.WaitGroup
}

// newSink starts a sink.
func newSink(path string) (*sink, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	s := &sink{l: l}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() {
				// A writer that breaks off is seen by its own exit status.
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			})
		}
	})
	return s, nil
}

// close stops the sink and waits for its goroutines.
func (s *sink) close() error {
	err := s.l.Close()
	s.wg.Wait()
	return err
}
