package connector

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// keepShort limits what the kernel keeps of a connection that is not sent yet to
// n bytes, so that what is written next does not wait behind more; 0 ends it.
// Where that cannot be done nothing is lost but time.
func keepShort(conn net.Conn, n int) {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = c.NetConn()
	}
	c, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n)
		})
	}
}
