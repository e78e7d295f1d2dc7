//go:build !race

package spool

// stateStep is which of the moments of a workload are tried: every one.
const stateStep = 1

// leastStates is how many states the test of them must have seen.
const leastStates = 10_000

// flips is at least how many single bits are turned over, one at a time.
const flips = 100_000
