package vault

// Work is what waits for admins, or for HashiCorp Vault.
type Work struct {
	// Open are decisions that wait for signatures, newest first.
	Open []Proposal
	// OpenCount is how many there are, also beyond those that Open names.
	OpenCount int64
	// Keys counts the records whose keys are revoking, restoring and destroying.
	Keys map[KeyState]int64
}
