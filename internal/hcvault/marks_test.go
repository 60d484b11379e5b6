package hcvault_test

import (
	"slices"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

func TestMark(t *testing.T) {
	h := newHouse(t)
	if m, err := h.admin.ReadMark(t.Context()); err != nil || m != (vault.Mark{}) {
		t.Fatalf("before the first: %v, %v", m, err)
	}
	var m vault.Mark
	for range 3 {
		m = m.After()
		h.must(h.admin.WriteMark(t.Context(), m))
		if got, err := h.admin.ReadMark(t.Context()); err != nil || got != m {
			t.Fatalf("%v is read as %v, %v", m, got, err)
		}
	}
	// What nobody of ours wrote is no mark, and not the absence of one.
	h.must(root(t, "PUT", "sys/policies/acl/portcullis-grant-mark", map[string]string{"policy": "# ended\n"}, nil))
	if got, err := h.admin.ReadMark(t.Context()); err == nil {
		t.Errorf("%v is read from junk", got)
	}
	h.must(root(t, "DELETE", "sys/policies/acl/portcullis-grant-mark", nil, nil))
}

func TestEndTokens(t *testing.T) {
	h := newHouse(t)
	k := h.store("endall.plate.20190101")
	id, one, _ := h.grant("endall-co", 1, "endall.plate.2019")
	_, two, _ := h.grant("endall-co", 2, "endall.plate.2019")
	h.opens(one, k)
	h.opens(two, k)
	for range 2 {
		h.must(h.admin.EndTokens(t.Context()))
		h.refused(vault.ReasonKeyRefused, one, k)
		h.refused(vault.ReasonKeyRefused, two, k)
	}
	tok, _, err := h.grants.Mint(t.Context(), id, "endall-co", 1, time.Minute)
	h.must(err)
	h.opens(tok, k)
	fences, err := h.admin.Fences(t.Context())
	if err != nil || !slices.Contains(fences, id) {
		t.Errorf("%v, %v", fences, err)
	}
	h.must(h.admin.DeleteFence(t.Context(), id))
	if fences, err := h.admin.Fences(t.Context()); err != nil || slices.Contains(fences, id) {
		t.Errorf("%v, %v", fences, err)
	}
}
