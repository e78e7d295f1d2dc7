// Command aioc-server is the connector of a server: see aioc-server(8).
package main

import (
	"os"

	"aioc/lib/daemon"
)

func main() { os.Exit(daemon.Run(true, os.Args[1:], os.Stdout, os.Stderr)) }
