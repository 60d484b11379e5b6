package store

import (
	"encoding/json"

	"github.com/google/uuid"

	"github.com/portcullis/portcullis/vault"
)

func (t *Tx) signatures(decision vault.ID) (out []vault.Signature, err error) {
	err = t.each("SELECT signer, signed_at, signature, chain FROM signatures WHERE decision_id = $1 ORDER BY signed_at, signer",
		[]any{decision.String()}, func(scan func(...any) error) error {
			s, err := scanSignature(scan)
			out = append(out, s)
			return err
		})
	return out, err
}

// scanSignature reads signer, signed_at, signature and chain.
func scanSignature(scan func(...any) error) (s vault.Signature, err error) {
	var at int64
	var chain string
	if err := scan(&s.Signer, &at, &s.Bytes, &chain); err != nil {
		return s, err
	}
	s.SignedAt = moment(at)
	if err := json.Unmarshal([]byte(chain), &s.Chain); err != nil {
		return s, vault.E(vault.DataLoss, vault.ReasonDataLoss, "a signature's row is damaged").Because(err)
	}
	return s, nil
}

// AddSignature adds a signature to a decision.
func (t *Tx) AddSignature(decision vault.ID, s vault.Signature) error {
	chain, err := json.Marshal(s.Chain)
	if err != nil {
		return err
	}
	return t.exec("INSERT INTO signatures (decision_id, signer, signed_at, signature, chain) VALUES ($1, $2, $3, $4, $5)",
		decision.String(), s.Signer, micros(s.SignedAt), s.Bytes, string(chain))
}

func (t *Tx) decision(where string, args ...any) (d vault.Proposal, err error) {
	var id string
	var expires int64
	found, err := t.get("SELECT id, kind, body, payload, expires, need, effective FROM decisions WHERE "+where, args,
		&id, &d.Kind, &d.Body, &d.Payload, &expires, &d.Need, &d.Effective)
	if err != nil {
		return d, err
	}
	if !found {
		return d, vault.E(vault.NotFound, vault.ReasonDecisionUnknown, "there is no such decision")
	}
	if d.ID, err = uuid.Parse(id); err != nil {
		return d, vault.E(vault.DataLoss, vault.ReasonDataLoss, "the decision's row is damaged").Because(err)
	}
	d.Expires = moment(expires)
	d.Signatures, err = t.signatures(d.ID)
	return d, err
}

// Decision gives a decision; NotFound if there is none.
func (t *Tx) Decision(id vault.ID) (vault.Proposal, error) {
	return t.decision("id = $1", id.String())
}

// OpenDecision gives a decision of the kind and body that still waits for signatures.
func (t *Tx) OpenDecision(k vault.DecisionKind, body string) (vault.Proposal, error) {
	return t.decision("kind = $1 AND body = $2 AND effective = 0 AND expires > $3 ORDER BY created_at LIMIT 1",
		string(k), body, micros(t.now))
}

// AddDecision adds a proposed decision.
func (t *Tx) AddDecision(d vault.Proposal) error {
	return t.exec("INSERT INTO decisions (id, kind, body, payload, expires, need, effective, created_at) VALUES ($1, $2, $3, $4, $5, $6, 0, $7)",
		d.ID.String(), string(d.Kind), d.Body, d.Payload, micros(d.Expires), d.Need, micros(t.now))
}

// SetEffective marks a decision as in force.
func (t *Tx) SetEffective(id vault.ID) error {
	return t.exec("UPDATE decisions SET effective = 1 WHERE id = $1", id.String())
}

// Purpose gives the newest version of a purpose, and the decision that sanctioned it.
func (t *Tx) Purpose(name string) (vault.Sanction, error) {
	return t.purpose(name, "ORDER BY version DESC LIMIT 1")
}

// PurposeVersion gives one version of a purpose, and the decision that sanctioned it.
func (t *Tx) PurposeVersion(name string, version int) (vault.Sanction, error) {
	return t.purpose(name, "AND version = $2", version)
}

func (t *Tx) purpose(name, which string, args ...any) (s vault.Sanction, err error) {
	var body, decision string
	var version int
	found, err := t.get("SELECT version, body, decision_id FROM purposes WHERE name = $1 "+which, append([]any{name}, args...), &version, &body, &decision)
	if err != nil {
		return s, err
	}
	if !found {
		return s, vault.E(vault.NotFound, vault.ReasonPurposeUnknown, "no purpose %q is sanctioned", name)
	}
	if err := json.Unmarshal([]byte(body), &s.Purpose); err != nil || s.Purpose.Name != name || s.Purpose.Version != version {
		return s, vault.E(vault.DataLoss, vault.ReasonDataLoss, "the purpose's row is damaged").Because(err)
	}
	full, err := t.decision("id = $1", decision)
	s.Decision, s.Signatures = full.Decision, full.Signatures
	return s, err
}

// Purposes gives the newest version of each purpose, by name.
func (t *Tx) Purposes() (out []vault.Purpose, err error) {
	err = t.each("SELECT body FROM purposes AS p WHERE version = (SELECT MAX(version) FROM purposes WHERE name = p.name) ORDER BY name", nil,
		func(scan func(...any) error) error {
			var body string
			var p vault.Purpose
			if err := scan(&body); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(body), &p); err != nil {
				return vault.E(vault.DataLoss, vault.ReasonDataLoss, "a purpose's row is damaged").Because(err)
			}
			out = append(out, p)
			return nil
		})
	return out, err
}

// AddPurpose adds a version of a purpose.
func (t *Tx) AddPurpose(p vault.Purpose, decision vault.ID) error {
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return t.exec("INSERT INTO purposes (name, version, body, decision_id) VALUES ($1, $2, $3, $4)",
		p.Name, p.Version, string(body), decision.String())
}

const contractorColumns = "name, title, suspended, epoch, conflict_group"

func (t *Tx) contractorList(rest string, args ...any) (out []vault.Contractor, err error) {
	err = t.each("SELECT "+contractorColumns+" FROM contractors "+rest, args, func(scan func(...any) error) error {
		var c vault.Contractor
		err := scan(&c.Name, &c.Title, &c.Suspended, &c.Epoch, &c.Group)
		out = append(out, c)
		return err
	})
	return out, err
}

// Contractor gives a contractor; NotFound if it was never admitted.
func (t *Tx) Contractor(name string) (vault.Contractor, error) {
	found, err := t.contractorList("WHERE name = $1", name)
	if err != nil {
		return vault.Contractor{}, err
	}
	if len(found) == 0 {
		return vault.Contractor{}, vault.E(vault.NotFound, vault.ReasonContractorUnknown, "contractor %q is not admitted", name)
	}
	return found[0], nil
}

// ContractorDecision gives the decision that admitted a contractor in its epoch.
func (t *Tx) ContractorDecision(name string) (vault.Decision, []vault.Signature, error) {
	var id string
	if _, err := t.get("SELECT decision_id FROM contractors WHERE name = $1", []any{name}, &id); err != nil {
		return vault.Decision{}, nil, err
	}
	d, err := t.decision("id = $1", id)
	return d.Decision, d.Signatures, err
}

// Contractors gives all contractors, by name.
func (t *Tx) Contractors() ([]vault.Contractor, error) { return t.contractorList("ORDER BY name") }

// ContractorsDue gives suspended contractors that Vault has still to disable.
func (t *Tx) ContractorsDue() ([]vault.Contractor, error) {
	return t.contractorList("WHERE suspended = 1 AND disabled_epoch < epoch ORDER BY name")
}

// PutContractor adds a contractor or replaces its facts.
func (t *Tx) PutContractor(c vault.Contractor, decision vault.ID) error {
	return t.exec(`INSERT INTO contractors (name, title, suspended, epoch, disabled_epoch, decision_id, conflict_group) VALUES ($1, $2, $3, $4, 0, $5, $6)
		ON CONFLICT (name) DO UPDATE SET title = $2, suspended = $3, epoch = $4, decision_id = $5, conflict_group = $6`,
		c.Name, c.Title, c.Suspended, c.Epoch, decision.String(), c.Normal().Group)
}

// SuspendContractor ends the contractor's epoch and all its grants, and says how many.
func (t *Tx) SuspendContractor(name string) (int64, error) {
	if err := t.exec("UPDATE contractors SET suspended = 1 WHERE name = $1", name); err != nil {
		return 0, err
	}
	return t.changed(`UPDATE grants SET state = 'revoked'
		WHERE contractor = $1 AND state IN ('pending', 'approved', 'active') AND ends > $2`, name, micros(t.now))
}

// Disabled says whether Vault has disabled the contractor's epoch.
func (t *Tx) Disabled(name string) (done bool, err error) {
	_, err = t.get("SELECT disabled_epoch >= epoch FROM contractors WHERE name = $1", []any{name}, &done)
	return done, err
}

// SetDisabled keeps that Vault has disabled an epoch.
func (t *Tx) SetDisabled(name string, epoch int) error {
	return t.exec("UPDATE contractors SET disabled_epoch = $1 WHERE name = $2", epoch, name)
}
