package local

import (
	"fmt"
	"net"
)

// control runs f on the descriptor of the connection.
func control(c *net.UnixConn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("caller: %w", err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return fmt.Errorf("caller: %w", err)
	}
	if inner != nil {
		return fmt.Errorf("caller: %w", inner)
	}
	return nil
}
