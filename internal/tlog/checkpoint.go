package tlog

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// MaxCheckpoint is the longest checkpoint that is read, in bytes. Ours have about 200; those
// with signatures of witnesses have more.
const MaxCheckpoint = 16 << 10

// maxSize is the most entries of a log: far more than any, and few enough for the arithmetic of
// trees.
const maxSize = 1 << 48

// Checkpoint says what the log was at one time: whoever keeps one can tell later whether the
// log still begins with the same entries.
type Checkpoint struct {
	Origin string // names the log; also the name of its key
	Size   int64  // entries
	Root   Hash
}

// Text is what is signed: three lines, as C2SP tlog-checkpoint has them.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// Sign gives the signed checkpoint. The signer's name is the origin.
func (c Checkpoint) Sign(s note.Signer) ([]byte, error) {
	if s.Name() != c.Origin {
		return nil, fmt.Errorf("sign the checkpoint: the key is of %s, the log is %s", s.Name(), c.Origin)
	}
	signed, err := note.Sign(&note.Note{Text: c.Text()}, s)
	if err != nil {
		return nil, fmt.Errorf("sign the checkpoint: %w", err)
	}
	return signed, nil
}

// errSignature says that a checkpoint is not signed by the log's key.
var errSignature = errors.New("the checkpoint is not signed by the log's key")

// Open checks the signature of a checkpoint and reads it. Signatures by other keys, such as
// witnesses', are passed over. Lines behind the third, which C2SP allows, are too.
func Open(signed []byte, key note.Verifier) (Checkpoint, error) {
	if len(signed) > MaxCheckpoint {
		return Checkpoint{}, fmt.Errorf("checkpoint: %d bytes, at most %d are allowed", len(signed), MaxCheckpoint)
	}
	n, err := note.Open(signed, note.VerifierList(key))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w (%s): %w", errSignature, key.Name(), err)
	}
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != key.Name() {
		return Checkpoint{}, fmt.Errorf("checkpoint: it is of the log %q, not of %q", c.Origin, key.Name())
	}
	return c, nil
}

func parseCheckpoint(text string) (c Checkpoint, err error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 {
		return c, errors.New("checkpoint: it has less than three lines")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || size > maxSize || strconv.FormatInt(size, 10) != lines[1] {
		return c, fmt.Errorf("checkpoint: the size %.30q is no number of entries up to %d", lines[1], int64(maxSize))
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != len(c.Root) {
		return c, fmt.Errorf("checkpoint: the root %q is no hash", lines[2])
	}
	return Checkpoint{Origin: lines[0], Size: size, Root: Hash(root)}, nil
}

// CheckOrigin says whether a name can be that of a log and its key.
func CheckOrigin(origin string) error {
	if origin == "" || len(origin) > 200 || strings.ContainsFunc(origin, func(r rune) bool { return r <= ' ' || r == '+' || r > '~' }) {
		return fmt.Errorf("origin of the log: %q must be 1 to 200 printable ASCII characters without space and +", origin)
	}
	return nil
}

// SizeOf reads the size out of a signed checkpoint, 0 of none, without checking the signature.
func SizeOf(signed []byte) (int64, error) {
	c, err := unverified(signed)
	return c.Size, err
}

// unverified reads a signed checkpoint, the empty log's out of none. Its signature is for those
// to check who have the key.
func unverified(signed []byte) (Checkpoint, error) {
	if signed == nil {
		return Checkpoint{Root: emptyRoot}, nil
	}
	text, _, _ := strings.Cut(string(signed), "\n\n")
	return parseCheckpoint(text + "\n")
}
