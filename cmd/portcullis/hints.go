package main

import (
	"errors"
	"strings"
	"syscall"

	"github.com/portcullis/portcullis/vault"
)

// hints says what to try next, by reason. A test holds it against the list of reasons.
var hints = map[vault.Reason]string{
	vault.ReasonInvalidField:     "mend the field that the message names",
	vault.ReasonInternal:         "the service's own log has the cause",
	vault.ReasonStoreUnavailable: "the service's database did not answer: try again; \"portcullis status\" tells when it serves",
	vault.ReasonVaultUnavailable: "HashiCorp Vault is sealed or away: \"portcullis doctor\" tells which; try again once it serves",
	vault.ReasonBlobUnavailable:  "the store of ciphertext did not answer: try again",
	vault.ReasonShuttingDown:     "the service is stopping: try again",
	vault.ReasonServerBusy:       "the service has as much under way as it takes: try again a little later",
	vault.ReasonNoLease:          "this node has lost touch with the others: try again",
	vault.ReasonNotOffered:       "the process at this address has another role: set server to the one that offers it",
	vault.ReasonStoreOvertaken:   "storing took too long: store the image again",
	vault.ReasonLogBehind:        "the service's log does not keep up; try again, and tell the operator if it stays so",
	vault.ReasonLogRolledBack:    "the service's database is older than it was: restore the newest one",
	vault.ReasonOtherDatabase:    "the service runs above another database than HashiCorp Vault belongs to: whoever runs it must set store.path right",

	vault.ReasonVaultUnchecked: "wait a moment; if it lasts, ask the operators: a process with the admin role must run and reach HashiCorp Vault",
	vault.ReasonReconciling:    "wait until the other reconcile is done",

	vault.ReasonDestructionPending: "wait until HashiCorp Vault has destroyed the keys: \"key list\" shows how far it is",

	vault.ReasonRoleNotAllowed:      "use a profile of the right role: \"portcullis whoami\" tells who you are",
	vault.ReasonCallerSuspended:     "this identity is suspended: ask an admin why",
	vault.ReasonContractorUnknown:   "two admins admit a contractor with \"contractor apply FILE\"",
	vault.ReasonContractorSuspended: "two admins reinstate a contractor with \"contractor apply FILE\"; its old grants stay ended",
	vault.ReasonSiteMismatch:        "a capture system stores for its own site and lane: use that lane's profile",

	vault.ReasonImageRejected:        "only whole JPEG and PNG images within the service's limits are taken",
	vault.ReasonRequestIDReused:      "give every image a request ID of its own",
	vault.ReasonCapturedAtOutOfRange: "set the clock, which \"portcullis doctor\" compares with the service's, or give the right time with --captured-at",
	vault.ReasonPurposeUnknown:       "ask an admin which purposes there are; two admins sanction one with \"purpose apply FILE\"",
	vault.ReasonPurposeChanged:       "the purpose has a newer version: request the grant anew",
	vault.ReasonPurposeContractor:    "ask for a grant of a purpose that allows your organisation",
	vault.ReasonPurposeModality:      "ask only for what the purpose allows, with --modality",
	vault.ReasonPurposeSite:          "ask only for sites that the purpose allows, with --site",
	vault.ReasonPurposeDuration:      "ask for a shorter grant, with --for",
	vault.ReasonPurposeQuota:         "ask for fewer records, with --max-records",
	vault.ReasonPurposeWithdrawn:     "an admin withdrew the purpose: ask why; two admins sanction it anew with \"purpose apply FILE\"",
	vault.ReasonPurposeBytes:         "ask for fewer bytes, with --max-bytes",
	vault.ReasonPurposeAge:           "ask for newer records, with --from",
	vault.ReasonPurposeWindow:        "let --from and --until be whole days in UTC, or whole hours where the purpose tells hours",
	vault.ReasonPurposeLive:          "ask for what is captured already: without --live, and with --from before now; the service cuts a window at the time of the request",
	vault.ReasonPurposeLinkage:       "ask for faces or for plates, with --modality: the purpose joins them for nobody",
	vault.ReasonPurposeClass:         "let the list name records of the purpose's retention classes alone: \"purpose show NAME\" tells which",
	vault.ReasonPurposeApprover:      "one of the admins must approve whom \"purpose show NAME\" names",
	vault.ReasonConflictRule:         "contractors: ask for other sites or days (what was opened once, by affiliates too, counts for ever), or retire a grant under which nothing was opened, which frees its days; admins: no approval helps, so \"grant deny\" it; who is to have both takes one purpose with linkage for both",
	vault.ReasonListUnknown:          "ask the admin who made the list for its name",
	vault.ReasonGrantLapsed:          "request the grant anew: it waited a day for its approvals",
	vault.ReasonGrantSuspended:       "the grant ended because its limits were passed again and again: tell the admins why, then request a new one",
	vault.ReasonBytesExceeded:        "\"grant show\" shows what is left; for more, request a new grant",
	vault.ReasonRateExceeded:         "wait as long as the message says; \"fetch\" does so by itself",
	vault.ReasonUsesSpent:            "for more, request a new grant; under a strict purpose opening an image again counts, too",
	vault.ReasonBucketOpen:           "wait until the record's hour or day has closed, then list again",
	vault.ReasonBucketSmall:          "too few were there at that time for anybody to see the record under this purpose",
	vault.ReasonGrantUnknown:         "\"grant list\" shows the grants that you may know",
	vault.ReasonGrantPending:         "the grant waits for approval: \"grant wait\" tells when it has it",
	vault.ReasonGrantDecided:         "\"grant show\" shows what became of the grant",
	vault.ReasonGrantNotActive:       "run \"grant activate\" first",
	vault.ReasonGrantExpired:         "request a new grant",
	vault.ReasonGrantRevoked:         "an admin ended the grant, suspended its grantee or contractor, or withdrew its purpose: ask which, and why, before you request a new one",
	vault.ReasonGrantRetired:         "request a new grant",
	vault.ReasonGrantDenied:          "ask the admins why before you request again",
	vault.ReasonGrantToken:           "run \"grant activate\" again: only the newest token is good",
	vault.ReasonGrantTampered:        "the stored grant is not what was signed: treat it as an attack on the service's database",
	vault.ReasonQuotaExceeded:        "\"grant show\" shows what is left; what was opened before may be opened again (fetch --handle); for more, request a new grant",
	vault.ReasonHandleUnknown:        "\"records list --grant GRANT\" shows the handles of this grant",
	vault.ReasonAccessEnded:          "access was ended while the image was on its way: \"grant show\" shows why",
	vault.ReasonSignatureInvalid:     "the certificate must be an admin's and valid now: \"portcullis doctor\" looks at it",
	vault.ReasonSignatureStale:       "set this machine's clock: \"portcullis doctor\" tells how far it is off",
	vault.ReasonSelfApproval:         "another admin must sign",
	vault.ReasonAlreadySigned:        "another admin must sign",
	vault.ReasonApprovalsMissing:     "more admins must approve: \"grant show\" shows how many",
	vault.ReasonDecisionUnknown:      "run the command again: it proposes the decision anew if that is needed",
	vault.ReasonDecisionExpired:      "run the command again: it proposes the decision anew",
	vault.ReasonDecisionTampered:     "the stored decision is not what was signed: treat it as an attack on the service's database",
	vault.ReasonDecisionOvertaken:    "something changed meanwhile: run the command again",
	vault.ReasonUnchanged:            "nothing is to be done",
	vault.ReasonRecordUnknown:        "\"key list\" shows the records of a site",
	vault.ReasonKeyRevoked:           "two admins restore a key with \"key restore\"",
	vault.ReasonKeyDestroyed:         "the key is gone for good",
	vault.ReasonKeyRefused:           "run \"grant activate\" again; if that does not help, ask an admin",
	vault.ReasonSelectionEmpty:       "\"key list\" shows the records of a site and the states of their keys",
	vault.ReasonSelectionTooLarge:    "narrow the window, and run the command several times",
	vault.ReasonDataLoss:             "tell the admins: what is stored was changed or lost",
}

// hint says what to try next after an error, if anything is known to help.
func hint(err error, body errorBody) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.hint
	}
	var u *usageError
	if errors.As(err, &u) {
		return u.hint
	}
	if next := logHint(err); next != "" {
		return next
	}
	if body.Reason != "" {
		return hints[body.Reason]
	}
	switch body.Kind {
	case "not_offered":
		return "the service is older than this command line: \"portcullis whoami\" tells its version"
	case "unavailable", "unproved":
		return connectionHint(body.Message)
	case "canceled":
		return "run it again: what is done already is not done twice"
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return "the disk is full: make room, and run it again: what is there already stays"
	}
	return ""
}

// connectionHints says what to try next when no connection came about, by what stands in the
// message. The first that fits is it.
var connectionHints = []struct{ has, next string }{
	{"this profile's certificate", "have a new one issued; but if this machine's clock is wrong, set that"},
	{"certificate has expired or is not yet valid", "the service's certificate is not valid by this machine's clock: which of the two is wrong?"},
	{"the service's certificate is not of", "server_id and bundle in the configuration must be those of this service"},
	{"the service proves", "server_id and bundle in the configuration must be those of this service"},
	{"tls: expired certificate", "the service refused this profile's certificate, which has expired: have a new one issued"},
	{"tls: unknown certificate authority", "the service refused this profile's certificate: it is not of the service's bundle"},
	{"tls: protocol version", "what listens there does not speak TLS 1.3: is \"server\" in the configuration the service's address?"},
	{"first record does not look like a TLS handshake", "what listens there does not speak TLS: is \"server\" in the configuration the service's address?"},
	{"tls: ", "the service refused this profile's certificate: has it expired, is it of the same bundle, is the clock right?"},
	{"broken pipe", hungUp},
	{"connection reset", hungUp},
	{"connection refused", "nothing listens there: is the service running, and is \"server\" in the configuration its address?"},
	{"no such host", "there is no such name: is \"server\" in the configuration right?"},
	{"server misbehaving", "the name service did not answer: look at this machine's network"},
	{"no route to host", "there is no way to that machine: look at this machine's network"},
	{"network is unreachable", "there is no way to that machine: look at this machine's network"},
	{"timeout", "no answer: is the service's machine up, and does a firewall between drop the packets?"},
	{"deadline exceeded", "no answer: is the service's machine up, and does a firewall between drop the packets?"},
}

// hungUp is for a service that ended the connection before a word: its alert may be lost.
const hungUp = "what listens there hung up: it may have refused this profile's certificate"

func connectionHint(message string) string {
	for _, h := range connectionHints {
		if strings.Contains(message, h.has) {
			return h.next + "; " + hintDoctor
		}
	}
	return "is the service running, and is \"server\" in the configuration its address? " + hintDoctor
}
