package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// writerEnv turns the test's program into a writer to the database that it names.
const writerEnv = "PORTCULLIS_STORE_TEST_WRITER"

// writeUntilKilled stores records and prints each one's ID and index once it is acknowledged.
func writeUntilKilled(path string) {
	s, err := Open(context.Background(), path, time.Now)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var mu sync.Mutex
	for range 16 {
		go func() {
			for {
				r := someRecord()
				last, err := s.Update(context.Background(), storeRecord(r))
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Printf("%s %d.\n", r.ID, last)
				mu.Unlock()
			}
		}()
	}
	select {}
}

// Whatever was acknowledged is there after a kill, at its index; and no record is without its
// event, nor an event without its record.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.db")
	acked := map[string]int64{}
	for round := range 20 {
		before := len(acked)
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), writerEnv+"="+path)
		var complaints strings.Builder
		cmd.Stderr = &complaints
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		// The first rounds are killed at any moment, also while the schema is made; the
		// others some time after the first answer.
		kill := func() {
			if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Error(err)
			}
		}
		var timer *time.Timer
		if round < 5 {
			timer = time.AfterFunc(time.Duration(rand.IntN(120))*time.Millisecond, kill)
		}
		for lines.Scan() {
			if timer == nil {
				timer = time.AfterFunc(time.Duration(rand.IntN(60_000))*time.Microsecond, kill)
			}
			var id string
			var last int64
			if line, whole := strings.CutSuffix(lines.Text(), "."); whole {
				if _, err := fmt.Sscan(line, &id, &last); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				acked[id] = last
			}
		}
		err = cmd.Wait()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the writer ended by itself: %v\n%s", err, complaints.String())
		}
		timer.Stop()

		s := openFile(t, path, newClock())
		indexes := checkLog(t, s)
		for id, last := range acked {
			if index, ok := indexes[id]; !ok || index != last {
				t.Errorf("round %d: acknowledged record %s is at %d (%t), its caller heard %d", round, id, index, ok, last)
			}
		}
		if n := count(t, s, "SELECT next FROM log_counter"); n != int64(len(indexes)) {
			t.Errorf("the counter is at %d, the log has %d", n, len(indexes))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if round >= 5 && len(acked) == before {
			t.Errorf("round %d: nothing was acknowledged", round)
		}
	}
	t.Logf("%d records acknowledged", len(acked))
}
