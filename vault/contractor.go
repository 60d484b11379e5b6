package vault

import "fmt"

// Contractor is an organisation that may ask for grants.
type Contractor struct {
	Name  string // the <org> of its workloads' SPIFFE IDs
	Title string
	// Group is the conflict group: affiliates share one, and count as one organisation where a
	// purpose without linkage must keep faces and plates apart. It is the contractor's own name
	// where it has no affiliates.
	Group     string
	Suspended bool
	Epoch     int // 1 and up; a suspension ends an epoch, and grants of an ended epoch never revive
}

// Admission is a contractor, and the decision that admitted it in its epoch.
type Admission struct {
	Contractor Contractor
	Decision   Decision
	Signatures []Signature
}

// Normal gives c with its conflict group, its own when it names none.
func (c Contractor) Normal() Contractor {
	if c.Group == "" {
		c.Group = c.Name
	}
	return c
}

// Check says whether c is well-formed.
func (c Contractor) Check() error {
	if err := CheckName("contractor.name", c.Name); err != nil {
		return err
	}
	if c.Group != "" {
		if err := CheckName("contractor.conflict_group", c.Group); err != nil {
			return err
		}
	}
	return CheckText("contractor.title", c.Title, MaxTitle, false)
}

// Text is what admins sign to admit the contractor.
func (c Contractor) Text() string {
	c = c.Normal()
	return lines("contractor", c.Name, "title", c.Title, "conflict_group", c.Group, "epoch", fmt.Sprint(c.Epoch))
}
