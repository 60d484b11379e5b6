// Tlogfsck checks an export of the log with a program that knows nothing of Portcullis: the
// package fsck of Tessera. It exits with 0 when the export is sound, with 1 when it is not.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
)

const (
	// workers must be many: with few of them the package can wait for itself on a damaged log.
	workers = 64
	// patience ends the program should it wait for itself all the same.
	patience = 2 * time.Minute
)

func main() {
	dir := flag.String("dir", "", "the export")
	key := flag.String("key", "", "the log's key, as <origin>+<hash>+<key>")
	flag.Parse()
	if *dir == "" || *key == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	time.AfterFunc(patience, func() {
		fmt.Fprintln(os.Stderr, "tlogfsck: no end after", patience)
		os.Exit(1)
	})
	if err := check(*dir, *key); err != nil {
		fmt.Fprintf(os.Stderr, "tlogfsck: %.300s\n", err) // it holds whole tiles in hexadecimal
		os.Exit(1)
	}
}

func check(dir, key string) error {
	v, err := note.NewVerifier(key)
	if err != nil {
		return err
	}
	return fsck.New(v.Name(), v, &client.FileFetcher{Root: dir}, leafHashes, fsck.Opts{N: workers}).Check(context.Background())
}

// leafHashes gives the hashes of a bundle's entries.
func leafHashes(bundle []byte) (out [][]byte, err error) {
	var b api.EntryBundle
	if err := b.UnmarshalText(bundle); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	for _, e := range b.Entries {
		out = append(out, rfc6962.DefaultHasher.HashLeaf(e))
	}
	return out, nil
}
