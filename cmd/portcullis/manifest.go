package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// manifestName is the file, in the folder of a fetch, that says what lies there and by which
// right: one JSON object a line, the first of which is a manifestHead, the others entries.
const manifestName = "manifest.jsonl"

// manifestHead says under what the images of a folder left.
type manifestHead struct {
	Version        int    `json:"portcullis_manifest"` // 1
	Grant          string `json:"grant"`
	Grantee        string `json:"grantee"`
	Purpose        string `json:"purpose"`
	PurposeVersion int32  `json:"purpose_version"`
	EndTime        string `json:"end_time"` // of the grant
	Service        string `json:"service"`  // the SPIFFE ID that it proved
}

// entry is one image. The newest line of a handle holds.
type entry struct {
	Handle      string         `json:"handle"`
	File        string         `json:"file"` // in the same folder
	Modality    vault.Modality `json:"modality"`
	Site        string         `json:"site,omitempty"`         // as the service listed it
	CaptureTime string         `json:"capture_time,omitempty"` // likewise: cut to what the purpose tells, in UTC
	Crossing    string         `json:"crossing,omitempty"`     // likewise: with linkage, the same for all images of one crossing
	ContentType string         `json:"content_type"`
	Orientation int32          `json:"orientation"`
	Size        int            `json:"size"`
	SHA256      string         `json:"sha256"`
	FetchTime   string         `json:"fetch_time"`
}

// manifest is that of one folder.
type manifest struct {
	dir     string
	lines   *lines
	entries map[string]entry
	damaged int // lines that were taken out when it was opened
}

// openManifest opens the manifest of a folder, or begins it. A folder holds the images of
// one grant.
func openManifest(dir string, head manifestHead) (*manifest, error) {
	m := &manifest{dir: dir, entries: map[string]entry{}}
	path := filepath.Join(dir, manifestName)
	var found *manifestHead
	var whole [][]byte
	l, err := openLines(path, func(line []byte) error {
		if found == nil {
			found = &manifestHead{}
			if err := json.Unmarshal(line, found); err != nil || found.Version != 1 {
				return usagef("is no manifest of this program; give another --out")
			}
			whole = append(whole, bytes.Clone(line))
			return nil
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil || e.Handle == "" || e.File != imageName(e.Modality, e.Handle, e.ContentType) {
			m.damaged++ // the image is as good as absent
			return nil
		}
		whole = append(whole, bytes.Clone(line))
		m.entries[e.Handle] = e
		return nil
	})
	if errors.Is(err, errInUse) {
		return nil, &hinted{err, "another \"fetch\" writes to this folder: let it end"}
	}
	if err != nil {
		return nil, err
	}
	m.lines = l
	if found != nil {
		if found.Grant != head.Grant || found.Service != head.Service {
			_ = l.close()
			return nil, &usageError{err: fmt.Errorf("%s: the folder holds images of %s, not of %s", dir, found.Grant, head.Grant), hint: "give another --out: each grant has its folder"}
		}
		if m.damaged > 0 {
			if err := l.replace(whole); err != nil {
				_ = l.close()
				return nil, err
			}
		}
		return m, nil
	}
	if err := errors.Join(l.append(head), l.sync()); err != nil {
		_ = l.close()
		return nil, err
	}
	return m, nil
}

// has says whether the image of a handle lies in the folder just as it came.
func (m *manifest) has(handle string) (bool, error) {
	e, ok := m.entries[handle]
	if !ok {
		return false, nil
	}
	f, err := openRegular(filepath.Join(m.dir, e.File))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotRegular) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return false, err
	}
	return n == int64(e.Size) && hex.EncodeToString(h.Sum(nil)) == e.SHA256, nil
}

// add writes the line of an image whose file is durable. A crash before it costs one more
// fetch of that image.
func (m *manifest) add(facts imageFacts, img *pb.Image, view *pb.RecordView, now time.Time) error {
	sum := sha256.Sum256(img.GetData())
	e := entry{
		Handle: facts.Handle, File: filepath.Base(facts.File), Modality: facts.Modality,
		Site: view.GetSite(), Crossing: view.GetCrossing(),
		ContentType: facts.ContentType, Orientation: facts.Orientation, Size: facts.Size,
		SHA256: hex.EncodeToString(sum[:]), FetchTime: vault.FormatTime(now),
	}
	if view.GetCaptureTime() != nil {
		e.CaptureTime = captured(view)
	}
	m.entries[e.Handle] = e
	return m.lines.append(e)
}

func (m *manifest) close() error { return errors.Join(m.lines.sync(), m.lines.close()) }
