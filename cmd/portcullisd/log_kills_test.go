package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/portcullis/portcullis/internal/tlog"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault/client"
)

// watch is an auditor who asks for the newest checkpoint all the time, and keeps each.
type watch struct {
	cfg  client.Config
	dir  string // of an export that is brought up to date between kills
	stop context.CancelFunc
	done sync.WaitGroup

	kept      []tlog.Kept
	exports   int // that succeeded
	rewritten []error
}

func (k *killable) watch() *watch {
	ctx, stop := context.WithCancel(k.t.Context())
	cfg := k.service.config(auditor)
	cfg.Patience, cfg.LogKey, cfg.LogMemory = -1, k.logKey(), filepath.Join(k.t.TempDir(), "seen")
	w := &watch{cfg: cfg, dir: k.t.TempDir(), stop: stop}
	w.done.Go(func() {
		var last []byte
		for ctx.Err() == nil {
			last = w.look(ctx, k, last)
			time.Sleep(10 * time.Millisecond)
		}
	})
	return w
}

// look asks through one connection until it breaks.
func (w *watch) look(ctx context.Context, k *killable, last []byte) []byte {
	c, err := client.Dial(w.cfg)
	if err != nil {
		w.rewritten = append(w.rewritten, err)
		return last
	}
	defer c.Close()
	for n := 0; ctx.Err() == nil; n++ {
		// The bare call, too: what is kept must not depend on what the SDK makes of it.
		got, err := c.Audit.GetCheckpoint(ctx, &pb.GetCheckpointRequest{})
		if err != nil {
			return last
		}
		if !bytes.Equal(got.Checkpoint, last) {
			last = got.Checkpoint
			w.kept = append(w.kept, tlog.Kept{Checkpoint: k.opened(last), Where: "memory"})
		}
		if n%4 == 0 {
			_, err = c.Checkpoint(ctx)
		}
		if n%16 == 1 {
			if _, err = c.ExportLog(ctx, w.dir, silent); err == nil {
				w.exports++
			}
		}
		if errors.Is(err, client.ErrLogRewritten) || errors.Is(err, tlog.ErrDamaged) {
			w.rewritten = append(w.rewritten, err)
		}
		if err != nil {
			return last
		}
		time.Sleep(20 * time.Millisecond)
	}
	return last
}

func (w *watch) end() {
	w.stop()
	w.done.Wait()
}

// verifyLog shows that the log is sound after the kills, and begins with every checkpoint that
// was seen or shipped.
func (k *killable) verifyLog(n int, w *watch) {
	t := k.t
	t.Helper()
	for _, err := range w.rewritten {
		t.Errorf("while the daemon was killed: %v", err)
	}
	for i := 1; i < len(w.kept); i++ {
		if w.kept[i].Size <= w.kept[i-1].Size {
			t.Errorf("a checkpoint of %d entries came after one of %d", w.kept[i].Size, w.kept[i-1].Size)
		}
	}
	log, err := logger(k.logs, "warn")
	noError(t, err)
	k.daemon, err = start(t.Context(), k.cfg, log)
	noError(t, err)
	defer func() { noError(t, k.daemon.Close()) }()
	size := k.grown()
	shipped := k.shipped()
	fresh := t.TempDir()
	check := outsideTool(t)
	w.cfg.Address = k.Addr()
	c := k.dial(w.cfg) // which remembers
	for what, dir := range map[string]string{"brought up to date between kills": w.dir, "fresh": fresh} {
		at, err := c.ExportLog(t.Context(), dir, silent)
		if err != nil || at.Size < size {
			t.Errorf("%s: an export of %d entries of %d: %v", what, at.Size, size, err)
		}
		k.sound(dir, append(append([]tlog.Kept{}, w.kept...), shipped...))
		noError(t, check(dir, k.logKey()))
	}
	if found := k.treeFindings(k.cfg); len(found) > 0 {
		t.Errorf("fsck finds %q", found)
	}
	if len(w.kept) < n/2 || w.exports == 0 || len(shipped) < n/4 {
		t.Errorf("%d checkpoints seen, %d shipped, %d exports: nobody watched", len(w.kept), len(shipped), w.exports)
	}
	fmt.Printf("log: after %d kills an export of %d entries is sound for tessera/fsck, too, and begins with all of %d checkpoints seen and %d shipped; %d exports between\n",
		n, size, len(w.kept), len(shipped), w.exports)
}
