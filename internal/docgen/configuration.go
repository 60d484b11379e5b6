package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"reflect"
	"strconv"
	"strings"
)

func configurationPage(src *source) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(configurationHead)
	if err := daemonSettings(src, &b); err != nil {
		return nil, err
	}
	b.WriteString(clientHead)
	if err := clientKeys(src, &b); err != nil {
		return nil, err
	}
	b.WriteString(limitsHead)
	for _, group := range limits {
		fmt.Fprintf(&b, "\n%s\n\n", group.title)
		t := newTable("limit", "value", "in the code")
		for _, l := range group.limits {
			v, err := src.constant(l.dir, l.name)
			if err != nil {
				return nil, err
			}
			if l.unit == "bytes" {
				v = size(v)
			}
			t.row(l.what, strings.TrimSpace(v+" "+l.unit), "`"+l.dir[strings.LastIndex(l.dir, "/")+1:]+"."+l.name+"`")
		}
		t.WriteTo(&b)
	}
	return b.Bytes(), nil
}

const configurationHead = `# Configuration

<!-- Made by make generate of cmd/portcullisd/config.go and others; do not edit. -->

## The daemon: portcullisd.yaml

Each setting can stand in the file that ` + "`--config`" + ` names, in an environment variable and in a flag; the
later of these wins. A dot is a level of the YAML file, and two underscores in the variable. Relative
paths in the file count from the file's folder, others from where the daemon runs. A key that is not
here is refused, wherever it stands. ` + "`portcullisd config check`" + ` takes the same flags and prints what is in
force. [operations.md](operations.md) has a whole file.

`

const clientHead = `
## The command line: portcullis.yaml

The file is ` + "`--config`" + `, else ` + "`$PORTCULLIS_CONFIG`" + `, else ` + "`./portcullis.yaml`" + `, else ` + "`portcullis/portcullis.yaml`" + ` in
the user's configuration folder (` + "`~/.config`" + ` on Linux). The profile is ` + "`--profile`" + `, else ` + "`$PORTCULLIS_PROFILE`" + `,
else ` + "`default_profile`" + `, else the only one there is. Relative paths count from the file's folder. Grant
tokens are kept beside the file, in ` + "`tokens/<profile>/<grant>`" + `, readable by their owner alone.

`

const limitsHead = `
## Limits and times that are built in

They are constants of the code, so that a limit that tests prove is the limit that holds.
`

// daemonSettings writes the table of portcullisd's settings.
func daemonSettings(src *source, b *bytes.Buffer) error {
	const dir = "cmd/portcullisd"
	p, err := src.load(dir)
	if err != nil {
		return err
	}
	all, err := p.variable("settings")
	if err != nil {
		return err
	}
	prefix, err := src.constant(dir, "envPrefix")
	if err != nil {
		return err
	}
	t := newTable("key", "environment, flag", "default", "roles", "meaning")
	for _, e := range all.Elts {
		fields := map[string]ast.Expr{}
		for _, f := range e.(*ast.CompositeLit).Elts {
			kv := f.(*ast.KeyValueExpr)
			fields[last(kv.Key)] = kv.Value
		}
		key, err := p.value(fields["key"])
		if err != nil {
			return err
		}
		help, err := p.value(fields["help"])
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		def := "must be given"
		switch {
		case fields["def"] != nil:
			if def, err = p.typed(fields["def"]); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			def = "`" + def + "`"
		case fields["none"] != nil:
			def = "empty"
		}
		roles := "all"
		if lit, ok := fields["roles"].(*ast.CompositeLit); ok {
			var in []string
			for _, r := range lit.Elts {
				role, err := p.value(r)
				if err != nil {
					return fmt.Errorf("%s: %w", key, err)
				}
				in = append(in, role)
			}
			roles = strings.Join(in, ", ")
		}
		t.row("`"+key+"`", fmt.Sprintf("`%s%s`, `--%s`", prefix, strings.ToUpper(strings.ReplaceAll(key, ".", "__")), key), def, roles, help)
	}
	_, err = t.WriteTo(b)
	return err
}

// clientKeys writes the table of the keys of portcullis.yaml, from the comments of their fields.
func clientKeys(src *source, b *bytes.Buffer) error {
	p, err := src.load("cmd/portcullis")
	if err != nil {
		return err
	}
	t := newTable("key", "meaning")
	for _, s := range []struct{ name, prefix string }{{"configFile", ""}, {"identityFiles", "profiles.<name>."}} {
		st, err := p.structure(s.name)
		if err != nil {
			return err
		}
		for _, f := range st.Fields.List {
			tag, err := strconv.Unquote(f.Tag.Value)
			if err != nil {
				return err
			}
			key := s.prefix + strings.Split(reflect.StructTag(tag).Get("yaml"), ",")[0]
			meaning := text(f.Doc, f.Names[0].Name)
			if meaning == "" {
				return fmt.Errorf("%s.%s has no comment", s.name, f.Names[0].Name)
			}
			t.row("`"+key+"`", meaning)
		}
	}
	_, err = t.WriteTo(b)
	return err
}

// limit is a constant of the code that people meet.
type limit struct{ what, dir, name, unit string }

var limits = []struct {
	title  string
	limits []limit
}{
	{"What people may ask for:", []limit{
		{"longest name of a site, lane, organisation, workload, person or purpose", "vault", "MaxName", "bytes"},
		{"longest life of a grant", "vault", "MaxTTL", ""},
		{"shortest life of a grant", "vault", "MinTTL", ""},
		{"largest quota of a grant", "vault", "MaxQuota", "records"},
		{"sites of a purpose or a scope, contractors of a purpose", "vault", "MaxListed", ""},
		{"days that a scope's window may touch", "vault", "MaxWindowDays", ""},
		{"paths of a grant's policy at Vault", "vault", "MaxPrefixes", ""},
		{"approvals that a purpose may want", "vault", "MaxApprovals", ""},
		{"longest title", "vault", "MaxTitle", "bytes"},
		{"longest justification", "vault/grants", "MaxJustification", "bytes"},
		{"records that one key operation takes", "vault", "MaxSelection", ""},
		{"records of a page", "vault/release", "MaxPage", ""},
		{"handles of one call that fetches", "internal/server", "maxHandles", ""},
	}},
	{"Decisions and signatures:", []limit{
		{"admins who sign what loosens or destroys", "vault", "LooseningSigners", ""},
		{"how long a proposed decision waits for its signatures", "vault", "DecisionTTL", ""},
		{"how far a signature's time may lie from the service's", "vault", "SignatureSkew", ""},
	}},
	{"Images:", []limit{
		{"most that `images.max_bytes` can be set to", "cmd/portcullisd", "mostBytes", "bytes"},
		{"most that `images.max_pixels` can be set to", "cmd/portcullisd", "mostPixels", "pixels"},
		{"largest colour profile (ICC) in an image", "internal/imaging", "MaxProfile", "bytes"},
	}},
	{"Connections and calls:", []limit{
		{"connections at once", "internal/server", "MaxConnections", ""},
		{"of one address (IPv6: of one /64 network)", "internal/server", "MaxConnectionsEach", ""},
		{"calls at once on one connection", "internal/server", "maxStreams", ""},
		{"calls at once of one caller", "internal/server", "maxCallerCalls", ""},
		{"calls at once of all", "internal/server", "maxCalls", ""},
		{"largest headers of a call", "internal/server", "maxHeaders", "bytes"},
		{"how long a call waits for its turn before it is refused", "internal/server", "busyAfter", ""},
		{"listings at once that look at all that their grants cover, one of each contractor", "vault/release", "maxScans", ""},
		{"how long a listing waits for its turn before it is refused", "vault/release", "turnWait", ""},
		{"how long a large listing is begun anew without looking at all of it again", "vault/release", "fresh", ""},
		{"how long a request may take to arrive", "internal/server", "receiveTime", ""},
		{"how long a handshake may take", "internal/identity", "HandshakeTimeout", ""},
		{"how long a connection without calls is kept", "internal/server", "idle", ""},
		{"shortest time between a client's keepalive pings", "internal/server", "keepaliveMin", ""},
		{"how often certificate, key and bundle are looked at again", "internal/identity", "CheckEvery", ""},
		{"how long calls under way may take when the daemon stops", "cmd/portcullisd", "drainFor", ""},
	}},
	{"Ending access:", []limit{
		{"most of a connection that the kernel is asked to hold", "internal/identity", "SendBuffer", "bytes"},
		{"how long a process that releases may go on without renewing its lease", "internal/gate", "leaseFor", ""},
		{"how long before its lease ends it has stopped, and cut its connections", "internal/gate", "cutWithin", ""},
		{"how often it looks for endings", "internal/gate", "pollEvery", ""},
		{"how long the answer to suspending a caller waits for Vault, in all", "vault/breach", "disarmTime", ""},
		{"how often Vault is told again what it is owed", "cmd/portcullisd", "sweepEvery", ""},
	}},
	{"Restores:", []limit{
		{"how long releases may rest on one check that nothing was restored", "vault/breach", "goodFor", ""},
		{"how often Vault's mark moves on", "cmd/portcullisd", "markEvery", ""},
	}},
}
