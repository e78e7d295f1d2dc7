package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// maxTroubles bounds what Troubles says.
const maxTroubles = 20

// Troubles returns, a line each, which certificates that a server in dir knows
// its clients by cannot be used, because they have expired or are none, and what
// to do. The server itself runs all the same.
func Troubles(dir string) []string {
	all, err := List(dir)
	var found []string
	for _, c := range all {
		if c.Side != "server" || c.Name == "server" || c.NotAfter.IsZero() {
			continue
		}
		consequence := "this client cannot connect"
		remedy := fmt.Sprintf("run: aioc-certs renew %s %s, and the same on its host", shellWord(c.Name), shellWord(dir))
		if isDefault(c.Name) {
			consequence = "who has it cannot get a certificate"
			remedy = fmt.Sprintf("run: aioc-certs renew default %s, then give new clients what aioc-certs pack client packs", shellWord(dir))
			if c.Name != defaultName {
				remedy = "new clients need what aioc-certs pack client packs"
			}
		}
		if err := checkDates(c.NotBefore, c.NotAfter, time.Now(), remedy); err != nil {
			found = append(found, fmt.Sprintf("%s: certificate %q: %v", consequence, c.Path, err))
		}
	}
	for _, err := range unjoin(err) {
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrMissing) {
			found = append(found, fmt.Sprintf("cannot be used: %v", err))
		}
	}
	if n := len(found) - maxTroubles; n > 0 {
		found = append(found[:maxTroubles], fmt.Sprintf("and %d more: see aioc-certs check", n))
	}
	return found
}

// unjoin returns the errors that errors.Join has joined.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		return all.Unwrap()
	}
	return []error{err}
}
