package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

func (a *app) fetchCommand() *cobra.Command {
	var dir string
	var handles []string
	c := &cobra.Command{
		Use:   "fetch GRANT --out DIR",
		Short: "open the images of an active grant into a folder (contractor)",
		Long: `Fetch opens the images that a grant covers, or those named with --handle, and writes each to
DIR/<modality>-<handle>.jpg or .png, readable by you alone. Images that are there already are not
fetched again, so the command can be repeated after an interruption. Run "grant activate" first.`,
		Example: "  portcullis --profile contractor fetch 1f0c2a4e-7d53-4b1e-9a3f-0c7a8e6d5b21 --out ./images",
		Args:    exactly(1),
	}
	c.Flags().StringVar(&dir, "out", "", "folder to write to, made if it is not there: `DIR`")
	c.Flags().StringSliceVar(&handles, "handle", nil, "only these `HANDLE`s, as \"records list\" gives them")
	required(c, "out")
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		name, id, err := grantName(args[0])
		if err != nil {
			return err
		}
		for _, h := range handles {
			if _, err := vault.ParseHandle("--handle", h); err != nil {
				return &usageError{err: err}
			}
		}
		token, err := s.tokens().load(id)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if len(handles) == 0 {
			err := s.Records(ctx, name, token, func(r *pb.RecordView) error {
				handles = append(handles, r.Handle)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return a.fetch(ctx, s, name, token, dir, handles)
	})
	return c
}

// fetched is what came of a fetch, in JSON.
type fetched struct {
	Grant   string       `json:"grant"`
	Dir     string       `json:"dir"`
	Fetched int          `json:"fetched"`
	Skipped int          `json:"skipped"` // were there already
	Bytes   int64        `json:"bytes"`
	Images  []imageFacts `json:"images"` // that were fetched
}

type imageFacts struct {
	Handle      string         `json:"handle"`
	Modality    vault.Modality `json:"modality"`
	File        string         `json:"file"`
	ContentType string         `json:"content_type"`
	Orientation int32          `json:"orientation"` // as in EXIF, which the image has no longer
	Size        int            `json:"size"`
}

// fetch gets the images that dir lacks. What was got is told also when an error ends it.
func (a *app) fetch(ctx context.Context, s *session, grant string, token vault.Token, dir string, handles []string) error {
	have, err := present(dir)
	if err != nil {
		return err
	}
	sum := fetched{Grant: grant, Dir: dir, Images: []imageFacts{}}
	var want []string
	for _, h := range handles {
		if have[h] {
			sum.Skipped++
			continue
		}
		have[h] = true // a handle that is named twice is got once
		want = append(want, h)
	}
	bar := a.bar("fetching", len(want))
	turned := 0
	failed := s.Fetch(ctx, grant, token, want, func(img *pb.Image) error {
		facts, err := saveImage(dir, img)
		if err != nil {
			return err
		}
		sum.Fetched++
		sum.Bytes += int64(facts.Size)
		sum.Images = append(sum.Images, facts)
		if facts.Orientation > 1 {
			turned++
		}
		bar.add()
		return nil
	})
	bar.done()
	if a.output == jsonOutput {
		err = a.showJSON(sum)
	} else {
		err = a.showTable(func(t *grid) {
			t.line("fetched %s (%s) to %s; %d were there already", count(sum.Fetched, "image"), humanize.IBytes(uint64(sum.Bytes)), dir, sum.Skipped)
			if turned > 0 {
				t.line("%s must be turned for showing: --output json gives each one's orientation", count(turned, "image"))
			}
		})
	}
	if failed != nil {
		return fmt.Errorf("after %d of %s: %w", sum.Fetched, count(len(want), "image"), failed)
	}
	return err
}

var imageFile = regexp.MustCompile(`^(?:face|plate)-([0-9a-f]{32})\.(?:jpg|png)$`)

// present gives the handles whose images dir holds.
func present(dir string) (map[string]bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, e := range entries {
		if m := imageFile.FindStringSubmatch(e.Name()); m != nil {
			have[m[1]] = true
		}
	}
	return have, nil
}

var extensions = map[string]string{"image/jpeg": ".jpg", "image/png": ".png"}

// saveImage writes one image. Its name is made of nothing that the service could choose.
func saveImage(dir string, img *pb.Image) (imageFacts, error) {
	h, err := vault.ParseHandle("handle", img.GetHandle())
	if err != nil {
		return imageFacts{}, fmt.Errorf("the service's answer: %w", err)
	}
	m, err := wire.ParseModality("modality", img.GetModality())
	if err != nil {
		return imageFacts{}, fmt.Errorf("the service's answer: %w", err)
	}
	ext, ok := extensions[img.GetContentType()]
	if !ok {
		return imageFacts{}, fmt.Errorf("the service's answer: content type %q is neither image/jpeg nor image/png", img.GetContentType())
	}
	path := filepath.Join(dir, string(m)+"-"+h.String()+ext)
	if err := writeFile(path, img.GetData()); err != nil {
		return imageFacts{}, err
	}
	return imageFacts{
		Handle: h.String(), Modality: m, File: path, ContentType: img.GetContentType(),
		Orientation: img.GetOrientation(), Size: len(img.GetData()),
	}, nil
}
