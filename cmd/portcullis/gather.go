package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portcullis/portcullis/vault"
)

// picture is one file to store.
type picture struct {
	path     string
	modality vault.Modality
}

// gathered are the files that were found, and what was passed over in folders.
type gathered struct {
	pictures []picture
	passed   int      // files whose names are not those of pictures
	odd      []string // links, pipes and devices whose names are
}

// gather finds the pictures that arguments name. A file is taken as it is; in a folder, and
// those below it, files that end in .jpg, .jpeg or .png are taken, in the order of their
// paths, but for names that begin with a dot: programs write half
// a file to such. Only regular files are read: no link is followed and no pipe waited for, but a
// link that is named may lead to a folder. When only is empty, a folder's subfolders face and
// plate say the modality.
func gather(args []string, only vault.Modality) (g gathered, err error) {
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			// Of a link that leads nowhere, reading tells.
			if _, linkErr := os.Lstat(arg); linkErr != nil {
				return g, &usageError{err: ownWords(linkErr)}
			}
		}
		if info == nil || !info.IsDir() {
			if only == "" {
				return g, usagef("%s: say what it shows, with --modality face or --modality plate", arg)
			}
			g.pictures = append(g.pictures, picture{arg, only})
			continue
		}
		if err := g.folder(arg, only); err != nil {
			return g, err
		}
	}
	if len(g.pictures) == 0 && len(g.odd) > 0 {
		return g, usagef("no picture found: %s is %w", g.odd[0], errNotRegular)
	}
	if len(g.pictures) == 0 {
		return g, usagef("no picture found: files that end in .jpg, .jpeg or .png are taken from a folder")
	}
	return g, nil
}

func (g *gathered) folder(dir string, only vault.Modality) error {
	if only != "" {
		return g.walk(dir, only)
	}
	found := false
	for _, m := range []vault.Modality{vault.Face, vault.Plate} {
		sub := filepath.Join(dir, string(m))
		info, err := os.Stat(sub)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
			continue
		}
		if err != nil {
			return err
		}
		found = true
		if err := g.walk(sub, m); err != nil {
			return err
		}
	}
	if !found {
		return usagef("%s: has no folders face and plate; say what its pictures show, with --modality", dir)
	}
	return nil
}

func (g *gathered) walk(dir string, m vault.Modality) error {
	// WalkDir goes in the order of names, and does not follow links.
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("read folder: %w", err)
		case d.IsDir() && path != dir && hidden(d.Name()):
			return fs.SkipDir
		case d.IsDir():
		case d.Type().IsRegular() && pictureName(d.Name()):
			g.pictures = append(g.pictures, picture{path, m})
		case pictureName(d.Name()):
			g.odd = append(g.odd, path)
		default:
			g.passed++
		}
		return nil
	})
}

// sizes gives the size of each picture's file, 0 if it can not be told, and their sum.
func (g gathered) sizes() (of []int64, total int64) {
	for _, p := range g.pictures {
		var n int64
		if info, err := os.Stat(p.path); err == nil {
			n = info.Size()
		}
		of, total = append(of, n), total+n
	}
	return of, total
}

func hidden(name string) bool { return strings.HasPrefix(name, ".") }

// pictureName says whether a file in a folder is taken for a picture.
func pictureName(name string) bool {
	return !hidden(name) && slices.Contains([]string{".jpg", ".jpeg", ".png"}, strings.ToLower(filepath.Ext(name)))
}
