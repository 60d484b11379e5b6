package grants

import "github.com/portcullis/portcullis/vault"

// anyLive and activated say which grants count as held.
func anyLive(vault.Grant) bool { return true }

// activated is for activations: an approved grant opens nothing until it is activated, which asks
// this question, so of two that conflict the first wins.
func activated(g vault.Grant) bool { return g.State == vault.GrantActive }

// apart holds a grant of a purpose to the conflict rule. It must run in the transaction that
// changes what is held: transactions that write run one after the other, so of two that conflict
// one sees the other. p is the version that the terms name, proved.
func (s *Service) apart(tx Tx, p vault.Purpose, g vault.Grant, holds func(vault.Grant) bool) error {
	orgs, err := s.affiliates(tx, g.Contractor)
	if err != nil {
		return err
	}
	live, err := tx.LiveGrants(orgs)
	if err != nil {
		return err
	}
	var held []vault.Claim
	known := map[vault.PurposeRef]bool{} // whether a version has linkage
	for _, h := range live {
		if h.Grant == g.Grant || !holds(h) {
			continue
		}
		linked, done := known[h.Purpose]
		if !done {
			if linked, err = s.links(tx, h.Purpose); err != nil {
				return err
			}
			known[h.Purpose] = linked
		}
		held = append(held, vault.Purpose{Name: h.Purpose.Name, Linkage: linked}.Claims(h.Contractor, h.Terms))
	}
	since := tx.Now().Add(-s.ConflictMemory)
	if s.ConflictMemory == 0 {
		since = since.AddDate(-1000, 0, 0) // for ever
	}
	opened, err := tx.OpenedWithin(orgs, g.Scope, since)
	if err != nil {
		return err
	}
	return vault.ConflictRule(p.Claims(g.Contractor, g.Terms), append(held, opened...))
}

// affiliates gives the contractors of a contractor's conflict group, itself among them. A group
// counts as admins signed it: a contractor whose admission is not proved is everybody's affiliate, so
// that nobody who writes to the database leaves a group for a moment.
func (s *Service) affiliates(tx Tx, contractor string) (out []string, err error) {
	all, err := tx.Admissions()
	if err != nil {
		return nil, err
	}
	authority := s.Authority()
	group := ""
	groups := make([]string, len(all)) // as proved, or empty
	for i, a := range all {
		if s.proved.Admitted(authority, a.Contractor, a.Decision, a.Signatures) == nil {
			groups[i] = a.Contractor.Normal().Group
		}
		if a.Contractor.Name == contractor {
			group = groups[i]
		}
	}
	out = []string{contractor}
	for i, a := range all {
		if a.Contractor.Name != contractor && (group == "" || groups[i] == "" || groups[i] == group) {
			out = append(out, a.Contractor.Name)
		}
	}
	return out, nil
}

// links says whether a version of a purpose has linkage. One that can not be proved has none, so
// that nobody who writes to the database brings faces and plates together by it.
func (s *Service) links(tx Tx, of vault.PurposeRef) (bool, error) {
	v, err := tx.PurposeVersion(of.Name, of.Version)
	if err == nil {
		err = s.sanctioned(tx, v)
	}
	switch {
	case err == nil:
		return v.Purpose.Linkage && v.Purpose.Digest() == of.Digest, nil
	case decides(err), vault.KindOf(err) == vault.DataLoss:
		return false, nil
	}
	return false, err
}
