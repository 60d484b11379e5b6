package breach

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/portcullis/portcullis/vault"
)

// EndedGrants is what came of withdrawing a purpose.
type EndedGrants struct {
	Grants  int64 // that ended
	Barrier vault.Barrier
}

// draftPurpose gives the decision that puts p in the place of the version in force.
func (s *Service) draftPurpose(tx Tx, p vault.Purpose) (d vault.Proposal, err error) {
	// What a later version of this program would not take any more can be withdrawn as it stands: a
	// withdrawal takes all but one field from the version in force.
	if err := p.Check(); err != nil && !p.Withdrawn {
		return d, err
	}
	known, err := tx.Purpose(p.Name)
	if err != nil && vault.KindOf(err) != vault.NotFound {
		return d, err
	}
	p.Version, p.Replaces = known.Purpose.Version, known.Purpose.Replaces
	if err == nil && p.Text() == known.Purpose.Text() {
		switch err := s.sanctioned(tx, known); {
		case err == nil && p.Withdrawn:
			return d, vault.E(vault.Exists, vault.ReasonUnchanged, "purpose %s is withdrawn already, version %d", p.Name, p.Version)
		case err == nil:
			return d, vault.E(vault.Exists, vault.ReasonUnchanged, "purpose %s is in force as it stands here, version %d", p.Name, p.Version)
		case vault.KindOf(err) != vault.Denied:
			return d, err
		}
	}
	if err == nil {
		p.Replaces = known.Purpose.Digest()
	}
	p.Version++
	d.Kind, d.Body = vault.ApplyPurpose, p.Text()
	d.Payload, err = json.Marshal(p)
	return d, err
}

// draftWithdrawal gives the decision that withdraws the version in force.
func (s *Service) draftWithdrawal(tx Tx, name string) (d vault.Proposal, err error) {
	known, err := tx.Purpose(name)
	if err != nil {
		return d, err
	}
	p := known.Purpose.Normal()
	p.Withdrawn = true
	return s.draftPurpose(tx, p)
}

// sanctioned proves that a purpose is what admins signed.
func (s *Service) sanctioned(tx Tx, p vault.Sanction) error {
	return s.proved.Sanctioned(s.Authority(), p, func(v int) (vault.Sanction, error) { return tx.PurposeVersion(p.Purpose.Name, v) })
}

// withdraws says whether a decision withdraws a purpose, by what was signed.
func withdraws(d vault.Proposal) bool {
	return d.Kind == vault.ApplyPurpose && lineOf(d.Body, "withdrawn") == "true"
}

// lineOf gives the value of the first line of a canonical text that has the key.
func lineOf(body, key string) string {
	for line := range strings.Lines(body) {
		if v, ok := strings.CutPrefix(line, key+": "); ok {
			return strings.TrimSuffix(v, "\n")
		}
	}
	return ""
}

// applyPurpose makes a signed version of a purpose the one in force. With a withdrawal all
// grants of the purpose end; it gives them.
func (s *Service) applyPurpose(tx Tx, c vault.Caller, d vault.Proposal) (ended []vault.ID, err error) {
	var p vault.Purpose
	if err := json.Unmarshal(d.Payload, &p); err != nil || p.Text() != d.Body {
		return nil, tampered(d, err)
	}
	if now, err := s.draftPurpose(tx, p); err != nil || now.Body != d.Body {
		return nil, errors.Join(overtaken(d), err)
	}
	if err := tx.AddPurpose(p, d.ID); err != nil {
		return nil, err
	}
	e := vault.NewEvent(vault.EventPurposeApplied, c, tx.Now())
	e.Decision = d.Facts()
	if p.Withdrawn {
		if ended, err = tx.EndGrantsFor(p.Name); err != nil {
			return nil, err
		}
		e.Type, e.Count = vault.EventPurposeWithdrawn, int64(len(ended))
	}
	return ended, tx.Append(e)
}

// endAtOnce ends what is under way of grants that have ended, then has Vault follow.
func (s *Service) endAtOnce(ctx context.Context, index int64, grants []vault.ID) (*EndedGrants, error) {
	out := &EndedGrants{Grants: int64(len(grants))}
	var err error
	if out.Barrier, err = s.Gate.End(ctx, vault.Ending{Index: index, Grants: grants}); err != nil {
		return out, err
	}
	if err := s.disarmEach(ctx, grants); err != nil {
		s.Log.WarnContext(ctx, "vault has still to end grants of a withdrawn purpose", "error", err)
		return out, nil
	}
	out.Barrier.VaultDone = true
	return out, nil
}
