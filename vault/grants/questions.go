package grants

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portcullis/portcullis/vault"
)

const (
	// questionEvery is how often the same answer to the same caller is written: who asks a
	// thousand times a second must neither fill the log nor occupy the database's writer.
	questionEvery = time.Minute
	// maxQuestions bounds what is remembered; beyond it, all is forgotten and written anew.
	maxQuestions = 10_000
)

// questions remembers which questions were written lately. Its zero value is good.
type questions struct {
	mu   sync.Mutex
	last map[question]time.Time
}

type question struct {
	caller  string
	reasons string // that were found, sorted
}

func asked(c vault.Caller, found []vault.Reason) question {
	names := make([]string, len(found))
	for i, r := range found {
		names[i] = string(r)
	}
	slices.Sort(names)
	return question{c.ID, strings.Join(names, " ")}
}

// due says whether a question is to be written now.
func (q *questions) due(k question, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if at, ok := q.last[k]; ok && now.Sub(at) < questionEvery {
		return false
	}
	if len(q.last) >= maxQuestions || q.last == nil {
		q.last = map[question]time.Time{}
	}
	q.last[k] = now
	return true
}

// forget is for a question that could not be written.
func (q *questions) forget(k question) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.last, k)
}
