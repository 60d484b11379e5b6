package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis/portcullis/internal/envelope"
	"github.com/portcullis/portcullis/vault"
)

// burglar is a program that knows all of this code, and has the database, the ciphertext and a way to
// Vault. It counts what it opened: images that are what was stored, byte for byte.
type burglar struct {
	*scene
	http    *http.Client
	records []vault.Record
	sealed  map[vault.ID][]byte
	deeds   []deed
	chosen  vault.Token     // a secret of its own that it plants as a token
	fence   string          // a policy of its own
	minted  map[string]bool // policies that it has a token of
	bare    map[string]bool // tokens of one fence each: TestPowers shows that such open keys and do nothing else

	// What is to be set right after it.
	wrote    bool           // policies changed
	reopened map[*held]bool // grants that it activated

	mu     sync.Mutex
	opened map[vault.ID]bool
}

// deed is what the database tells of a grant.
type deed struct {
	id, org string
	epoch   int
	digest  vault.Digest
	scope   vault.Scope
	handles vault.HandleKey
}

// calls makes a client of Vault at an address of the loopback network.
func (s *scene) calls(from net.IP) *http.Client {
	s.t.Helper()
	pem, err := os.ReadFile(s.vault.CACert())
	noError(s.t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	dial := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	transport := &http.Transport{DialContext: dial.DialContext, TLSClientConfig: &tls.Config{RootCAs: pool}, MaxConnsPerHost: 16, MaxIdleConnsPerHost: 16}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// burgle makes a thief at an address.
func (s *scene) burgle(from net.IP) *burglar {
	s.t.Helper()
	th := &burglar{
		scene: s, http: s.calls(from),
		records: s.recordsOnce(), sealed: s.ciphertext(), chosen: vault.TokenOf("hvs.CAESIchosenbythethief0123456789"),
		fence: "portcullis-grant-" + vault.NewID().String(), minted: map[string]bool{}, bare: map[string]bool{}, reopened: map[*held]bool{}, opened: map[vault.ID]bool{},
	}
	th.read()
	if len(th.records) != len(s.truth) || len(th.sealed) != len(s.truth) {
		s.t.Fatalf("the thief has %d records and %d ciphertexts of %d", len(th.records), len(th.sealed), len(s.truth))
	}
	return th
}

// read takes from the database what it tells of grants.
func (th *burglar) read() {
	t := th.t
	t.Helper()
	db := openSQL(t, th.cfg.Store.Path)
	defer db.Close()
	grants, err := db.QueryContext(t.Context(), `SELECT id, contractor, epoch, token_digest, sites, modalities, captured_from, captured_until, records, handle_key FROM grants`)
	noError(t, err)
	defer grants.Close()
	th.deeds = nil
	for grants.Next() {
		var d deed
		var digest, handles []byte
		var sites, modalities, records string
		var from, until int64
		noError(t, grants.Scan(&d.id, &d.org, &d.epoch, &digest, &sites, &modalities, &from, &until, &records, &handles))
		copy(d.digest[:], digest)
		copy(d.handles[:], handles)
		d.scope = vault.Scope{Sites: strings.Split(sites, ","), From: time.UnixMicro(from), Until: time.UnixMicro(until)}
		for _, m := range strings.Split(modalities, ",") {
			d.scope.Modalities = append(d.scope.Modalities, vault.Modality(m))
		}
		if records != "" {
			d.scope.List = vault.NewID()
			for _, r := range strings.Split(records, ",") {
				id, err := vault.ParseID("records", r)
				noError(t, err)
				d.scope.Records = append(d.scope.Records, id)
			}
		}
		th.deeds = append(th.deeds, d)
	}
	noError(t, grants.Err())
}

// deed gives what the database tells of a grant.
func (th *burglar) deed(h *held) deed {
	th.t.Helper()
	i := slices.IndexFunc(th.deeds, func(d deed) bool { return d.id == id(h.name) })
	if i < 0 {
		th.t.Fatalf("the database does not tell of grant %s", h.name)
	}
	return th.deeds[i]
}

func (th *burglar) count() int {
	th.mu.Lock()
	defer th.mu.Unlock()
	return len(th.opened)
}

func (th *burglar) has(record vault.ID) bool {
	th.mu.Lock()
	defer th.mu.Unlock()
	return th.opened[record]
}

// take counts an image, if it is the record's.
func (th *burglar) take(record vault.ID, image []byte) bool {
	if !th.same(record, image) {
		th.t.Errorf("what was opened as record %s is another image", record)
		return false
	}
	th.mu.Lock()
	defer th.mu.Unlock()
	th.opened[record] = true
	return true
}

// unseal opens the ciphertext with a data key.
func (th *burglar) unseal(r vault.Record, dek []byte) bool {
	image, err := envelope.Open(r, dek, th.sealed[r.ID])
	return err == nil && th.take(r.ID, image)
}

// call calls Vault. The path is sent as it stands.
func (th *burglar) call(method, path, token string, in any) (int, map[string]any) {
	body, err := json.Marshal(in)
	if err != nil {
		panic(err)
	}
	req, err := http.NewRequestWithContext(th.t.Context(), method, th.vault.Addr()+"/v1/x", bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.URL.Opaque = "//" + req.URL.Host + "/v1/" + path
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := th.http.Do(req)
	if err != nil {
		th.t.Errorf("%s %s: %v", method, path, err)
		return 0, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		th.t.Errorf("%s %s: %v", method, path, err)
	}
	var out map[string]any
	_ = json.Unmarshal(text, &out) // some answers have no body
	return resp.StatusCode, out
}

// field gives a text deep in an answer, "" when it is not there.
func field(answer map[string]any, path ...string) string {
	var at any = answer
	for _, p := range path {
		m, ok := at.(map[string]any)
		if !ok {
			return ""
		}
		at = m[p]
	}
	s, _ := at.(string)
	return s
}

// decrypt opens a record with a token, at a path of Vault that leads, or may lead, to its key.
func (th *burglar) decrypt(token, path string, r vault.Record) bool {
	_, got := th.call("POST", path, token, map[string]string{"ciphertext": r.WrappedKey})
	dek, err := base64.StdEncoding.DecodeString(field(got, "data", "plaintext"))
	return err == nil && len(dek) > 0 && th.unseal(r, dek)
}

// sweep tries a token on every record that is not opened yet. It begins with what the token's grant covers: where its
// uses are few, a refusal is one as well.
func (th *burglar) sweep(token string) {
	left := func(want func(vault.Record) bool) []vault.Record {
		return slices.DeleteFunc(slices.Clone(th.records), func(r vault.Record) bool { return th.has(r.ID) || !want(r) })
	}
	for _, d := range th.deeds {
		if vault.TokenOf(token).Matches(d.digest) {
			th.try(left(d.scope.Covers), th.opener(token))
		}
	}
	th.try(left(func(vault.Record) bool { return true }), th.opener(token))
}

func (th *burglar) opener(token string) func(vault.Record) bool {
	return func(r vault.Record) bool { return th.decrypt(token, "portcullis/decrypt/"+r.KeyName(), r) }
}

// try tries to open records, many at once, and gives those that did.
func (th *burglar) try(records []vault.Record, open func(vault.Record) bool) (opened []vault.Record) {
	results := make([]bool, len(records))
	var all errgroup.Group
	all.SetLimit(12)
	for i, r := range records {
		all.Go(func() error {
			results[i] = open(r)
			return nil
		})
	}
	noError(th.t, all.Wait())
	for i, ok := range results {
		if ok {
			opened = append(opened, records[i])
		}
	}
	return opened
}

// sample tries of each site, modality and day one image that is not opened yet, the list's if it can; of those days of
// which it opened another one, and if that opened all. What allows anything allows names, or whole days, or a day from noon
// on, when the list's images were captured: each of these shows in the sample.
func (th *burglar) sample(open func(vault.Record) bool) {
	cell := func(r vault.Record) string { return strings.TrimSuffix(r.KeyName(), r.ID.String()) }
	left := map[string][]vault.Record{} // the list's first, then the others from the newest
	for _, r := range th.records {
		if !th.has(r.ID) {
			left[cell(r)] = append(left[cell(r)], r)
		}
	}
	var try []vault.Record
	for _, records := range left {
		slices.SortFunc(records, func(a, b vault.Record) int {
			if l := slices.Contains(th.listed, b.ID); l != slices.Contains(th.listed, a.ID) {
				return map[bool]int{true: 1, false: -1}[l]
			}
			return b.CapturedAt.Compare(a.CapturedAt)
		})
		try = append(try, records[0])
	}
	for step := range 2 {
		opened := th.try(try, open)
		try = nil
		for _, r := range opened {
			if rest := left[cell(r)][1+step:]; step == 0 && len(rest) > 0 {
				try = append(try, rest[0])
			} else {
				try = append(try, rest...)
			}
		}
	}
	th.try(try, open)
}

// work does all that can be done at Vault with these tokens, and with all that come of them, until nothing is left
// to open.
func (th *burglar) work(tokens ...string) {
	for pass := range 2 { // again, since one may write what another can use
		for i := 0; i < len(tokens); i++ {
			th.sample(th.opener(tokens[i]))
			if th.count() == len(th.records) {
				return
			}
			if th.bare[tokens[i]] || (pass == 1 && len(tokens) == 1) {
				continue
			}
			for _, more := range th.climb(tokens[i]) {
				if !slices.Contains(tokens, more) {
					tokens = append(tokens, more)
				}
			}
		}
	}
	for _, token := range tokens {
		if !th.bare[token] {
			th.export(token)
			th.stray(token)
		}
	}
}

// anything is a policy that allows all that there is.
const anything = `path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }`

var vaultRoles = []string{"portcullis-capture", "portcullis-grants", "portcullis-admin", "portcullis-log"}

// climb makes more of a token: wider policies, other tokens, others' logins. What it is, Vault's answers
// tell; the thief tries everything with each.
func (th *burglar) climb(token string) (more []string) {
	gain := func(what string, answer map[string]any) { // one of each kind is enough
		if t := field(answer, "auth", "client_token"); t != "" && !th.minted[what] {
			th.minted[what] = true
			more = append(more, t)
		}
	}
	fences := []string{th.fence}
	for _, d := range th.deeds {
		fences = append(fences, "portcullis-grant-"+d.id)
	}
	for _, name := range append(append([]string{"default", "portcullis-release"}, vaultRoles...), fences...) {
		status, _ := th.call("PUT", "sys/policies/acl/"+name, token, map[string]string{"policy": anything})
		th.wrote = th.wrote || status < 300
	}
	const at = "auth/token/create/portcullis-grant"
	for i, name := range append(fences, "root", "portcullis-admin", "portcullis-admin,"+th.fence) {
		if th.minted[name] {
			continue
		}
		org, epoch := "thief-co", 1
		if i > 0 && i < len(fences) {
			org, epoch = th.deeds[i-1].org, th.deeds[i-1].epoch
		}
		_, got := th.call("POST", at, token, map[string]any{
			"policies": []string{name}, "ttl": "600s", "explicit_max_ttl": "600s", "renewable": false, "no_default_policy": true,
			"entity_alias": fmt.Sprintf("portcullis-c-%s-%d", org, epoch),
		})
		gain(name, got)
		if t := field(got, "auth", "client_token"); t != "" {
			th.bare[t] = true
		}
	}
	for _, path := range []string{at, "auth/token/create", "auth/token/create-orphan"} {
		for _, in := range []map[string]any{{}, {"policies": []string{"root"}}, {"policies": []string{th.fence}, "no_parent": true}} {
			_, got := th.call("POST", path, token, in)
			gain(path, got)
		}
	}
	for _, role := range vaultRoles {
		_, got := th.call("POST", "auth/approle/role/"+role+"/secret-id", token, map[string]any{})
		secret := field(got, "data", "secret_id")
		_, got = th.call("GET", "auth/approle/role/"+role+"/role-id", token, nil)
		for _, t := range th.login(field(got, "data", "role_id"), secret) {
			gain(role, map[string]any{"auth": map[string]any{"client_token": t}})
		}
		th.call("POST", "auth/approle/role/"+role, token, map[string]any{"token_policies": []string{"root"}, "bind_secret_id": false})
	}
	for _, x := range []struct {
		method, path string
		in           map[string]any
	}{
		{"POST", "auth/token/roles/portcullis-grant", map[string]any{"allowed_policies_glob": "*", "token_bound_cidrs": []string{}}},
		{"POST", "auth/approle/role/thief", map[string]any{"token_policies": []string{"root"}, "bind_secret_id": false}},
		{"POST", "identity/entity", map[string]any{"name": "thief", "policies": []string{"root", "portcullis-admin"}}},
		{"POST", "sys/auth/thief", map[string]any{"type": "userpass"}},
		{"POST", "sys/mounts/thief", map[string]any{"type": "kv"}},
		{"POST", "sys/remount", map[string]any{"from": "portcullis", "to": "thief"}},
		{"PUT", "sys/config/cors", map[string]any{"enabled": true, "allowed_origins": "*"}},
		{"PUT", "sys/generate-root/attempt", map[string]any{}},
		{"DELETE", "sys/generate-root/attempt", nil},
		{"POST", "sys/wrapping/unwrap", map[string]any{"token": token}},
		{"POST", "auth/token/renew-self", map[string]any{"increment": "999h"}},
		{"GET", "auth/token/lookup-self", nil}, {"LIST", "auth/token/accessors", nil}, {"GET", "sys/health", nil}, {"GET", "sys/seal-status", nil},
		{"GET", "sys/raw/logical", nil}, {"GET", "sys/storage/raft/configuration", nil}, {"GET", "sys/internal/ui/mounts", nil},
		{"GET", "sys/leader", nil}, {"GET", "sys/host-info", nil},
	} {
		_, got := th.call(x.method, x.path, token, x.in)
		gain(x.path, got)
	}
	return more
}

// login tries a pair of a role's ID and a secret.
func (th *burglar) login(role, secret string) []string {
	if role == "" {
		return nil
	}
	in := map[string]string{"role_id": role}
	if secret != "" {
		in["secret_id"] = secret
	}
	_, got := th.call("POST", "auth/approle/login", "", in)
	if t := field(got, "auth", "client_token"); t != "" {
		return []string{t}
	}
	return nil
}

// export tries to get record keys themselves.
func (th *burglar) export(token string) {
	for _, r := range th.records {
		name := r.KeyName()
		th.call("POST", "portcullis/keys/"+name+"/config", token, map[string]any{"exportable": true, "allow_plaintext_backup": true})
		_, got := th.call("GET", "portcullis/export/encryption-key/"+name, token, nil)
		keys := []string{field(got, "data", "keys", "1")}
		_, got = th.call("GET", "portcullis/backup/"+name, token, nil)
		if text, err := base64.StdEncoding.DecodeString(field(got, "data", "backup")); err == nil && len(text) > 0 {
			var whole map[string]any
			_ = json.Unmarshal(text, &whole) // what is no backup has no key
			keys = append(keys, field(whole, "policy", "keys", "1", "key"))
		}
		for _, method := range []string{"POST", "GET"} {
			_, got = th.call(method, "portcullis/datakey/plaintext/"+name, token, map[string]any{})
			keys = append(keys, field(got, "data", "plaintext"))
		}
		opened := false
		for _, key := range keys {
			opened = opened || th.unwrapWith(r, key)
		}
		if !opened {
			return // what is refused for one is for all
		}
	}
}

// unwrapWith opens a record by its own key, in base64.
func (th *burglar) unwrapWith(r vault.Record, key string) bool {
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(raw) != 32 {
		return false
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return false
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return false
	}
	wrapped, err := base64.StdEncoding.DecodeString(r.WrappedKey[strings.LastIndexByte(r.WrappedKey, ':')+1:])
	if err != nil {
		return false
	}
	dek, err := aead.Open(nil, nil, wrapped, nil)
	return err == nil && th.unseal(r, dek)
}

// stray tries paths that look as if they were below one that the token may use.
func (th *burglar) stray(token string) {
	i := slices.IndexFunc(th.records, func(r vault.Record) bool { return !th.has(r.ID) })
	if i < 0 {
		return
	}
	r := th.records[i]
	th.mu.Lock()
	var mine string
	for _, o := range th.records {
		if th.opened[o.ID] {
			mine = o.KeyName()
		}
	}
	th.mu.Unlock()
	for _, path := range []string{
		mine + "/../" + r.KeyName(), mine + "%2f..%2f" + r.KeyName(), mine + "/%2e%2e/" + r.KeyName(), mine + "//" + r.KeyName(), mine + "%00" + r.KeyName(),
		"./" + r.KeyName(), strings.ToUpper(r.KeyName()), r.KeyName() + "/", r.KeyName() + "?x=" + mine, "%2e/" + r.KeyName(),
	} {
		th.decrypt(token, "portcullis/decrypt/"+path, r)
	}
	th.call("POST", "portcullis/rewrap/"+r.KeyName(), token, map[string]string{"ciphertext": r.WrappedKey})
}
