package server

import (
	"context"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// Reconcile compares records, ciphertext and Vault's keys, and does what is safe.
func (s *adminAPI) Reconcile(ctx context.Context, _ *pb.ReconcileRequest) (*pb.ReconcileResponse, error) {
	if s.Stock == nil {
		return nil, vault.E(vault.NotOffered, vault.ReasonNotOffered, "this process does not reconcile; ask the one with the admin role")
	}
	got, err := s.Stock.Reconcile(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.ReconcileResponse{
		Records: int64(got.Records), Young: int64(got.Young), Quarantined: int64(got.Quarantined), Waiting: int64(got.Waiting),
		Returned: int64(got.Returned), Destroyed: int64(got.Destroyed), Undone: int64(got.Undone), Foreign: int64(got.Foreign),
		VaultRestored: got.Restored, TokensEnded: got.Tokens,
	}, nil
}

// GetDestructionCertificate gives the certificate of a destruction that is done.
func (s *adminAPI) GetDestructionCertificate(ctx context.Context, req *pb.GetDestructionCertificateRequest) (*pb.GetDestructionCertificateResponse, error) {
	c, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	id, err := wire.ParseName("name", wire.Decisions, req.Name)
	if err != nil {
		return nil, err
	}
	text, err := s.Breach.Certificate(ctx, c, id)
	if err != nil {
		return nil, err
	}
	return &pb.GetDestructionCertificateResponse{Certificate: text}, nil
}
