package vault_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/portcullis/portcullis/vault"
)

const secret = "hvs.CAESIGtoken-secret"

// leaks says whether the text holds the secret in any form that a verb would give it.
func leaks(text string) bool {
	for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprintf("% x", secret), fmt.Sprint([]byte(secret)), secret[4:12]} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

// holder carries a token in the ways that fmt and the encoders ask it to print itself. They
// do not ask in unexported fields, in keys of maps (encoding/json) and for %p and %w (which
// vet refuses): the doc of Token says so.
type holder struct {
	Token vault.Token
	Ptr   *vault.Token
	List  []vault.Token
	Map   map[string]vault.Token
	Any   any
	Inner struct{ Token vault.Token }
}

func held() holder {
	tok := vault.Token(secret)
	h := holder{Token: tok, Ptr: &tok, List: []vault.Token{tok}, Map: map[string]vault.Token{"a": tok}, Any: tok}
	h.Inner.Token = tok
	return h
}

func TestTokenNeverPrintsItself(t *testing.T) {
	tok, h := vault.Token(secret), held()
	if tok.Reveal() != secret {
		t.Fatal("Reveal does not give the secret")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%c", "%t", "%10.3s", "%-50v", "%!", "%U", "%b"} {
		for _, v := range []any{tok, h, &h, []any{tok, h}} {
			if text := fmt.Sprintf(verb, v); leaks(text) {
				t.Errorf("%s of a %T prints %s", verb, v, text)
			}
		}
	}
	for name, text := range map[string]string{
		"Print":    fmt.Sprint(tok, h, &h),
		"Println":  fmt.Sprintln(tok, h),
		"an error": fmt.Errorf("fetch with %v: %w", tok, errors.New("x")).Error(),
		"E":        vault.E(vault.Denied, vault.ReasonGrantToken, "token %s", tok).Error(),
	} {
		if leaks(text) {
			t.Errorf("%s prints %s", name, text)
		}
	}
}

func TestTokenNeverEncodesItself(t *testing.T) {
	h := held()
	b, err := json.Marshal(h)
	if err != nil || leaks(string(b)) {
		t.Errorf("json: %s, %v", b, err)
	}
	if b, err = xml.Marshal(struct {
		XMLName xml.Name `xml:"x"`
		T       vault.Token
	}{T: h.Token}); err != nil || leaks(string(b)) {
		t.Errorf("xml: %s, %v", b, err)
	}
	var out bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		log := slog.New(handler)
		log.With("token", h.Token).WithGroup("g").Info("fetch", "holder", h, "pointer", &h, "ptr", h.Ptr, "any", slog.AnyValue(h.Token), "list", h.List)
	}
	if !strings.Contains(out.String(), "grant token") || leaks(out.String()) {
		t.Errorf("slog: %s", out.String())
	}
}

func TestTokenMatches(t *testing.T) {
	tok := vault.Token(secret)
	if !tok.Matches(tok.Digest()) || tok.Matches(vault.Token("x").Digest()) {
		t.Error("a token matches its own digest and no other")
	}
	for _, any := range []vault.Token{"", tok} {
		if any.Matches(vault.Digest{}) {
			t.Error("something matches the zero digest")
		}
	}
}
