package main

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/envelope"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/client"
)

// TestRetentionClass: the class that a capture system names is the record's, wherever it is
// told of; another name of it for the same image is refused, and so is what is no name.
func TestRetentionClass(t *testing.T) {
	s := begin(t)
	cam := s.as(lane)
	in := client.Image{RequestID: vault.NewID(), Modality: vault.Plate, CapturedAt: time.Now(), Class: "us-citizen", Bytes: picture(1, 300)}
	first, err := cam.Store(t.Context(), in)
	noError(t, err)
	again, err := cam.Store(t.Context(), in)
	noError(t, err)
	if !again.Repeated || again.Record != first.Record {
		t.Errorf("%v, stored again, is %v", first, again)
	}
	for _, class := range []string{"", vault.DefaultClass, "us-citizens"} {
		other := in
		other.Class = class
		_, err := cam.Store(t.Context(), other)
		refused(t, err, vault.ReasonRequestIDReused)
	}
	for _, class := range []string{"US", "us citizen", strings.Repeat("x", 33)} {
		other := in
		other.RequestID, other.Class = vault.NewID(), class
		_, err := cam.Store(t.Context(), other)
		if e := new(vault.Error); !errors.As(err, &e) || e.Kind != vault.Invalid || len(e.Fields) != 1 || e.Fields[0].Name != "retention_class" {
			t.Errorf("class %q: %v", class, err)
		}
	}
	if e := s.events("record.stored"); len(e) != 1 || e[0].Stored.Class != "us-citizen" {
		t.Errorf("the log says %+v", e)
	}
	noError(t, s.as(alice).RecordKeys(t.Context(), vault.Selection{Record: mustID(t, first.Record)}, func(r *pb.RecordKey) error {
		if r.RetentionClass != "us-citizen" {
			t.Errorf("the list of keys says %v", r)
		}
		return nil
	}))
	if rep, err := s.fsck(fsckOptions{}); err != nil {
		t.Errorf("%v, %+v", err, rep.Faults)
	}
}

// TestRecordFromBeforeClasses: a record as it was stored when nothing was bound to a class
// opens and is sound, but for nobody who gives it another class.
func TestRecordFromBeforeClasses(t *testing.T) {
	s := begin(t)
	p := purpose()
	p.Retention = []string{vault.DefaultClass, "us-citizen"} // a record of another class is out of sight
	s.admit(p, devOrg)
	record := id(s.store(s.as(lane), vault.Plate, 1, 2000)[0])
	path := filepath.Join(s.cfg.Blobs.Path, record[:2], record)
	sealed, err := os.ReadFile(path)
	noError(t, err)
	var index int64
	for _, e := range s.events("record.stored") {
		index = e.index
	}
	sealed = sealedAsOnce(t, s, record, sealed)
	noError(t, os.WriteFile(path, sealed, 0o600))
	hash := vault.DigestOf(sealed)
	e, err := vault.DecodeEvent(s.body(index))
	noError(t, err)
	e.Stored.Class, e.Stored.SealedHash = "", hash.String()
	body, err := e.Encode()
	noError(t, err)
	s.sql("UPDATE records SET sealed_hash = $1", hash[:])
	s.sql("UPDATE events SET body = $1 WHERE idx = $2", body, index)

	contractor := s.as(matcher)
	grant, token := s.granted(contractor, p, 100)
	handles := s.handles(contractor, grant, token)
	fetch := func() (n int, err error) {
		err = contractor.Fetch(t.Context(), grant, token, handles, func(*pb.Image) error { n++; return nil })
		return n, err
	}
	if n, err := fetch(); n != 1 || err != nil {
		t.Fatalf("%d images open: %v", n, err)
	}
	if rep, err := s.fsck(fsckOptions{}); rep.Faults[breach.FaultEventDiffers] != 0 || rep.Faults[breach.FaultBlobChanged] != 0 {
		t.Errorf("%v, %+v", err, rep.Faults)
	}
	s.sql("UPDATE records SET class = 'us-citizen'")
	n, err := fetch()
	if n != 0 {
		t.Errorf("%d images open in another class", n)
	}
	refused(t, err, vault.ReasonDataLoss)
	if rep, err := s.fsck(fsckOptions{}); rep.Faults[breach.FaultEventDiffers] != 1 {
		t.Errorf("another class: %v, %+v", err, rep.Faults)
	}
}

// sealedAsOnce seals a record's image anew as version 1, which nothing writes any more.
func sealedAsOnce(t *testing.T, s *service, record string, sealed []byte) []byte {
	t.Helper()
	var r vault.Record
	var captured int64
	var id, crossing string
	noError(t, openSQL(t, s.cfg.Store.Path).QueryRowContext(t.Context(), `SELECT id, site, lane, modality, captured_at, crossing_id,
		content_type, orientation, wrapped_key, class FROM records WHERE id = $1`, record).Scan(
		&id, &r.Site, &r.Lane, &r.Modality, &captured, &crossing, &r.ContentType, &r.Orientation, &r.WrappedKey, &r.Class))
	r.ID, r.CapturedAt = mustID(t, id), time.UnixMicro(captured)
	if crossing != "" {
		t.Fatal("these records have no crossing")
	}
	status, got := s.atVault("POST", "portcullis/decrypt/"+r.KeyName(), s.vault.RootToken(), map[string]string{"ciphertext": r.WrappedKey})
	if status != 200 {
		t.Fatal(status, got)
	}
	dek, err := base64.StdEncoding.DecodeString(got["data"].(map[string]any)["plaintext"].(string))
	noError(t, err)
	image, err := envelope.Open(r, dek, sealed)
	noError(t, err)

	number := func(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
	var aad []byte
	for _, field := range [][]byte{
		[]byte("PSI\x01"), r.ID[:], []byte(r.Modality), []byte(r.Site), []byte(r.Lane), number(captured), r.CrossingID[:],
		[]byte(r.ContentType), number(int64(r.Orientation)), []byte(r.KeyName()),
	} {
		aad = append(binary.BigEndian.AppendUint16(aad, uint16(len(field))), field...)
	}
	block, err := aes.NewCipher(dek)
	noError(t, err)
	aead, err := cipher.NewGCMWithRandomNonce(block)
	noError(t, err)
	return aead.Seal([]byte("PSI\x01"), nil, image, aad)
}

func mustID(t *testing.T, name string) vault.ID {
	t.Helper()
	got, err := vault.ParseID("id", id(name))
	noError(t, err)
	return got
}
