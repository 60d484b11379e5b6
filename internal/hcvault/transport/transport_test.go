package transport

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func client(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewTLSServer(h)
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Addr: srv.URL, CAFile: ca})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// net/http reads the proxy variables once per process and never uses a proxy for loopback, so no request from here
// would show it.
func TestNoProxy(t *testing.T) {
	c := client(t, func(http.ResponseWriter, *http.Request) {})
	if c.http.Transport.(bounded).Proxy != nil {
		t.Error("tokens could go through a proxy")
	}
}

func TestAnswerIsBounded(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"data":{"x":"%s"}}`, strings.Repeat("x", maxAnswer))
	})
	var out struct{ Data struct{ X string } }
	if err := c.Do(t.Context(), "", http.MethodGet, "x", nil, &out); err == nil || out.Data.X != "" {
		t.Errorf("an answer of more than %d bytes: %v", maxAnswer, err)
	}
	if err := c.Do(t.Context(), "", "LIST", "x", nil, &out); err != nil || len(out.Data.X) != maxAnswer {
		t.Errorf("a list of the same length: %v", err)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		body, want string
		absent     bool
	}{
		{`{"errors":[]}`, "vault answers 404", true},
		{`{"errors":["no\n\thandler"]}`, "vault answers 404: no handler", false},
		{`<html>secret</html>`, "vault answers 404: (no JSON)", false},
		{``, "vault answers 404: (no JSON)", false},
		{`{"errors":["` + strings.Repeat("x", 400) + `"]}`, "vault answers 404: " + strings.Repeat("x", 300), false},
		{`{"errors":["token tok-1 is bad"],"auth":{"client_token":"secret"}}`, "vault answers 404: token [token] is bad", false},
	} {
		cl := client(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, c.body)
		})
		err := cl.Do(t.Context(), "tok-1", http.MethodGet, "x", nil, nil)
		e, ok := err.(*Error)
		if !ok || err.Error() != c.want || e.Absent() != c.absent {
			t.Errorf("%.60s: %v", c.body, err)
		}
	}
	// An answer that is no JSON is not quoted.
	cl := client(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"data":"secret`) })
	if err := cl.Do(t.Context(), "", http.MethodGet, "x", nil, &struct{}{}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}
