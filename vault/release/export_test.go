package release

// Keep makes the service keep less of listings than it does by default.
func (s *Service) Keep(window, listings int) { s.listings.window, s.listings.most = window, listings }
