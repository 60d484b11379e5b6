// Package vault is the domain of Portcullis: its words and its pure rules. It is
// not HashiCorp Vault; that program is reached through internal/hcvault.
//
// A [Record] is one stored image and its facts. A [Purpose] is a use that admins
// sanctioned, and a [Contractor] an organisation that may ask for grants. A
// [Grant] lets one contractor workload open the records of a [Scope], for a
// purpose, until a time, up to a quota; its [Terms] are what approvers sign, as
// the body of a [Decision]. A [Handle] names a record inside one grant, a
// [Release] is one image leaving in the clear, and an [Event] is one entry of the
// audit log.
//
// Nothing here does I/O or reads a clock: times are arguments. The operations on
// these words stand in the packages below this one (capture, grants, release,
// breach), each over the small interfaces that it needs.
package vault
