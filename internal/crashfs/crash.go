package crashfs

import (
	"bytes"
	"maps"
	"math/rand/v2"
)

// Replay walks along a trace and knows, at each point, what is durable and what is not.
type Replay struct {
	trace *Trace
	rng   *rand.Rand
	at    int
	nodes []*node
}

// node is a file or a directory: what is durable of it, and what was done since.
type node struct {
	data    []byte
	names   map[string]int // of a directory
	pending []change
}

// change is one that is not durable yet.
type change struct {
	op
	gone bool  // of a directory: the name goes
	with *bool // of a rename's two halves: whether the new name is durable, or is so in this crash
}

// Replay begins at the start of the trace, which may still grow. Whatever is left to chance is
// drawn from rng. A replay is for one goroutine.
func (t *Trace) Replay(rng *rand.Rand) *Replay { return &Replay{trace: t, rng: rng} }

// Advance goes on to the point before change n.
func (r *Replay) Advance(n int) {
	r.trace.mu.Lock()
	defer r.trace.mu.Unlock()
	for _, names := range r.trace.names[len(r.nodes):] {
		fresh := &node{}
		if names != nil {
			fresh.names = map[string]int{}
		}
		r.nodes = append(r.nodes, fresh)
	}
	for ; r.at < n; r.at++ {
		o := r.trace.ops[r.at]
		switch o.kind {
		case makes:
			r.pend(o.dir, change{op: o})
		case writes, truncates:
			r.pend(o.node, change{op: o})
		case removes:
			r.pend(o.dir, change{op: o, gone: true})
		case renames:
			there := new(bool)
			r.pend(o.to, change{op: op{node: o.node, name: o.as}, with: there})
			r.pend(o.dir, change{op: o, gone: true, with: there})
		case syncs:
			r.nodes[o.node].settle(func(change) bool { return true })
		case loses:
			r.nodes[o.node].lose(r.rng)
		}
	}
}

func (r *Replay) pend(n int, c change) { r.nodes[n].pending = append(r.nodes[n].pending, c) }

// settle makes those changes durable that keep names, and forgets the others.
func (n *node) settle(keep func(change) bool) {
	for _, c := range n.pending {
		if !keep(c) {
			continue
		}
		switch {
		case n.names == nil:
			n.data = applied(n.data, c.op)
		case c.gone:
			delete(n.names, c.name)
		default:
			n.names[c.name] = c.node
			if c.with != nil {
				*c.with = true
			}
		}
	}
	n.pending = nil
}

// lose makes any part of the changes durable, and forgets the rest.
func (n *node) lose(rng *rand.Rand) {
	for _, c := range n.pending {
		n.data = torn(n.data, c.op, rng)
	}
	n.pending = nil
}

// applied gives a file's content after a write or a truncation.
func applied(data []byte, o op) []byte {
	size := o.at
	if o.kind == writes {
		size = max(int64(len(data)), o.at+int64(len(o.data)))
	}
	if grow := size - int64(len(data)); grow > 0 {
		data = append(data, make([]byte, grow)...)
	}
	copy(data[min(o.at, size):], o.data)
	return data[:size]
}

// torn applies any choice of the sectors of a write, and a truncation or not.
func torn(data []byte, o op, rng *rand.Rand) []byte {
	if o.kind == truncates {
		if rng.IntN(2) == 0 {
			return applied(data, o)
		}
		return data
	}
	for end := int64(len(o.data)); end > 0; {
		// From the last sector on, so that a file can grow with a hole in it.
		start := max(0, (o.at+end-1)/Sector*Sector-o.at)
		if rng.IntN(2) == 0 {
			data = applied(data, op{kind: writes, at: o.at + start, data: o.data[start:end]})
		}
		end = start
	}
	return data
}

// Fate is what becomes of what was not synced.
type Fate int

// The fates.
const (
	Dropped Fate = iota // nothing of it is there
	Kept                // all of it is there, as after a kill of the process alone
	Older               // of each file and directory, what was done up to some moment
	Some                // any choice of writes and names
	Torn                // any choice of sectors and names
	fates
)

func (f Fate) String() string { return [...]string{"dropped", "kept", "older", "some", "torn"}[f] }

// AnyFate draws one.
func AnyFate(rng *rand.Rand) Fate { return Fate(rng.IntN(int(fates))) }

// Crash gives a disk as it could be found if the power failed now.
func (r *Replay) Crash(fate Fate) *Tree {
	after := make([]*node, len(r.nodes))
	for i, n := range r.nodes {
		if n.names == nil {
			after[i] = &node{data: n.left(fate, r.rng)}
		}
	}
	// Names that come are settled before names that go: the two halves of a rename stand in
	// two directories, and the old name goes only if the new one is there. Both may be there.
	come := map[*bool]bool{}
	choices := make([][]bool, len(r.nodes))
	for i, n := range r.nodes {
		if n.names == nil {
			continue
		}
		choices[i] = chosen(len(n.pending), fate, r.rng)
		for k, c := range n.pending {
			if c.with != nil && !c.gone && choices[i][k] {
				come[c.with] = true
			}
		}
	}
	for i, n := range r.nodes {
		if n.names == nil {
			continue
		}
		names := maps.Clone(n.names)
		for k, c := range n.pending {
			switch {
			case !choices[i][k], c.gone && c.with != nil && !*c.with && !come[c.with]:
			case c.gone:
				delete(names, c.name)
			default:
				names[c.name] = c.node
			}
		}
		after[i] = &node{names: names}
	}
	tree := NewTree()
	tree.fill("/", root, after)
	return tree
}

// left gives a file's content after a crash.
func (n *node) left(fate Fate, rng *rand.Rand) []byte {
	data := bytes.Clone(n.data)
	keep := chosen(len(n.pending), fate, rng)
	for i, c := range n.pending {
		switch {
		case fate == Torn:
			data = torn(data, c.op, rng)
		case keep[i]:
			data = applied(data, c.op)
		case fate == Older: // the write under way when the power failed
			return torn(data, c.op, rng)
		}
	}
	return data
}

// chosen says which of n changes are kept.
func chosen(n int, fate Fate, rng *rand.Rand) []bool {
	keep := make([]bool, n)
	older := rng.IntN(n + 1)
	for i := range keep {
		switch fate {
		case Dropped:
		case Kept:
			keep[i] = true
		case Older:
			keep[i] = i < older
		default:
			keep[i] = rng.IntN(2) == 0
		}
	}
	return keep
}
