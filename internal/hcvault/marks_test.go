package hcvault_test

import (
	"slices"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

func TestMarks(t *testing.T) {
	h := newHouse(t)
	read := func(newest, before vault.Mark) {
		t.Helper()
		if n, b, err := h.admin.ReadMarks(t.Context()); err != nil || n != newest || b != before {
			t.Fatalf("%v and %v, %v; want %v and %v", n, b, err, newest, before)
		}
	}
	read(vault.Mark{}, vault.Mark{})
	var m, before vault.Mark
	for range 5 {
		m, before = m.After(), m
		h.must(h.admin.WriteMark(t.Context(), m))
		read(m, before)
	}
	// What nobody of ours wrote is no mark, and not the absence of one; it is the first to be replaced.
	for _, policy := range []string{"mark", "mark-2"} {
		h.must(root(t, "PUT", "sys/policies/acl/portcullis-grant-"+policy, map[string]string{"policy": "# ended\n"}, nil))
		n, b, err := h.admin.ReadMarks(t.Context())
		if err != nil || n != vault.Unreadable || b == vault.Unreadable {
			t.Errorf("%v and %v, %v are read from junk", n, b, err)
		}
		m = m.After()
		h.must(h.admin.WriteMark(t.Context(), m))
		read(m, b)
	}
	h.must(root(t, "DELETE", "sys/policies/acl/portcullis-grant-mark", nil, nil))
	h.must(root(t, "DELETE", "sys/policies/acl/portcullis-grant-mark-2", nil, nil))
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
	tok, _, err := h.grants.Mint(t.Context(), id, "endall-co", 1, time.Minute, 0)
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
