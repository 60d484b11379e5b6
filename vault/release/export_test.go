package release

import "github.com/portcullis/portcullis/vault"

// Keep makes the service keep less of listings than it does by default.
func (s *Service) Keep(window, listings int) { s.listings.window, s.listings.most = window, listings }

// Remember makes the service remember fewer buckets than it does by default.
func (s *Service) Remember(buckets int) { s.verdicts.most = buckets }

// Remembered is how many buckets the service remembers.
func (s *Service) Remembered() int { return len(s.verdicts.newer) + len(s.verdicts.older) }

// Sees says whether a record of a grant appears; hidden is why not.
func (s *Service) Sees(tx Tx, g vault.Grant, p vault.Purpose, r vault.Record) (hidden, err error) {
	return s.judge(tx, g, p).sees(r)
}
