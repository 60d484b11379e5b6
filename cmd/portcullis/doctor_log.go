package main

import (
	"context"
	"errors"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// logKey looks whether the audit log's newest checkpoint is signed by log_key, and whether the
// log still begins with what was seen before.
func (d *doctor) logKey(ctx context.Context, s *session, o *overview) {
	if o.Standing == "refused" {
		d.skip("only who may call is told", checkLogKey)
		return
	}
	at, err := s.Checkpoint(ctx)
	switch {
	case err == nil:
		d.ok(checkLogKey, "it signed the newest checkpoint of the log, of %s, which fits what was seen before", count(at.Size, "event"))
	case errors.Is(err, client.ErrNoLogKey):
		d.warn(checkLogKey, "ask the operator for what \"portcullisd log-key\" prints, and put it into "+d.profile.file+" as log_key",
			"there is no log_key, so a log that was rewritten would not be noticed here")
	case vault.KindOf(err) == vault.NotOffered:
		d.skip("this process of the service does not tell of the log", checkLogKey)
	case vault.KindOf(err) == vault.Unavailable:
		d.warn(checkLogKey, "try again; if it stays so, tell the operator", "the service gives no checkpoint: %s", oneLine(err))
	default:
		next := logHint(err)
		if next == "" {
			next = "keep " + logMemory(d.profile.file) + ", and tell the operator"
		}
		d.fail(checkLogKey, next, "%s", oneLine(err))
	}
}
