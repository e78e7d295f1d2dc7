// Command aioc-client is the connector of a client: see aioc-client(8).
package main

import (
	"os"

	"aioc/lib/daemon"
)

func main() { os.Exit(daemon.Run(false, os.Args[1:], os.Stdout, os.Stderr)) }
