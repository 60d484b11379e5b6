package store

import (
	"time"

	"github.com/google/uuid"

	"github.com/portcullis/portcullis/vault"
)

// Admissions gives all contractors, by name, each with the decision that admitted it in its epoch;
// with an empty one if there is none.
func (t *Tx) Admissions() (out []vault.Admission, err error) {
	signed := map[string][]vault.Signature{}
	if err := t.each(`SELECT decision_id, signer, signed_at, signature, chain FROM signatures
		WHERE decision_id IN (SELECT decision_id FROM contractors) ORDER BY signed_at, signer`, nil, func(scan func(...any) error) error {
		var decision string
		s, err := scanSignature(func(rest ...any) error { return scan(append([]any{&decision}, rest...)...) })
		signed[decision] = append(signed[decision], s)
		return err
	}); err != nil {
		return nil, err
	}
	err = t.each(`SELECT c.name, c.title, c.suspended, c.epoch, c.conflict_group, COALESCE(d.id, ''), COALESCE(d.kind, ''), COALESCE(d.body, ''), COALESCE(d.expires, 0)
		FROM contractors AS c LEFT JOIN decisions AS d ON d.id = c.decision_id ORDER BY c.name`, nil, func(scan func(...any) error) error {
		var a vault.Admission
		var decision string
		var expires int64
		c, d := &a.Contractor, &a.Decision
		if err := scan(&c.Name, &c.Title, &c.Suspended, &c.Epoch, &c.Group, &decision, &d.Kind, &d.Body, &expires); err != nil {
			return err
		}
		if id, err := uuid.Parse(decision); err == nil { // no other was signed
			d.ID, d.Expires, a.Signatures = id, moment(expires), signed[decision]
		}
		out = append(out, a)
		return nil
	})
	return out, err
}

// LiveGrants gives the approved and active grants of contractors, whose end has not passed, the
// newest first.
func (t *Tx) LiveGrants(contractors []string) ([]vault.Grant, error) {
	args := []any{micros(t.now)}
	for _, c := range contractors {
		args = append(args, c)
	}
	return t.grantList("WHERE state IN ('approved', 'active') AND ends > $1 AND contractor IN ("+marks(2, len(contractors))+
		") ORDER BY requested_at DESC, id DESC", args...)
}

// EarlierGrant gives the latest grant of a grantee and purpose that was approved and asked for
// before a time; NotFound if there is none.
func (t *Tx) EarlierGrant(grantee, purpose string, before time.Time) (vault.Grant, error) {
	return t.oneGrant(`grantee = $1 AND purpose = $2 AND requested_at < $3 AND fence <> 'none' ORDER BY requested_at DESC, id DESC LIMIT 1`,
		grantee, purpose, micros(before))
}

// OpenedWithin gives what contractors have opened of a scope's sites and days, last at or after a
// time.
func (t *Tx) OpenedWithin(contractors []string, s vault.Scope, since time.Time) (out []vault.Claim, err error) {
	args := []any{s.From.UnixMicro() / dayMicros, (s.Until.UnixMicro() - 1) / dayMicros, micros(since)}
	for _, c := range contractors {
		args = append(args, c)
	}
	n := len(args)
	for _, site := range s.Sites {
		args = append(args, site)
	}
	err = t.each("SELECT contractor, site, modality, day, purpose, linkage FROM opened WHERE day >= $1 AND day <= $2 AND last_at >= $3 AND contractor IN ("+
		marks(4, len(contractors))+") AND site IN ("+marks(n+1, len(s.Sites))+")", args, func(scan func(...any) error) error {
		c := vault.Claim{Sites: make([]string, 1), Modalities: make([]vault.Modality, 1)}
		var day int64
		err := scan(&c.Contractor, &c.Sites[0], &c.Modalities[0], &day, &c.Purpose, &c.Linkage)
		c.From = moment(day * dayMicros)
		c.Until = c.From.Add(24 * time.Hour)
		out = append(out, c)
		return err
	})
	return out, err
}

// Opened sums up what contractors have opened so far.
func (t *Tx) Opened(contractors []string) (out []vault.Opened, err error) {
	args := make([]any, len(contractors))
	for i, c := range contractors {
		args[i] = c
	}
	err = t.each("SELECT contractor, purpose, site, modality, COUNT(DISTINCT day), MIN(day), MAX(day) FROM opened WHERE contractor IN ("+marks(1, len(args))+
		") GROUP BY contractor, purpose, site, modality ORDER BY contractor, purpose, site, modality", args, func(scan func(...any) error) error {
		var o vault.Opened
		var first, last int64
		err := scan(&o.Contractor, &o.Purpose, &o.Site, &o.Modality, &o.Days, &first, &last)
		o.First, o.Last = moment(first*dayMicros), moment(last*dayMicros)
		out = append(out, o)
		return err
	})
	return out, err
}

// opened keeps that a grant's contractor has opened an image of the record's site and day.
func (t *Tx) opened(g vault.Grant, p vault.Purpose, r vault.Record) error {
	return t.exec(`INSERT INTO opened (contractor, site, modality, day, purpose, linkage, last_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (contractor, site, day, modality, purpose, linkage) DO UPDATE SET last_at = $7`,
		g.Contractor, r.Site, string(r.Modality), r.CapturedAt.UnixMicro()/dayMicros, p.Name, p.Linkage, micros(t.now))
}
