package wire

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// Suspension writes a caller's suspension.
func Suspension(s vault.Suspension) *pb.SuspendedCaller {
	return &pb.SuspendedCaller{Caller: s.Caller, SuspendTime: timestamppb.New(s.At), SuspendedBy: s.By}
}

// Review writes the resource names of what is to be looked at.
func Review(r vault.Review) (out []string) {
	for _, id := range r.Grants {
		out = append(out, Name(Grants, id))
	}
	for _, p := range r.Purposes {
		out = append(out, Purposes+"/"+p)
	}
	for _, c := range r.Contractors {
		out = append(out, Contractors+"/"+c)
	}
	return out
}
