// Package cli is what the main functions have in common: flags and usage texts
// (cli.go), exit statuses (exit.go), the version (version.go), the log (log.go,
// logfile.go) and the service manager (systemd.go). It imports nothing of this
// module, and it is small at start-up because the tools are started thousands
// of times from shell loops.
package cli
