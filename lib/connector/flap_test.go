package connector

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestLinksThatComeAndGoAreLoggedNowAndThen(t *testing.T) {
	var f flaps
	now := time.Unix(1e9, 0)
	// A day in which a link is made every 100 ms.
	lines := 0
	for range 24 * 3600 * 10 {
		if f.log("p", now) {
			lines++
		}
		now = now.Add(100 * time.Millisecond)
	}
	if want := 24*360 + flapBurst; lines > want {
		t.Errorf("%d links of a day are logged, want at most %d", lines, want)
	}
	if !f.log("other", now) {
		t.Error("another peer is not logged")
	}
	if !f.log("p", now.Add(flapEvery)) || !f.log("p", now.Add(-time.Hour)) && !f.log("p", now.Add(time.Hour)) {
		t.Error("it is never logged again")
	}
	for i := range 3 * flapPeers {
		f.log(fmt.Sprint(i), now)
	}
	lines = 0
	for i := range 24 * 3600 * 10 {
		if f.log(fmt.Sprint("new", i), now) {
			lines++
		}
		now = now.Add(100 * time.Millisecond)
	}
	if want := 24*3600 + flapAllBurst; lines > want {
		t.Errorf("%d links of a day, each of another name, are logged, want at most %d", lines, want)
	}
	if n := len(f.peers); n > flapPeers {
		t.Errorf("%d peers are remembered", n)
	}
}

func TestAFlappingPeerDoesNotFillTheLog(t *testing.T) {
	s := server(t)
	for range 100 {
		p := s.peer(t, "c1")
		s.connected(t, "c1")
		p.Close()
		s.disconnected(t, "c1")
	}
	if n := strings.Count(s.log.String(), "\n"); n > 2*flapBurst+20 {
		t.Errorf("%d lines for 100 links", n)
	}
	if n := s.log.count("links come and go"); n != 1 {
		t.Errorf("%d lines say so, want 1", n)
	}
	if n := stats(t, s).Events["link up"]; n != 100 {
		t.Errorf("%d links are counted, want 100", n)
	}
}
