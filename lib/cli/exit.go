package cli

// The exit statuses, the same in all programs. A script asks one question of
// them: does it help to try again? Temporary says yes; Usage and BadConfig never.
const (
	OK            = 0   // done as asked
	Failed        = 1   // failed otherwise; the answer is no
	Usage         = 2   // usage
	BadData       = 65  // bad input data
	Unavailable   = 69  // no connector here, or a peer that cannot be waited for
	Temporary     = 75  // temporary: try again
	Refused       = 77  // refused: permission, certificate, filter, message type
	BadConfig     = 78  // configuration error
	Timeout       = 124 // the time given ended first
	CannotExecute = 126 // the handler is not executable
	NotFound      = 127 // the handler was not found
)

// Signaled is the exit status of a program that ended because of signal n.
func Signaled(n int) int { return 128 + n }

// A Status is one row of the table of exit statuses.
type Status struct {
	Label string // as the pages write it: "75", or "128+n"
	Code  int    // the number; for the row of signals the number to add to
	Words string // what it means
}

// Statuses returns the table of exit statuses, smallest first, as aioc(7) and
// each program's page quote it.
func Statuses() []Status {
	return []Status{
		{"0", OK, "done as asked"},
		{"1", Failed, "failed otherwise; the answer is no"},
		{"2", Usage, "usage"},
		{"65", BadData, "bad input data (not JSON where JSON is asked)"},
		{"69", Unavailable, "no connector running here, or the peer is not connected and cannot be waited for"},
		{"75", Temporary, "temporary: queue full, disk full, peer away: try again"},
		{"77", Refused, "refused: permission, certificate, token, filter, message type"},
		{"78", BadConfig, "configuration error (says file, key, and what would be right)"},
		{"124", Timeout, "the time given ended before what was asked for arrived"},
		{"126", CannotExecute, "handler not executable"},
		{"127", NotFound, "handler not found"},
		{"128+n", Signaled(0), "ended by signal n"},
	}
}
