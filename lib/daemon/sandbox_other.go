//go:build !linux

package daemon

import "aioc/lib/config"

// sandbox does nothing: this system has no Landlock.
func sandbox(*config.Config) (string, error) { return "none on this system", nil }
