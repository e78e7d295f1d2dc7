package peer

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestRefusalsAreFoldedByKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		f := fold{log: j.logger()}
		addr := netip.MustParseAddrPort("192.0.2.7:1")
		warn := func(kind string, times int) {
			for i := range times {
				f.warn(kind, "client refused", addr, fmt.Errorf("%s %d", kind, i))
			}
		}
		check := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for _, e := range j.lines(t, slog.LevelWarn) {
				got = append(got, fmt.Sprintf("%s %s n=%d", e.Err, e.Addr, e.N))
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s:\ngot  %q\nwant %q", when, got, want)
			}
		}
		a := "slow 0 192.0.2.7:1 n=0"
		b := "name 0 192.0.2.7:1 n=0"
		warn("slow", 1)
		warn("name", 100)
		check("at once", a, b)
		<-time.After(9 * time.Second)
		check("before 10 s", a, b)
		<-time.After(time.Second)
		c := "name 99 192.0.2.7:1 n=99"
		check("after 10 s", a, b, c)
		warn("slow", 1)
		check("a new one after a quiet time", a, b, c, a)
		warn("name", 2)
		check("it still folds", a, b, c, a)
		<-time.After(10 * time.Second)
		d := "name 1 192.0.2.7:1 n=2"
		check("after 20 s", a, b, c, a, d)
		<-time.After(time.Hour)
		check("after an hour", a, b, c, a, d)
		warn("name", 3)
		f.close()
		e := "name 2 192.0.2.7:1 n=2"
		check("at the end", a, b, c, a, d, b, e)
		f.warn("name", "client refused", netip.AddrPort{}, errors.New("late"))
		f.warn("name", "client refused", netip.AddrPort{}, errors.New("later"))
		check("after the end", a, b, c, a, d, b, e, "late  n=0", "later  n=0")
	})
}
