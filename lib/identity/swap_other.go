//go:build !linux && !darwin

package identity

import "errors"

// exchange would swap the names of two directories in one step, which this
// system cannot do.
func exchange(a, b string) error { return errors.ErrUnsupported }
