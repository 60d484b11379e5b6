package devvault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// What lies in the directory, besides the audit log.
const (
	lockFile    = "lock"
	logFile     = "vault.log"
	configFile  = "vault.json"
	portsFile   = "ports.json"
	keysFile    = "INSECURE-development-keys.json"
	raftDir     = "raft"
	caFile      = "ca.pem"
	certFile    = "server.pem"
	certKeyFile = "server-key.pem"
)

// ErrInUse is what Start gives for a directory on which a Vault runs already.
var ErrInUse = errors.New("a development Vault runs on this directory already")

// makeDir makes dir with mode 0700. It closes an empty one that is open to others, and refuses a full one: that may
// be a folder that was named by mistake.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("directory of the development Vault: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("directory of the development Vault: %w", err)
	}
	if info.Mode().Perm() == 0o700 {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("directory of the development Vault: %w", err)
	}
	if len(entries) > 0 && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is open to other users (mode %#o): choose another directory, or chmod it to 0700", dir, info.Mode().Perm())
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("directory of the development Vault: %w", err)
	}
	return nil
}

// lockDir takes the lock of dir. It waits two seconds for another holder: the Vault of a parent that was killed a
// moment ago is about to go.
func lockDir(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of the development Vault: %w", err)
	}
	for range 100 {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			break
		}
		if ctx.Err() != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s: %w", dir, ErrInUse)
	}
	return nil, fmt.Errorf("lock of the development Vault: %w", err)
}

// writeFile writes a file of mode 0600 in dir so that a crash leaves the old one or the new one, durable on return.
func writeFile(dir, name string, content []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s of the development Vault: %w", name, err)
		}
	}()
	f, err := os.CreateTemp(dir, "."+name+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing is there after the rename
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
