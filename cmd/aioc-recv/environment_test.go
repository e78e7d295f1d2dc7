package main

import (
	"slices"
	"testing"

	"aioc/lib/api"
)

// A handler that says aioc-send talks to the connector that it got the message
// from.
func TestAHandlerFindsTheSameConnector(t *testing.T) {
	own := []string{"PATH=/bin", "AIOC_DIR=/env", "AIOC_TAG=old"}
	for _, tt := range []struct {
		target api.Target
		want   []string
	}{
		{api.Target{}, []string{"PATH=/bin", "AIOC_DIR=/env"}},
		{api.Target{Dir: "/flag"}, []string{"PATH=/bin", "AIOC_DIR=/env", "AIOC_DIR=/flag"}},
		{api.Target{ConfigFile: "/f", Dir: "/env"}, []string{"PATH=/bin", "AIOC_DIR=/env", "AIOC_CONFIG=/f", "AIOC_DIR=/env"}},
		{api.Target{ConfigFile: "/f"}, []string{"PATH=/bin", "AIOC_CONFIG=/f"}}, // which names its directory
	} {
		if got := environment(own, tt.target); !slices.Equal(got, tt.want) {
			t.Errorf("%+v: got %q, want %q", tt.target, got, tt.want)
		}
	}
}
