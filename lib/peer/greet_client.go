package peer

import (
	"fmt"

	"aioc/lib/wire"
)

// greetClient says who the client is, name, on a new connection, TLS included.
// The connection has a deadline. In both modes the server answers nothing: what
// comes next are messages, and a refusal is the end of the connection.
func greetClient(m mode, c *Conn, name string) error {
	switch m {
	case modePlain, modeAnonymous:
		frame, err := helloFrame(m.hello(), name)
		if err != nil {
			return err
		}
		if _, err := c.Write(frame); err != nil {
			return fmt.Errorf("hello: %w", bare(err))
		}
		return nil
	}
	return fmt.Errorf("no handshake for mode %d", m) // Options.check has refused it
}

// helloFrame returns the first frame of a client, as the original writes it.
func helloFrame(messageType, name string) ([]byte, error) {
	header := wire.AppendString([]byte(`{"message_type": `), messageType)
	header = wire.AppendString(append(header, `, "source_id": `...), name)
	return wire.AppendFrame(nil, append(header, '}'), []byte(wire.HelloData), nil)
}
