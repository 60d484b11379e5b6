package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.yaml.in/yaml/v3"

	"github.com/portcullis/portcullis/certs"
)

// logText is what a daemon has logged so far.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write adds to it.
func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// profile adds a caller to a script's configuration: profile NAME PATH, of a SPIFFE ID.
func (d *daemon) profile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: profile NAME PATH")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	pair, err := d.authority.Issue(args[0]+"-"+ts.Getenv("NAME"), "spiffe://portcullis.example"+args[1], certs.Leaf{})
	ts.Check(err)
	file := ts.MkAbs(filepath.Join("conf", "portcullis.yaml"))
	text, err := os.ReadFile(file)
	ts.Check(err)
	var c map[string]any
	ts.Check(yaml.Unmarshal(text, &c))
	c["profiles"].(map[string]any)[args[0]] = map[string]any{"certificate": pair.Cert, "key": pair.Key}
	text, err = yaml.Marshal(c)
	ts.Check(err)
	ts.Check(os.WriteFile(file, text, 0o600))
}

// logged wants lines of the daemon's log, a pattern for each: logged PATTERN...
func (d *daemon) logged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: logged PATTERN...")
	}
	for _, p := range args {
		line := regexp.MustCompile("(?m)" + p)
		for deadline := time.Now().Add(10 * time.Second); !line.MatchString(d.logs.String()); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				ts.Fatalf("the daemon's log has no line %q:\n%s", p, d.logs.String())
			}
		}
	}
}
