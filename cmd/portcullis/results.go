package main

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// outcome is one line of a file of results: what came of one file. The newest line of a file
// holds.
type outcome struct {
	Time     string         `json:"time"`
	File     fileName       `json:"file"` // below the folder that is watched; else as it was given
	Modality vault.Modality `json:"modality"`
	// Status is stored, repeated, known, refused, failed (tried again), begun (the answer is
	// not known yet) or gone (it vanished before it was stored).
	Status      string     `json:"status"`
	Size        int64      `json:"size,omitempty"`
	Modified    string     `json:"modified,omitempty"`
	CaptureTime string     `json:"capture_time,omitempty"`
	RequestID   string     `json:"request_id,omitempty"`
	Class       string     `json:"class,omitempty"`   // retention class; lines from before there were classes have none
	Picture     string     `json:"picture,omitempty"` // the request ID that it has without a capture time
	Record      string     `json:"record,omitempty"`
	Error       *errorBody `json:"error,omitempty"`
}

func (o outcome) stored() bool { return o.Status == "stored" || o.Status == "repeated" }

// of says whether the line tells of this version of its file.
func (o outcome) of(v fileVersion) bool {
	t, err := time.Parse(time.RFC3339Nano, o.Modified)
	return err == nil && v.is(fileVersion{o.Size, t})
}

func (o *outcome) setVersion(v fileVersion) {
	o.Size, o.Modified = v.size, v.modified.UTC().Format(time.RFC3339Nano)
}

// outcome makes a line of what one run tells of a file.
func (s stored) outcome(now time.Time) outcome {
	o := outcome{Time: vault.FormatTime(now), File: s.File, Modality: s.Modality, Class: s.in.Class, Status: s.Status, Error: s.Error}
	if s.in.RequestID != (vault.ID{}) {
		o.RequestID, o.CaptureTime = s.in.RequestID.String(), vault.FormatTime(s.in.CapturedAt)
	}
	if s.Image != nil {
		o.Record = s.Image.Record
	}
	return o
}

// fileName is the name of a file, which need not be UTF-8. In JSON and on a terminal each byte
// that is not UTF-8 stands as \xHH, and a backslash as two, so no two names look the same.
type fileName string

// MarshalText writes the name so that every name has a text of its own.
func (n fileName) MarshalText() ([]byte, error) {
	if utf8.ValidString(string(n)) && !strings.Contains(string(n), `\`) {
		return []byte(n), nil
	}
	var out []byte
	for rest := string(n); rest != ""; {
		r, size := utf8.DecodeRuneInString(rest)
		switch {
		case r == utf8.RuneError && size == 1:
			out = fmt.Appendf(out, `\x%02x`, rest[0])
		case r == '\\':
			out = append(out, `\\`...)
		default:
			out = append(out, rest[:size]...)
		}
		rest = rest[size:]
	}
	return out, nil
}

// UnmarshalText reads what MarshalText wrote. A backslash that it would not have written stands
// for itself.
func (n *fileName) UnmarshalText(b []byte) error {
	var out []byte
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) && b[i+1] == '\\' {
			i++
		} else if b[i] == '\\' && i+3 < len(b) && b[i+1] == 'x' {
			if c, err := hex.DecodeString(string(b[i+2 : i+4])); err == nil {
				out = append(out, c[0])
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	*n = fileName(out)
	return nil
}

func (n fileName) String() string {
	b, _ := n.MarshalText() // it has no errors
	return string(b)
}

// openResults opens a watch's file of results and gives the newest line of each file.
func openResults(path string) (*lines, map[string]outcome, error) {
	last := map[string]outcome{}
	l, err := openLines(path, newest(last))
	if errors.Is(err, errInUse) {
		return nil, nil, &hinted{fmt.Errorf("file of results: %w", err), "end the other \"capture\" of this folder first"}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("file of results: %w", err)
	}
	return l, last, nil
}

// newest keeps the newest line of each file in last.
func newest(last map[string]outcome) func(line []byte) error {
	return func(line []byte) error {
		var o outcome
		if json.Unmarshal(line, &o) != nil || o.File == "" {
			return nil // no line of ours: what it was about is asked for again
		}
		if last[string(o.File)] = o; o.Status == "gone" {
			delete(last, string(o.File))
		}
		return nil
	}
}

// errUnchanged says that a file's picture is stored already, and only its time is another.
var errUnchanged = errors.New("stored before")

// job is one version of a file that is to be stored.
type job struct {
	folder  fs.FileInfo // which folder that was
	name    string      // below the folder
	picture picture
	version fileVersion // that had settled
	last    outcome     // what is known of the file, may be zero

	out    outcome // what is known once it was read
	result client.Result
}

// read reads the picture and writes down under which request ID it will be stored: whatever
// happens to the file's time or the profile's key, an answer that is lost is asked for again
// under the same.
func (j *job) read(run *capture, results *lines, now time.Time) (client.Image, error) {
	in, v, err := run.read(j.picture)
	if err != nil {
		return client.Image{}, err
	}
	if !v.is(j.version) {
		return client.Image{}, errChanging
	}
	in.CapturedAt = time.Time{}
	j.out.Picture = run.requestID(in).String()
	same := j.last.Picture == j.out.Picture
	if same && j.last.stored() {
		return client.Image{}, errUnchanged
	}
	if in.CapturedAt = run.fixed; run.byFile {
		in.CapturedAt = vault.Micro(v.modified)
	}
	in.RequestID = run.requestID(in)
	// Under another class it is another record, and what was begun is left as it is.
	if j.last.Status == "begun" && (same || j.last.of(v)) && cmp.Or(j.last.Class, vault.DefaultClass) == in.Class {
		id, err := vault.ParseID("request_id", j.last.RequestID)
		at, timeErr := time.Parse(time.RFC3339Nano, j.last.CaptureTime)
		if err == nil && timeErr == nil {
			in.RequestID, in.CapturedAt = id, at
		}
	}
	j.out.RequestID, j.out.CaptureTime = in.RequestID.String(), vault.FormatTime(in.CapturedAt)
	if j.last.Status == "begun" && j.last.RequestID == j.out.RequestID && j.last.of(v) {
		return in, nil // written down
	}
	begun := j.out
	begun.Time, begun.Status = vault.FormatTime(now), "begun"
	return in, results.append(begun)
}

// unlink removes a file that is stored, unless it is another version by now.
func unlink(path string, v fileVersion) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !versionOf(info).is(v) {
		return nil
	}
	return os.Remove(path)
}

// resultsFile is where a watch of a folder keeps its results, unless told otherwise.
func resultsFile(dir string) string { return filepath.Join(dir, ".portcullis", "results.jsonl") }
