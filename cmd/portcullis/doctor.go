package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis/portcullis/vault"
)

// result is what a check found.
type result string

const (
	good    result = "ok"
	warning result = "warn"
	bad     result = "fail"
	skipped result = "skip" // an earlier check failed, on which it rests
)

// finding is what one check found, and what to do next if something is to be done.
type finding struct {
	Check  string `json:"check"`
	Result result `json:"result"`
	Detail string `json:"detail"`
	Next   string `json:"next"`
}

// doctor runs checks in order. A check that fails ends only those that rest on it.
type doctor struct {
	app      *app
	findings []finding

	config  configFile
	profile profile
	pair    *tls.Certificate // nil if it can not be used
	bundle  *bundle          // nil if it can not be read
}

func (d *doctor) add(check string, r result, next, format string, args ...any) {
	d.findings = append(d.findings, finding{check, r, fmt.Sprintf(format, args...), next})
}

func (d *doctor) ok(check, format string, args ...any) { d.add(check, good, "", format, args...) }
func (d *doctor) warn(check, next, format string, args ...any) {
	d.add(check, warning, next, format, args...)
}
func (d *doctor) fail(check, next, format string, args ...any) {
	d.add(check, bad, next, format, args...)
}

// skip says of checks that they could not be made.
func (d *doctor) skip(because string, checks ...string) {
	for _, c := range checks {
		d.add(c, skipped, "", "not looked at: %s", because)
	}
}

// The checks, in their order. Scripts find them by these names.
const (
	checkConfig      = "configuration"
	checkProfile     = "profile"
	checkKeyFile     = "key file"
	checkTokens      = "token files"
	checkCertificate = "certificate"
	checkIdentity    = "identity"
	checkValidity    = "validity"
	checkBundle      = "bundle"
	checkChain       = "chain"
	checkAddress     = "address"
	checkTLS         = "tls"
	checkServerChain = "service certificate"
	checkServerID    = "service identity"
	checkAdmitted    = "admission"
	checkClock       = "clock"
	checkStanding    = "standing"
	checkParts       = "parts"
	checkServing     = "serving"
	checkVersion     = "version"
	checkStale       = "kept tokens"
	checkLogKey      = "log key"
)

// doctorTime is how long the checks of the network may take together.
const doctorTime = 45 * time.Second

func (a *app) doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "look for what is wrong between this profile and the service, and say what to do",
		Long: `Doctor makes checks in order, from the configuration file to what the service stands on, and says
of each whether it is ok, warns or fails, and what to do next. It changes nothing, but that the
newest checkpoint of the log is remembered. A check that fails ends only those that rest on it. It
exits with 1 if one fails.

With --output json: {"ok":…,"checks":[{"check":"clock","result":"ok|warn|fail|skip","detail":"…","next":"…"}]}`,
		Example: "  portcullis --profile contractor doctor",
		Args:    exactly(0),
	}
	c.RunE = a.work(func(ctx context.Context, _ []string) error {
		within, cancel := context.WithTimeout(ctx, doctorTime)
		defer cancel()
		d := &doctor{app: a}
		d.run(within)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failed := 0
		for _, f := range d.findings {
			if f.Result == bad {
				failed++
			}
		}
		var err error
		if a.output == jsonOutput {
			err = a.showJSON(map[string]any{"ok": failed == 0, "checks": d.findings})
		} else {
			err = a.showTable(func(t *grid) {
				for _, f := range d.findings {
					t.row(f.Result, f.Check, f.Detail)
					if f.Next != "" {
						t.row("", "", "-> "+f.Next)
					}
				}
			})
		}
		if err == nil && failed > 0 {
			err = &incomplete{fmt.Sprintf("%s failed", count(failed, "check"))}
		}
		return err
	})
	return c
}

func (d *doctor) run(ctx context.Context) {
	if !d.readConfig() {
		d.skip("there is no configuration", checkProfile, checkKeyFile, checkTokens, checkCertificate, checkIdentity, checkValidity,
			checkBundle, checkChain, checkAddress, checkTLS, checkServerChain, checkServerID, checkAdmitted,
			checkClock, checkStanding, checkParts, checkServing, checkVersion, checkStale, checkLogKey)
		return
	}
	if d.pickProfile() {
		d.keyFile()
		d.tokenFiles()
		d.certificate()
	} else {
		d.skip("no profile", checkKeyFile, checkTokens, checkCertificate, checkIdentity, checkValidity)
	}
	d.readBundle()
	d.chain()
	if !d.address(ctx) {
		d.skip("no connection", checkTLS, checkServerChain, checkServerID, checkAdmitted, checkClock, checkStanding, checkParts, checkServing, checkVersion, checkStale, checkLogKey)
		return
	}
	if !d.handshake(ctx) {
		d.skip("the connection does not prove both sides", checkClock, checkStanding, checkParts, checkServing, checkVersion, checkStale, checkLogKey)
		return
	}
	d.service(ctx)
}

func (d *doctor) readConfig() bool {
	file, err := d.app.findConfig()
	if err == nil {
		d.config, err = readConfig(file)
	}
	if err != nil {
		next := "mend the file; \"portcullisd dev --dir DIR\" writes one to compare with"
		if h := hint(err, errorBody{}); h != "" {
			next = h
		}
		d.fail(checkConfig, next, "%v", err)
		return false
	}
	d.ok(checkConfig, "%s", file)
	return true
}

func (d *doctor) pickProfile() bool {
	p, err := d.app.loadProfile()
	if err != nil {
		d.profile.client.Address, d.profile.client.ServerID = d.config.Server, d.config.ServerID
		d.profile.client.Bundle = d.config.Bundle
		d.fail(checkProfile, "give --profile NAME, set PORTCULLIS_PROFILE, or name a default_profile in the file", "%v", err)
		return false
	}
	d.profile = p
	d.ok(checkProfile, "%s", p.name)
	return true
}

// now is the time by this machine's clock.
func (d *doctor) now() time.Time { return d.app.now() }

// clockToo is the end of a sentence about a certificate that is not valid now.
func (d *doctor) clockToo() string {
	return fmt.Sprintf("this machine's clock says %s: set it if it is wrong", vault.FormatTime(d.now()))
}
