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

// holder carries a token in the ways that fmt and the encoders ask it to print itself.
type holder struct {
	Token vault.Token
	Ptr   *vault.Token
	List  []vault.Token
	Map   map[string]vault.Token
	Keys  map[vault.Token]string
	Any   any
	Inner struct{ Token vault.Token }
}

// closed carries one where fmt asks nobody and looks for itself.
type closed struct {
	token vault.Token
	ptr   *vault.Token
	list  []vault.Token
	array [2]vault.Token
	byKey map[vault.Token]vault.Token
	any   any
	inner struct{ token vault.Token }
}

// tokenError is an error that does not think of what it holds.
type tokenError struct{ token vault.Token }

func (e tokenError) Error() string {
	return fmt.Sprintf("%v %+v", e.token, struct{ t vault.Token }{e.token})
}

// containers are all that is printed here.
func containers() map[string]any {
	tok := vault.TokenOf(secret)
	h := holder{
		Token: tok, Ptr: &tok, List: []vault.Token{tok}, Map: map[string]vault.Token{"a": tok}, Keys: map[vault.Token]string{tok: "a"}, Any: tok,
	}
	h.Inner.Token = tok
	c := closed{
		token: tok, ptr: &tok, list: h.List, array: [2]vault.Token{tok, tok}, byKey: map[vault.Token]vault.Token{tok: tok}, any: tok,
	}
	c.inner.token = tok
	return map[string]any{
		"a token": tok, "a pointer": &tok, "a slice": h.List, "an array": c.array, "a map": h.Map, "a map's keys": h.Keys, "any": []any{tok, &tok, h, c},
		"exported fields": h, "a pointer to exported fields": &h, "unexported fields": c, "a pointer to unexported fields": &c,
		"a map to structs": map[string]closed{"a": c}, "a map to pointers": map[string]*closed{"a": &c}, "a map of any": map[any]any{tok: c},
		"an error": tokenError{tok}, "a pointer to an error": &tokenError{tok}, "a wrapped error": fmt.Errorf("fetch: %w", tokenError{tok}),
		"joined errors": errors.Join(tokenError{tok}, errors.New("x")), "our error": vault.E(vault.Denied, vault.ReasonGrantToken, "token %s", tok).Because(tokenError{tok}),
	}
}

func TestTokenNeverPrintsItself(t *testing.T) {
	if vault.TokenOf(secret).Reveal() != secret {
		t.Fatal("Reveal does not give the secret")
	}
	verbs := []string{
		"%v", "%+v", "%#v", "%s", "%q", "%#q", "%x", "%X", "% x", "%#x", "%d", "%c", "%t", "%10.3s", "%-50v", "%!", "%U", "%b", "%o", "%e", "%g", "%p", "%T", "%w", "%z",
	}
	for name, v := range containers() {
		for _, verb := range verbs {
			if text := fmt.Sprintf(verb, v); leaks(text) {
				t.Errorf("%s of %s prints %s", verb, name, text)
			}
			if text := fmt.Errorf(verb, v).Error(); leaks(text) {
				t.Errorf("an error with %s of %s prints %s", verb, name, text)
			}
		}
		if text := fmt.Sprint(v) + fmt.Sprintln(v); leaks(text) {
			t.Errorf("Print of %s gives %s", name, text)
		}
	}
	if text := fmt.Sprintf("%v %s %x", vault.TokenOf(secret), &holder{}, vault.Token{}); !strings.Contains(text, "[grant token]") {
		t.Errorf("a token prints as %s", text)
	}
}

func TestTokenNeverEncodesItself(t *testing.T) {
	for name, v := range containers() {
		if b, err := json.Marshal(v); leaks(string(b)) || leaks(fmt.Sprint(err)) {
			t.Errorf("json of %s: %s, %v", name, b, err)
		}
		var out bytes.Buffer
		for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(handler).With("with", v).WithGroup("g").Info("fetch", "value", v, "pointer", &v, "any", slog.AnyValue(v), "group", slog.GroupValue(slog.Any("a", v)))
		}
		if !strings.Contains(out.String(), "fetch") || leaks(out.String()) {
			t.Errorf("slog of %s: %s", name, out.String())
		}
	}
	tok := vault.TokenOf(secret)
	for _, v := range []any{tok, []vault.Token{tok}, map[string]vault.Token{"a": tok}, map[vault.Token]string{tok: "a"}, struct{ T vault.Token }{tok}} {
		if b, err := json.Marshal(v); err != nil || !strings.Contains(string(b), "[grant token]") {
			t.Errorf("json of a %T: %s, %v", v, b, err)
		}
	}
	b, err := xml.Marshal(struct {
		XMLName xml.Name    `xml:"x"`
		A       vault.Token `xml:"a,attr"`
		T       vault.Token
	}{A: tok, T: tok})
	if err != nil || leaks(string(b)) {
		t.Errorf("xml: %s, %v", b, err)
	}
}

func TestTokenMatches(t *testing.T) {
	tok := vault.TokenOf(secret)
	if !tok.Matches(tok.Digest()) || tok.Matches(vault.TokenOf("x").Digest()) || tok.Digest() != vault.DigestOf([]byte(secret)) {
		t.Error("a token matches its own digest and no other")
	}
	for _, any := range []vault.Token{{}, tok} {
		if any.Matches(vault.Digest{}) {
			t.Error("something matches the zero digest")
		}
	}
	if again := vault.TokenOf(strings.Clone(secret)); again != tok || vault.TokenOf(secret+"x") == tok {
		t.Error("tokens are equal if their secrets are, and only then")
	}
}

func TestNoToken(t *testing.T) {
	var none vault.Token
	if !none.IsZero() || none.Reveal() != "" || vault.TokenOf("") != none || vault.TokenOf(secret).IsZero() {
		t.Error("the zero token is none, and only it")
	}
	if none.Matches(vault.TokenOf(secret).Digest()) || none.String() != vault.TokenOf(secret).String() {
		t.Error("none matches, or shows that it is none")
	}
}
