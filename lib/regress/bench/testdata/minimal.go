// The least that a sender can be: it writes one frame to the Unix socket named by its argument.
package main

import (
	"encoding/binary"
	"net"
	"os"
)

func main() {
	const header = `{"message_type": "any", "source_id": "client1"}`
	const data = "{}"
	p := binary.LittleEndian.AppendUint32(nil, uint32(2+len(header)+4+len(data)))
	p = binary.LittleEndian.AppendUint16(p, uint16(len(header)))
	p = append(p, header...)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(data)))
	p = append(p, data...)
	c, err := net.Dial("unix", os.Args[1])
	if err == nil {
		_, err = c.Write(p)
	}
	if err == nil {
		err = c.Close()
	}
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
}
