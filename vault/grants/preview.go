package grants

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// maxHeld is the most grants, and the most lines of what was opened, that a preview tells of.
const maxHeld = 1000

// View is a grant as somebody may see it.
type View struct {
	vault.Grant
	// Purpose is the version that the terms name, nil when the database has another one. A contractor
	// is not told which others it is for.
	Purpose *vault.Purpose
	Preview vault.Preview // for admins alone
	At      time.Time     // as of when
}

// Get gives a grant, and its purpose: to admins and auditors any, to a contractor its own. Admins
// are also told what they should know before they approve it.
func (s *Service) Get(ctx context.Context, c vault.Caller, id vault.ID) (v View, err error) {
	err = s.Ledger.View(ctx, func(tx Tx) (err error) {
		if err := tx.Standing(c); err != nil {
			return err
		}
		v.At = tx.Now()
		v.Grant, err = tx.Grant(id)
		if vault.KindOf(err) == vault.NotFound || (err == nil && c.Role == vault.RoleContractor && v.Contractor != c.Org) {
			return unknown(id)
		}
		if err != nil {
			return err
		}
		p, err := tx.PurposeVersion(v.Grant.Purpose.Name, v.Grant.Purpose.Version)
		if vault.KindOf(err) == vault.NotFound || (err == nil && p.Purpose.Digest() != v.Grant.Purpose.Digest) {
			return nil
		}
		if c.Role == vault.RoleContractor {
			p.Purpose.Contractors = []string{c.Org}
		}
		v.Purpose = &p.Purpose
		return err
	})
	if err == nil && c.Role == vault.RoleAdmin {
		err = s.Ledger.Scan(ctx, func(tx Tx) (err error) {
			v.Preview, err = s.preview(tx, v)
			return err
		})
	}
	return v, err
}

// preview gives what approvers should know of a grant.
func (s *Service) preview(tx Tx, v View) (out vault.Preview, err error) {
	g := v.Grant
	if v.Purpose != nil {
		if err := cover(tx, g, *v.Purpose, &out); err != nil {
			return out, err
		}
	}
	orgs, err := s.affiliates(tx, g.Contractor)
	if err != nil {
		return out, err
	}
	if out.Held, err = tx.LiveGrants(orgs); err != nil {
		return out, err
	}
	out.Held = slices.DeleteFunc(out.Held, func(h vault.Grant) bool { return h.Grant == g.Grant })
	if out.Opened, err = tx.Opened(orgs); err != nil {
		return out, err
	}
	out.Truncated = len(out.Held) > maxHeld || len(out.Opened) > maxHeld
	out.Held, out.Opened = out.Held[:min(len(out.Held), maxHeld)], out.Opened[:min(len(out.Opened), maxHeld)]
	out.Earlier, err = tx.EarlierGrant(g.Grantee, g.Purpose.Name, g.RequestedAt)
	switch {
	case err == nil:
		out.Changes = changes(out.Earlier, g)
	case vault.KindOf(err) != vault.NotFound:
		return out, err
	}
	out.Refusals, err = s.against(tx, g)
	return out, err
}

// against gives all that speaks against approving the grant now, whoever does; of one that is
// approved and lives, against activating it.
func (s *Service) against(tx Tx, g vault.Grant) (out []error, err error) {
	others := anyLive
	if g.Usable(tx.Now()) == nil {
		others = activated
	} else if err := undecided(g, tx.Now()); err != nil {
		return []error{err}, nil
	}
	p, out, err := s.unlawful(tx, g)
	if err != nil {
		return nil, err
	}
	if err := s.apart(tx, p, g, others); err != nil {
		if !decides(err) {
			return nil, err
		}
		out = append(out, err)
	}
	return out, nil
}

// cover counts what the grant would open, of this version of its purpose.
func cover(tx Tx, g vault.Grant, p vault.Purpose, out *vault.Preview) (err error) {
	scope := g.Effective(p)
	if g.State == vault.GrantPending && scope.Live {
		// It begins with the approval, so of what is there now it covers nothing.
		scope.From = p.Precision.Ceil(tx.Now())
	}
	if !scope.From.Before(scope.Until) {
		return nil
	}
	if out.Covered, out.Sites, err = tx.Covered(scope, p.Retention); err != nil || p.Linkage {
		return err
	}
	type bucket struct {
		vault.Bucket
		records int64
	}
	// Records of more buckets are not told apart: they count as neither waiting nor hidden.
	const most = 1 << 17
	found := map[vault.BucketKey]*bucket{}
	if err := tx.EachInScope(scope, func(r vault.Record) {
		b, ok := p.Bucket(r)
		if !ok || !p.Sees(r) {
			return
		}
		k := b.Key()
		if found[k] == nil {
			if len(found) == most {
				return
			}
			found[k] = &bucket{Bucket: b}
		}
		found[k].records++
	}); err != nil {
		return err
	}
	var listed map[vault.BucketKey]int64
	if scope.List != (vault.ID{}) {
		records, err := tx.RecordsOf(scope.Records)
		if err != nil {
			return err
		}
		listed = p.CrossingsOf(records)
	}
	for k, b := range found {
		n := listed[k]
		if listed == nil && !tx.Now().Before(b.Opens) {
			if n, err = tx.Crossings(b.Bucket, p.Retention, p.MinBucket); err != nil {
				return err
			}
		}
		switch vault.ReasonOf(p.Appears(b.Bucket, n, tx.Now())) {
		case vault.ReasonBucketOpen:
			out.Waiting += b.records
		case vault.ReasonBucketSmall:
			out.Hidden += b.records
		}
	}
	return nil
}

// changes gives the fields of the canonical terms in which a grant differs from an earlier one.
// Of the end there is the grant's life. What differs each time is left out.
func changes(earlier, g vault.Grant) (out []vault.Change) {
	before, after := facts(earlier), facts(g)
	for i, f := range after {
		if b := before[i]; b != f {
			out = append(out, vault.Change{Field: f[0], Before: b[1], After: f[1]})
		}
	}
	return out
}

// facts gives the fields of a grant's terms that are to be compared, in their order.
func facts(g vault.Grant) (out [][2]string) {
	for line := range strings.Lines(g.Terms.Text()) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "grant", "purpose_digest", "justification":
			continue
		case "ends":
			name, value = "ttl", g.Ends.Sub(g.RequestedAt).String()
		}
		out = append(out, [2]string{name, value})
	}
	return out
}
