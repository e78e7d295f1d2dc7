package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"aioc/lib/api"
	"aioc/lib/cli"
)

// report says on stderr what did not go as asked, and returns the status. What
// ended ctx comes before err, which it may have caused, unless that is a refusal.
func (p *program) report(ctx context.Context, a *awaiter, o *options, way *journey, put, taken int, err, unanswered error) int {
	var notTaken *api.NotTaken
	refused := errors.As(err, &notTaken)
	status := statusOf(err)
	if cause := context.Cause(ctx); cause != nil {
		unanswered = cause
		if !refused || cause != errNoResponse {
			status = statusOf(cause)
		}
		if !refused {
			err = nil
		}
	} else if err == nil {
		status = statusOf(unanswered)
	}
	var output *outputError
	if !errors.As(unanswered, &output) {
		if err := a.rest(); err != nil {
			unanswered, status = err, statusOf(err)
		}
	}
	// A request that was refused is refused again: that comes before those that
	// may succeed.
	worst := cli.OK
	for _, f := range a.failed() {
		cli.Errorf(p.stderr, name, "%s", f.text)
		if worst == cli.OK || f.status == cli.Refused {
			worst = f.status
		}
	}
	if status == cli.OK {
		status = worst
	}
	if !refused && err != nil && put == 1 && way.taken() {
		cli.Errorf(p.stderr, name, "%s: %w; the connector had taken it: if its type is durable it goes on when the connector is back", o.file.path, err)
	} else if refused && notTaken.Reason == "file" {
		cli.Errorf(p.stderr, name, "%s", withoutFile(taken, notTaken))
	} else if refused {
		p.tell(taken, notTaken.Index, reasonOf(notTaken))
	} else if errors.Is(err, api.ErrLost) && taken < put {
		// The connector may have gone between taking a message and saying so.
		hint := ""
		if o.id == "" && p.native {
			hint = "; sent again, it may come twice, unless it has an id (-id)"
		}
		cli.Errorf(p.stderr, name, "%s: %w%s", unsure(o, taken, put), err, hint)
	} else if err != nil {
		p.tell(taken, taken, err.Error())
	}
	var gone *goneError
	switch {
	case unanswered == nil:
	case errors.As(unanswered, &output):
		if !errors.Is(unanswered, syscall.EPIPE) {
			cli.Errorf(p.stderr, name, "%w", unanswered)
		}
	case unanswered == errNoResponse:
		cli.Errorf(p.stderr, name, "%s got no response in time", a.missing(taken))
	case errors.As(unanswered, &gone):
		cli.Errorf(p.stderr, name, "%s got no response: %w", a.missing(taken), unanswered)
	case refused: // that was told
	case taken == put:
		cli.Errorf(p.stderr, name, "%s taken: %w", messages(taken), unanswered)
	case put == 1 && way.taken():
		cli.Errorf(p.stderr, name, "%s", way.interrupted(o, unanswered))
	case o.ack: // what the peer has not acknowledged may yet be on its way
		cli.Errorf(p.stderr, name, "%s: %w", unsure(o, taken, put), unanswered)
	case o.wait && unanswered == errTimeout:
		p.tell(taken, taken, "time is up, and the peer was away, or what waits for it was as much as may be (see aioc-ctl queues)")
	default:
		p.tell(taken, taken, unanswered.Error())
	}
	return status
}

// unsure says of which messages it is not known what became of them: those after
// the first taken ones, of the put ones.
func unsure(o *options, taken, put int) string {
	some, were, them := fmt.Sprintf("messages %d to %d", taken+1, put), "were", "they"
	if put == taken+1 {
		some, were, them = fmt.Sprintf("message %d", put), "was", "it"
	}
	if o.ack {
		return fmt.Sprintf("%s acknowledged by the peer, %s %s not, but %s may have been taken here and may still be delivered",
			messages(taken), some, were, them)
	}
	return fmt.Sprintf("%s known to be taken, %s may have been too, and may still be delivered", messages(taken), some)
}

// withoutFile says that the peer took a message, but not its file.
func withoutFile(taken int, n *api.NotTaken) string {
	// What is told in other words here is cut off.
	why := strings.TrimPrefix(reasonOf(n), "the peer has the message, but not its file: ")
	text := fmt.Sprintf("message %d was taken, its file was not: %s", n.Index+1, why)
	if taken > 0 {
		text = fmt.Sprintf("%s taken whole, %s", messages(taken), text)
	}
	return text
}

// tell reports how many messages were taken, and that the one at index was not.
func (p *program) tell(taken, index int, reason string) {
	cli.Errorf(p.stderr, name, "%s taken, message %d was not: %s", messages(taken), index+1, reason)
}

func messages(n int) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprint(n, " messages")
}

// reasonOf is why a message was not taken, in words.
func reasonOf(n *api.NotTaken) string {
	if n.Text != "" {
		return n.Text
	}
	switch n.Reason {
	case "away":
		return "the peer is not connected (-wait waits for it)"
	case "full":
		return "the queue is full"
	case "type":
		return "the connector does not send its type"
	case "name":
		return "the connector does not know its destination"
	case "size":
		return "it is too long"
	case "closed":
		return "the connection was closed"
	case "stopped":
		return "the connector is stopped"
	case "ignored":
		return "the connector ignores the traffic of the peer"
	}
	return "refused: " + n.Reason
}

// statusOf is the exit status for err.
func statusOf(err error) int {
	var (
		own      *statusError
		input    *inputError
		output   *outputError
		signaled signalError
		notTaken *api.NotTaken
		gone     *goneError
	)
	switch {
	case err == nil:
		return cli.OK
	case errors.As(err, &own):
		return own.status
	case errors.As(err, &input):
		return cli.BadData
	case errors.As(err, &signaled):
		return cli.Signaled(int(signaled.Signal))
	case errors.As(err, &output):
		if errors.Is(err, syscall.EPIPE) {
			return cli.Signaled(int(syscall.SIGPIPE))
		}
		if cli.Full(err) {
			return cli.Temporary
		}
		return cli.Failed
	case errors.As(err, &notTaken):
		switch notTaken.Reason {
		case "away", "full", "closed", "stopped": // a stop is most often part of a restart
			return cli.Temporary
		case "type", "name", "ignored", "permission", "keep":
			return cli.Refused
		case "size", "bad":
			return cli.BadData
		}
		return cli.Failed
	case errors.Is(err, errTimeout), errors.Is(err, errNoResponse):
		return cli.Timeout
	case errors.Is(err, api.ErrLost), errors.As(err, &gone):
		return cli.Temporary
	case errors.Is(err, api.ErrNoConnector):
		return cli.Unavailable
	case errors.Is(err, api.ErrSeveral):
		return cli.Usage
	case errors.Is(err, api.ErrRefused):
		return cli.Refused
	case errors.Is(err, api.ErrConfig):
		return cli.BadConfig
	}
	return cli.Failed
}
