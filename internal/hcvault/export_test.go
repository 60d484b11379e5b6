package hcvault

import "time"

// SetClock turns the server's time, before its first call.
func (s *Server) SetClock(now func() time.Time) { s.now = now }
