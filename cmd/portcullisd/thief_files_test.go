package main

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

var (
	uuids  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	hexes  = regexp.MustCompile(`[0-9a-f]{64}`)
	tokens = regexp.MustCompile(`hvs\.[A-Za-z0-9_-]{20,}`)
)

// rob uses all that lies in folders: every secret in every file is tried in every place where one
// fits, at Vault and as a caller of the service.
func (th *burglar) rob(folders ...string) {
	t := th.t
	t.Helper()
	var text []byte
	var certificates, keys [][]byte
	for _, dir := range folders {
		noError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			text = append(append(text, content...), '\n')
			if bytes.Contains(content, []byte("CERTIFICATE")) {
				certificates = append(certificates, content)
			}
			if bytes.Contains(content, []byte("PRIVATE KEY")) {
				keys = append(keys, content)
			}
			return err
		}))
	}
	var found []string
	for _, token := range tokens.FindAll(text, -1) {
		found = append(found, string(token))
	}
	ids := map[string]bool{}
	for _, id := range uuids.FindAll(text, -1) {
		ids[string(id)] = true
	}
	for role := range ids {
		for secret := range ids {
			if role != secret {
				found = append(found, th.login(role, secret)...)
			}
		}
		found = append(found, th.login(role, "")...)
		th.sample(th.opener(role)) // as a token
	}
	for _, key := range hexes.FindAll(text, -1) { // such as an unseal key would be
		raw, err := hex.DecodeString(string(key))
		noError(t, err)
		for _, r := range th.records[:20] {
			th.unseal(r, raw)
		}
	}
	th.work(found...)
	for _, c := range certificates {
		for _, k := range keys {
			if pair, err := tls.X509KeyPair(c, k); err == nil {
				th.knock(&pair)
			}
		}
	}
}

// knock calls the service as somebody who has a certificate, with what there is in the database.
func (th *burglar) knock(as *tls.Certificate) {
	d := th.door(as)
	for _, org := range []string{"prefix-co", "list-co", "thief-co"} {
		h := th.grants[org]
		th.through(d, h, th.chosen)
		if token, err := d.activate(h); err == nil {
			th.through(d, h, token)
			th.sweep(token.Reveal())
		}
	}
}
