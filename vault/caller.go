package vault

import (
	"strings"
)

// Role is the kind of a caller, given by the path of its SPIFFE ID.
type Role string

// The roles.
const (
	RoleCapture    Role = "capture"    // spiffe://<td>/capture/<site>/<lane>
	RoleContractor Role = "contractor" // spiffe://<td>/contractor/<org>/<workload>
	RoleAdmin      Role = "admin"      // spiffe://<td>/admin/<name>
	RoleAuditor    Role = "auditor"    // spiffe://<td>/auditor/<name>
)

// Caller is who calls, as proved by its certificate on its connection.
type Caller struct {
	ID   string // SPIFFE ID, whole
	Role Role

	Site, Lane    string // capture
	Org, Workload string // contractor
	Name          string // admin, auditor

	Conn uint64 // the connection it calls on, unique in this process; 0 outside a connection
	Cert Digest // SHA-256 of its certificate (DER)
	Addr string // its address, host:port
}

// ParseCaller reads a SPIFFE ID of the given trust domain into a caller. The ID's own
// form (scheme, trust domain characters) is the caller's to have checked.
func ParseCaller(trustDomain, id string) (Caller, error) {
	refuse := func(why string) (Caller, error) {
		return Caller{}, E(Denied, ReasonRoleNotAllowed, "identity %q is not one that Portcullis knows: %s", id, why)
	}
	path, ok := strings.CutPrefix(id, "spiffe://"+trustDomain+"/")
	if !ok {
		return refuse("it is not of the trust domain " + trustDomain)
	}
	parts := strings.Split(path, "/")
	for _, p := range parts[1:] {
		if CheckName("id", p) != nil {
			return refuse("its parts must be lower-case letters, digits and single hyphens, at most 32 bytes each")
		}
	}
	c := Caller{ID: id, Role: Role(parts[0])}
	want := 2
	switch c.Role {
	case RoleCapture, RoleContractor:
		want = 3
	case RoleAdmin, RoleAuditor:
	default:
		return refuse("its path must begin with capture, contractor, admin or auditor")
	}
	if len(parts) != want {
		return refuse("its path has the wrong number of parts")
	}
	switch c.Role {
	case RoleCapture:
		c.Site, c.Lane = parts[1], parts[2]
	case RoleContractor:
		c.Org, c.Workload = parts[1], parts[2]
	default:
		c.Name = parts[1]
	}
	return c, nil
}
