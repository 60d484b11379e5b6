package client

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

const someGrant = "grants/1f0c2a4e-7d53-4b1e-9a3f-0c7a8e6d5b21"

// TestFetchGoesOn: each image comes once, in order, whatever becomes of the connection, and
// only what did not come is asked for again.
func TestFetchGoesOn(t *testing.T) {
	for name, set := range map[string]func(f *faulty){
		"cut midway": func(f *faulty) {
			f.send = func(n int, _ *pb.Image) error {
				if n == 5 || n == 9 {
					time.Sleep(20 * time.Millisecond) // for the ones before to arrive
					f.cut()
				}
				return nil
			}
		},
		"away midway": func(f *faulty) {
			f.send = func(n int, _ *pb.Image) error {
				if n%4 == 0 {
					return status.Error(codes.Unavailable, "away")
				}
				return nil
			}
		},
		"stands still": func(f *faulty) {
			f.send = func(n int, _ *pb.Image) error {
				if n == 5 {
					time.Sleep(900 * time.Millisecond)
				}
				return nil
			}
		},
		"busy": func(f *faulty) {
			f.before = func(_ context.Context, n int) error {
				if n < 3 {
					return busy(time.Millisecond)
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, c := serve(t, Config{Timeout: 400 * time.Millisecond, Patience: 10 * time.Second})
			set(f)
			want := handles(12)
			var got []string
			err := c.Fetch(t.Context(), someGrant, vault.TokenOf("token"), want, func(i *pb.Image) error {
				got = append(got, i.Handle)
				return nil
			})
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("%v; got %v", err, got)
			}
			if len(f.asks) < 2 {
				t.Fatal("nothing failed")
			}
			for i, ask := range f.asks[1:] {
				if ask[len(ask)-1] != want[11] || len(ask) > len(f.asks[i]) {
					t.Errorf("asked for %d, then for %d", len(f.asks[i]), len(ask))
				}
			}
			if last := f.asks[len(f.asks)-1]; name != "busy" && len(last) == len(want) {
				t.Error("asked for all of them again")
			}
		})
	}
}

func TestFetchGivesUp(t *testing.T) {
	f, c := serve(t, Config{Patience: 500 * time.Millisecond})
	f.send = func(n int, _ *pb.Image) error {
		if n > 2 {
			return status.Error(codes.Unavailable, "away")
		}
		return nil
	}
	got := 0
	err := c.Fetch(t.Context(), someGrant, vault.TokenOf("token"), handles(4), func(*pb.Image) error { got++; return nil })
	if vault.KindOf(err) != vault.Unavailable || got != 2 || len(f.asks) < 2 {
		t.Errorf("%v after %d images and %d calls", err, got, len(f.asks))
	}

	f, c = serve(t, Config{})
	f.send = func(int, *pb.Image) error { return status.Error(codes.PermissionDenied, "revoked") }
	err = c.Fetch(t.Context(), someGrant, vault.TokenOf("token"), handles(4), func(*pb.Image) error { t.Error("an image"); return nil })
	if vault.KindOf(err) != vault.Denied || len(f.asks) != 1 {
		t.Errorf("%v after %d calls", err, len(f.asks))
	}

	f, c = serve(t, Config{})
	full := errors.New("the disk is full")
	err = c.Fetch(t.Context(), someGrant, vault.TokenOf("token"), handles(4), func(*pb.Image) error { return full })
	if !errors.Is(err, full) || len(f.asks) != 1 {
		t.Errorf("%v after %d calls", err, len(f.asks))
	}
	err = c.Fetch(t.Context(), someGrant, vault.TokenOf("token"), append(handles(2), handles(1)...), func(*pb.Image) error { return nil })
	if vault.KindOf(err) != vault.Invalid {
		t.Errorf("a handle named twice: %v", err)
	}
}

// TestFetchTrustsNothing: what can not be right is never given on.
func TestFetchTrustsNothing(t *testing.T) {
	want := handles(3)
	day := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	expect := Expect{
		Scope: &vault.Scope{Sites: []string{"north"}, Modalities: []vault.Modality{vault.Plate}, From: day, Until: day.AddDate(0, 0, 1)},
		Views: map[string]*pb.RecordView{want[1]: {Handle: want[1], Modality: pb.Modality_MODALITY_PLATE}},
	}
	for name, c := range map[string]struct {
		change func(*pb.Image)
		expect Expect
	}{
		"another handle":        {func(i *pb.Image) { i.Handle = want[2] }, expect},
		"one it had before":     {func(i *pb.Image) { i.Handle = want[0] }, expect},
		"no handle":             {func(i *pb.Image) { i.Handle = "" }, expect},
		"content type":          {func(i *pb.Image) { i.ContentType = "image/jpeg" }, expect},
		"neither":               {func(i *pb.Image) { i.ContentType, i.Data = "text/html", []byte("<html>") }, expect},
		"bytes":                 {func(i *pb.Image) { i.Data = []byte("MZ and so on") }, expect},
		"nothing":               {func(i *pb.Image) { i.Data = nil }, expect},
		"too large":             {func(i *pb.Image) { i.Data = append(i.Data, make([]byte, maxImage)...) }, expect},
		"larger than a message": {func(i *pb.Image) { i.Data = append(i.Data, make([]byte, maxMessage)...) }, expect},
		"no modality":           {func(i *pb.Image) { i.Modality = 0 }, Expect{}},
		"outside the scope":     {func(i *pb.Image) { i.Modality = pb.Modality_MODALITY_FACE }, Expect{Scope: expect.Scope}},
		"not as listed":         {func(i *pb.Image) { i.Modality = pb.Modality_MODALITY_FACE }, Expect{Views: expect.Views}},
		"orientation":           {func(i *pb.Image) { i.Orientation = 9 }, expect},
	} {
		f, cl := serve(t, Config{})
		f.send = func(n int, img *pb.Image) error {
			if n == 2 {
				c.change(img)
			}
			return nil
		}
		got := 0
		err := cl.FetchExpected(t.Context(), someGrant, vault.TokenOf("token"), want, c.expect, func(*pb.Image) error { got++; return nil })
		if vault.KindOf(err) != vault.DataLoss || got != 1 || len(f.asks) != 1 {
			t.Errorf("%s: %v after %d images, %d calls", name, err, got, len(f.asks))
		}
	}
	f, cl := serve(t, Config{})
	if err := cl.FetchExpected(t.Context(), someGrant, vault.TokenOf("token"), want, expect, func(*pb.Image) error { return nil }); err != nil {
		t.Error(err)
	}
	for _, n := range []int{2, 4} {
		f.answer = handles(n)
		err := cl.Fetch(t.Context(), someGrant, vault.TokenOf("token"), want, func(*pb.Image) error { return nil })
		if vault.KindOf(err) != vault.DataLoss {
			t.Errorf("%d images for 3 that were asked for: %v", n, err)
		}
	}
}

func TestRecordsTrustsNothing(t *testing.T) {
	day := time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)
	e := Expect{Scope: &vault.Scope{Sites: []string{"north"}, Modalities: []vault.Modality{vault.Plate}, From: day, Until: day.AddDate(0, 0, 1)}}
	on := func(d int) *timestamppb.Timestamp {
		return timestamppb.New(time.Date(2026, 11, d, 0, 0, 0, 0, time.UTC))
	}
	view := func(h string) *pb.RecordView {
		return &pb.RecordView{Handle: h, Modality: pb.Modality_MODALITY_PLATE, Site: "north", TimePrecision: pb.TimePrecision_TIME_PRECISION_DAY, CaptureTime: on(23)}
	}
	f, c := serve(t, Config{})
	var pages []*pb.ListRecordsResponse
	f.list = func(req *pb.ListRecordsRequest) *pb.ListRecordsResponse {
		if req.PageToken == "" {
			return pages[0]
		}
		return pages[1]
	}
	list := func(p ...*pb.ListRecordsResponse) error {
		pages = p
		return c.Records(t.Context(), someGrant, vault.TokenOf("token"), e.CheckView)
	}
	h := handles(2)
	one := func(v *pb.RecordView, next string) *pb.ListRecordsResponse {
		return &pb.ListRecordsResponse{Records: []*pb.RecordView{v}, NextPageToken: next}
	}
	if err := list(one(view(h[0]), "x"), one(view(h[1]), "")); err != nil {
		t.Fatal(err)
	}
	late := view(h[0])
	late.CaptureTime = on(24) // until six in the morning
	if err := list(one(late, "")); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(v *pb.RecordView){
		"handle":   func(v *pb.RecordView) { v.Handle = "x" },
		"site":     func(v *pb.RecordView) { v.Site = "south" },
		"modality": func(v *pb.RecordView) { v.Modality = pb.Modality_MODALITY_FACE },
		"crossing": func(v *pb.RecordView) { v.Crossing = "x" },
		"no date":  func(v *pb.RecordView) { v.CaptureTime = nil },
		"before":   func(v *pb.RecordView) { v.CaptureTime = on(22) },
		"after":    func(v *pb.RecordView) { v.CaptureTime = on(25) },
	} {
		v := view(h[0])
		change(v)
		if err := list(one(v, "")); vault.KindOf(err) != vault.DataLoss {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := list(one(view(h[0]), "x"), one(view(h[0]), "")); vault.KindOf(err) != vault.DataLoss {
		t.Errorf("the same twice: %v", err)
	}
	if err := list(one(view(h[0]), "x"), &pb.ListRecordsResponse{NextPageToken: "x"}); vault.KindOf(err) != vault.DataLoss {
		t.Errorf("pages without end: %v", err)
	}
}
