package main

import (
	"testing"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// TestReconcileOnDemand: an admin's call compares the stores, alone and one at a time.
func TestReconcileOnDemand(t *testing.T) {
	s := begin(t)
	s.store(s.as(lane), vault.Plate, 2, 2000)
	s.makeKey("not-ours")
	got, err := s.as(alice).Admin.Reconcile(t.Context(), &pb.ReconcileRequest{})
	for vault.ReasonOf(err) == vault.ReasonReconciling { // the one at start
		got, err = s.as(alice).Admin.Reconcile(t.Context(), &pb.ReconcileRequest{})
	}
	noError(t, err)
	if got.Records != 2 || got.Foreign != 1 || got.Quarantined != 0 || got.VaultRestored {
		t.Errorf("%v", got)
	}
	_, err = s.as(auditor).Admin.Reconcile(t.Context(), &pb.ReconcileRequest{})
	refused(t, err, vault.ReasonRoleNotAllowed)
	// One at a time: the others are told.
	conflicts := make(chan error, 16)
	for range cap(conflicts) {
		go func() {
			_, err := s.as(alice).Admin.Reconcile(t.Context(), &pb.ReconcileRequest{})
			conflicts <- err
		}()
	}
	told := 0
	for range cap(conflicts) {
		switch err := <-conflicts; {
		case vault.KindOf(err) == vault.Conflict && vault.ReasonOf(err) == vault.ReasonReconciling:
			told++
		case err != nil:
			t.Error(err)
		}
	}
	if told == 0 || told == cap(conflicts) {
		t.Errorf("%d of %d were turned away", told, cap(conflicts))
	}
}
