package vault

import (
	"slices"
	"time"
)

// Precision is how exactly a grantee learns when records were captured.
type Precision string

// The precisions, from the finest.
const (
	PrecisionExact Precision = "exact" // to the microsecond
	PrecisionHour  Precision = "hour"
	PrecisionDay   Precision = "day" // in UTC
	PrecisionNone  Precision = "none"
)

// Precisions are all precisions, from the finest.
var Precisions = []Precision{PrecisionExact, PrecisionHour, PrecisionDay, PrecisionNone}

// Check says whether p is one of the precisions.
func (p Precision) Check(field string) error {
	if !slices.Contains(Precisions, p) {
		return InvalidField(field, "must be exact, hour, day or none")
	}
	return nil
}

// finer says whether p tells more than q. What is no precision tells most.
func (p Precision) finer(q Precision) bool {
	return slices.Index(Precisions, p) < slices.Index(Precisions, q)
}

// step is what windows are cut to. Without times a window has days for bounds: otherwise two
// windows that differ by a minute would tell the minute.
func (p Precision) step() time.Duration {
	switch p {
	case PrecisionExact:
		return time.Microsecond
	case PrecisionHour:
		return time.Hour
	default:
		return 24 * time.Hour
	}
}

// Floor cuts t to the step of p: to its hour, or its day in UTC.
func (p Precision) Floor(t time.Time) time.Time { return t.UTC().Truncate(p.step()) }

// Ceil is the first bound of p's steps that is not before t.
func (p Precision) Ceil(t time.Time) time.Time {
	if f := p.Floor(t); !f.Equal(t) {
		return f.Add(p.step())
	}
	return t.UTC()
}

// Cut gives what a grantee is told of a time of capture; the zero time when that is nothing.
func (p Precision) Cut(t time.Time) time.Time {
	if p == PrecisionNone {
		return time.Time{}
	}
	return p.Floor(t)
}

const (
	// BucketLate is how long after a bucket's end its records may come in and still appear with
	// the others: lanes send within seconds.
	BucketLate = 5 * time.Minute
	// BucketSettle is how long a bucket that takes no more records waits until it appears: what is
	// being committed then is in it. A transaction takes a few seconds at most.
	BucketSettle = time.Minute
)

// Bucket is the records that appear to grantees together, so that nobody can tell them apart by
// time: those of one site, modality and time bucket that came in on time, or late in the same
// wave. It never changes once it has appeared.
type Bucket struct {
	Site         string
	Modality     Modality
	From, Until  time.Time // captured at or after From and before Until
	After, Below time.Time // stored at or after After and before Below; After is zero for what came on time
	Opens        time.Time // when it appears
}

// Bucket gives the bucket of a record: of its hour or day in UTC, a day also where no times are
// told. No scope parts one, so that two windows never differ by a few records. There is none with
// linkage, where each record appears as it comes.
func (p Purpose) Bucket(r Record) (b Bucket, ok bool) {
	if p.Linkage {
		return b, false
	}
	step := p.Precision.step()
	b = Bucket{Site: r.Site, Modality: r.Modality, From: p.Precision.Floor(r.CapturedAt)}
	b.Until = b.From.Add(step)
	b.Below = b.Until.Add(BucketLate)
	if late := r.StoredAt.Sub(b.Below); late >= 0 {
		b.After = b.Below.Add(late.Truncate(step))
		b.Below = b.After.Add(step)
	}
	b.Opens = b.Below.Add(BucketSettle)
	return b, true
}

// BucketKey tells the buckets of one purpose apart. It may be compared.
type BucketKey struct {
	Site        string
	Modality    Modality
	From, Below int64 // microseconds since 1970
}

// Key gives what tells the bucket from the purpose's others.
func (b Bucket) Key() BucketKey {
	return BucketKey{b.Site, b.Modality, b.From.UnixMicro(), b.Below.UnixMicro()}
}

// CrossingsOf counts, by bucket, the crossings of those of the records that the purpose sees and
// whose keys are active: of a list, nobody sees others that they could be taken for. A record
// without a crossing is one of its own. A bucket none of whose keys is active counts 0.
func (p Purpose) CrossingsOf(records []Record) map[BucketKey]int64 {
	type met struct {
		bucket   BucketKey
		crossing ID
	}
	counted, seen := map[BucketKey]int64{}, map[met]bool{}
	for _, r := range records {
		b, ok := p.Bucket(r)
		if !ok || !p.Sees(r) {
			continue
		}
		m := met{b.Key(), r.CrossingID}
		if r.CrossingID == (ID{}) {
			m.crossing = r.ID
		}
		if r.Key != KeyActive || seen[m] {
			counted[m.bucket] += 0
			continue
		}
		seen[m] = true
		counted[m.bucket]++
	}
	return counted
}

// Appears says whether a bucket of so many crossings is to be seen; the error has the reason.
func (p Purpose) Appears(b Bucket, crossings int64, now time.Time) error {
	if now.Before(b.Opens) {
		return E(State, ReasonBucketOpen, "records of site %s and this time appear at %s", b.Site, FormatTime(b.Opens))
	}
	if crossings < int64(p.MinBucket) {
		return E(Denied, ReasonBucketSmall, "fewer than %d crossings share the site and time of this record", p.MinBucket)
	}
	return nil
}
