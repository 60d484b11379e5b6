package release

import (
	"sync"

	"github.com/portcullis/portcullis/vault"
)

const (
	// defaultVerdicts is how many buckets the service remembers, twice, of some 150 bytes each.
	defaultVerdicts = 1 << 16
	// maxBuckets is how many buckets one listing tells apart while it puts records in order.
	// Those of further ones are looked at when their page is read.
	maxBuckets = 1 << 17
)

// bucketKey tells buckets apart. The digest is of the purpose's version, which says what counts.
type bucketKey struct {
	purpose vault.Digest
	list    vault.ID
	vault.BucketKey
}

// verdicts remembers of closed buckets whether they have crossings enough: nothing changes them
// any more but keys that are revoked, destroyed or restored. Its zero value is good.
type verdicts struct {
	most int // 0 for the default

	mu           sync.Mutex
	keys         int64 // the change of keys ([Tx].KeysChanged) that all of it is after
	newer, older map[bucketKey]bool
}

// of says whether what is remembered is of these keys. With newer ones all is forgotten.
func (v *verdicts) of(keys int64) bool {
	if keys > v.keys {
		v.keys, v.newer, v.older = keys, nil, nil
	}
	return keys == v.keys
}

func (v *verdicts) get(keys int64, k bucketKey) (enough, known bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.of(keys) {
		return false, false
	}
	if enough, known = v.newer[k]; known {
		return enough, known
	}
	if enough, known = v.older[k]; known {
		v.keep(k, enough)
	}
	return enough, known
}

func (v *verdicts) put(keys int64, k bucketKey, enough bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.of(keys) {
		v.keep(k, enough)
	}
}

func (v *verdicts) keep(k bucketKey, enough bool) {
	most := v.most
	if most == 0 {
		most = defaultVerdicts
	}
	if v.newer == nil || len(v.newer) >= most {
		v.newer, v.older = map[bucketKey]bool{}, v.newer
	}
	v.newer[k] = enough
}

// judge says which records of a grant are to be seen, within one transaction.
type judge struct {
	tx     Tx
	g      vault.Grant
	p      vault.Purpose
	scope  vault.Scope // as it came out of the approval
	digest vault.Digest
	past   *verdicts
	dated  bool
	keys   int64                     // once dated: the newest change of keys
	judged map[bucketKey]bool        // in this transaction
	listed map[vault.BucketKey]int64 // crossings of the grant's list; nil until they are counted
}

func (s *Service) judge(tx Tx, g vault.Grant, p vault.Purpose) *judge {
	j := &judge{tx: tx, g: g, p: p, scope: g.Effective(p), past: &s.verdicts, judged: map[bucketKey]bool{}}
	if !p.Linkage { // otherwise there are no buckets
		j.digest = p.Digest()
	}
	return j
}

// date looks, once, of which keys verdicts must be. It comes before any other look at a bucket.
func (j *judge) date() (err error) {
	if j.dated || j.p.Linkage {
		return nil
	}
	j.keys, err = j.tx.KeysChanged()
	j.dated = err == nil
	return err
}

// known gives what is known of a closed bucket.
func (j *judge) known(k bucketKey) (enough, known bool) {
	if enough, known = j.judged[k]; known {
		return enough, known
	}
	return j.past.get(j.keys, k)
}

// sees says whether the record's bucket appears; hidden is why not.
func (j *judge) sees(r vault.Record) (hidden, err error) {
	b, ok := j.p.Bucket(r)
	if !ok {
		return nil, nil
	}
	// Before anything is counted: what is counted of an open bucket may change.
	if hidden := j.open(b); hidden != nil {
		return hidden, nil
	}
	if err := j.date(); err != nil {
		return nil, err
	}
	enough, err := j.enough(j.key(b), b)
	if err != nil || enough {
		return nil, err
	}
	return j.p.Appears(b, 0, j.tx.Now()), nil
}

// open gives why a bucket does not appear yet, however many crossings it has.
func (j *judge) open(b vault.Bucket) error { return j.p.Appears(b, int64(j.p.MinBucket), j.tx.Now()) }

func (j *judge) key(b vault.Bucket) bucketKey {
	return bucketKey{j.digest, j.scope.List, b.Key()}
}

// enough says whether a closed bucket has crossings enough.
func (j *judge) enough(k bucketKey, b vault.Bucket) (bool, error) {
	if enough, known := j.known(k); known {
		return enough, nil
	}
	n, err := j.crossings(b)
	if err != nil {
		return false, err
	}
	enough := j.p.Appears(b, n, j.tx.Now()) == nil
	j.judged[k] = enough
	j.past.put(j.keys, k, enough)
	return enough, nil
}

// crossings counts those of a bucket in the whole store whose keys are active: what is left alone
// of a bucket must not be seen alone. For a list they are those that stand in it, for nobody sees
// the others.
func (j *judge) crossings(b vault.Bucket) (int64, error) {
	if j.scope.List == (vault.ID{}) {
		return j.tx.Crossings(b, j.p.Retention, j.p.MinBucket)
	}
	if j.listed == nil {
		records, err := j.tx.RecordsOf(j.scope.Records)
		if err != nil {
			return 0, err
		}
		j.listed = j.p.CrossingsOf(records)
	}
	return j.listed[b.Key()], nil
}

// each calls fn for each record of the scope that may appear, in any order, once anew is called
// to begin: it is called again when buckets had to be counted. It is for listings alone, whose
// pages are looked at once more; some records may be given that do not appear. looked is how
// many there were to look at.
func (j *judge) each(anew func(), fn func(vault.Record)) (looked int, err error) {
	if err := j.date(); err != nil {
		return 0, err
	}
	known := map[bucketKey]bool{} // false also when it is open
	for {
		anew()
		looked = 0
		due := map[bucketKey]vault.Bucket{}
		err := j.tx.EachInScope(j.scope, func(r vault.Record) {
			if looked++; !j.p.Sees(r) {
				return
			}
			b, ok := j.p.Bucket(r)
			if !ok {
				fn(r)
				return
			}
			k := j.key(b)
			seen, decided := known[k]
			if !decided && len(known)+len(due) < maxBuckets {
				if j.open(b) != nil {
					known[k], decided = false, true
				} else if seen, decided = j.known(k); decided {
					known[k] = seen
				} else {
					due[k] = b
					return
				}
			}
			if seen || !decided {
				fn(r)
			}
		})
		if err != nil || len(due) == 0 {
			return looked, err
		}
		for k, b := range due {
			if known[k], err = j.enough(k, b); err != nil {
				return looked, err
			}
		}
	}
}
