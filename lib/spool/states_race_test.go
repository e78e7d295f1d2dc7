//go:build race

package spool

// The race detector makes these tests ten times slower and finds nothing in
// them: they run in one goroutine.
const (
	stateStep   = 13
	leastStates = 700
	flips       = 3_000
)
