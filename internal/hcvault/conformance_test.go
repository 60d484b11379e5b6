package hcvault_test

import (
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault/vaulttest"
)

// TestConformance holds the real Vault to what the fake does, and so the fake to the real one.
func TestConformance(t *testing.T) {
	vaulttest.TestHCVault(t, func(t *testing.T) vaulttest.HCVaultUnderTest {
		h := newHouse(t)
		return vaulttest.HCVaultUnderTest{
			Capture: h.capture, Release: h.release, Grants: h.grants, Admin: h.admin,
			Wait: time.Sleep,
			Down: func(t *testing.T, down bool) {
				t.Helper()
				if down {
					h.must(dev.Seal(t.Context()))
				} else {
					h.must(dev.Unseal(t.Context()))
				}
			},
		}
	})
}
