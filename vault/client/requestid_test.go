package client

import (
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

func TestRequestIDTellsImagesApart(t *testing.T) {
	key := []byte("0123456789abcdef0123456789abcdef")
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	base := Image{Modality: vault.Face, Bytes: []byte("picture"), CapturedAt: at}
	seen := map[vault.ID]string{}
	for name, change := range map[string]func(*Image){
		"base":     func(*Image) {},
		"modality": func(i *Image) { i.Modality = vault.Plate },
		"bytes":    func(i *Image) { i.Bytes = []byte("picturf") },
		"time":     func(i *Image) { i.CapturedAt = at.Add(time.Microsecond) },
		"no time":  func(i *Image) { i.CapturedAt = time.Time{} },
		"crossing": func(i *Image) { i.CrossingID = vault.ID{1} },
		"class":    func(i *Image) { i.Class = "us-citizen" },
		"class 2":  func(i *Image) { i.Class = "us-citizen-2" },
	} {
		in := base
		change(&in)
		id := requestID(key, in)
		if other, ok := seen[id]; ok {
			t.Errorf("%s and %s have the same request ID", name, other)
		}
		seen[id] = name
		if again := requestID(key, in); again != id {
			t.Errorf("%s: %s, then %s", name, id, again)
		}
		if got, err := vault.ParseID("request_id", id.String()); err != nil || got != id {
			t.Errorf("%s: %s is not a request ID that the service takes: %v", name, id, err)
		}
	}
	in := base
	in.RequestID = vault.NewID()
	if requestID(key, in) != requestID(key, base) {
		t.Error("the ID depends on the image's own request ID")
	}
	// IDs from before there were classes name the same images still.
	if in = base; requestID(key, in).String() != "e5d1bb26-2e32-83cb-9ad4-c405710eb67d" {
		t.Errorf("the ID of an image without a class is %s", requestID(key, in))
	}
	if in.Class = vault.DefaultClass; requestID(key, in) != requestID(key, base) {
		t.Error("the default class, when it is named, makes another ID")
	}
	if requestID([]byte("another key"), base) == requestID(key, base) {
		t.Error("the ID does not depend on the key: it is a plain hash of the picture")
	}
}
