package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
	"github.com/portcullis/portcullis/vault/wire"
)

func (a *app) fetchCommand() *cobra.Command {
	var dir string
	var handles []string
	c := &cobra.Command{
		Use:   "fetch GRANT --out DIR",
		Short: "open the images of an active grant into a folder (contractor)",
		Long: `Fetch opens the images that a grant covers, or those named with --handle, and writes each to
DIR/<modality>-<handle>.jpg or .png, readable by you alone. DIR/manifest.jsonl says under which
grant and purpose they left, until when, and of each image what it is, when it came and its SHA-256.

The command can be repeated after an interruption: images that are there, just as the manifest
says, are not fetched again. Those that are damaged or missing are; that costs no quota, but is
recorded. What a killed fetch left half written is removed, and damaged lines of the manifest
are replaced. Each folder takes the images of one grant. Run "grant activate" first.

Where the purpose allows so many records a minute, fetch waits and goes on. It ends at the grant's
quota of records or bytes; what it has fetched until then stays.`,
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
		token, err := a.tokenOf(ctx, s, id)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		f := &fetching{token: token, dir: dir, handles: handles, expect: client.Expect{Views: map[string]*pb.RecordView{}}}
		if f.grant, f.expect.Scope, err = grantOf(ctx, s, name); err != nil {
			return err
		}
		if len(handles) == 0 {
			err := s.Records(ctx, name, token, func(r *pb.RecordView) error {
				f.handles, f.expect.Views[r.Handle] = append(f.handles, r.Handle), r
				return f.expect.CheckView(r)
			})
			if err != nil {
				return err
			}
		}
		if err := a.fetch(ctx, s, f); err != nil {
			return err
		}
		if len(f.handles) == 0 {
			a.sayNothing(ctx, s, name)
		}
		return nil
	})
	return c
}

// fetching is one fetch: what is wanted, and what is known of it.
type fetching struct {
	grant   *pb.Grant
	token   vault.Token
	dir     string
	handles []string
	expect  client.Expect
}

// grantOf gives a grant and its scope. Where the process at this address is that of releases
// alone, nothing but the grant's name is known.
func grantOf(ctx context.Context, s *session, name string) (*pb.Grant, *vault.Scope, error) {
	got, err := s.Grants.GetGrant(ctx, &pb.GetGrantRequest{Name: name})
	if vault.KindOf(err) == vault.NotOffered {
		return &pb.Grant{Name: name}, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	scope, err := wire.ParseScope(got.Grant.GetScope())
	if err != nil || got.Grant.GetName() != name {
		return nil, nil, vault.E(vault.DataLoss, vault.ReasonDataLoss, "the service sent another grant, or one without a scope").Because(err)
	}
	return got.Grant, &scope, nil
}

// fetched is what came of a fetch, in JSON.
type fetched struct {
	Grant    string       `json:"grant"`
	Dir      string       `json:"dir"`
	Fetched  int          `json:"fetched"`
	Skipped  int          `json:"skipped"` // were there already
	Bytes    int64        `json:"bytes"`
	Manifest string       `json:"manifest"`
	Replaced int          `json:"manifest_lines_replaced"` // that were damaged
	Removed  int          `json:"unfinished_removed"`      // files that a killed fetch left
	Images   []imageFacts `json:"images"`                  // that were fetched
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
func (a *app) fetch(ctx context.Context, s *session, f *fetching) error {
	m, err := openManifest(f.dir, manifestHead{
		Version: 1, Grant: f.grant.GetName(), Grantee: f.grant.GetGrantee(), Purpose: f.grant.GetPurpose(),
		PurposeVersion: f.grant.GetPurposeVersion(), EndTime: when(f.grant.GetEndTime()), Service: s.client.ServerID,
	})
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	defer m.close()
	sum := fetched{Grant: f.grant.GetName(), Dir: f.dir, Manifest: filepath.Join(f.dir, manifestName), Images: []imageFacts{}, Replaced: m.damaged}
	// The manifest's lock is the folder's: no other fetch writes an image here now.
	if sum.Removed, err = removeUnfinished(f.dir); err != nil {
		return fmt.Errorf("remove what an earlier fetch left: %w", err)
	}
	asked := map[string]bool{}
	var want []string
	for _, h := range f.handles {
		if asked[h] {
			continue // a handle that is named twice is got once
		}
		asked[h] = true
		have, err := m.has(h)
		if err != nil {
			return err
		}
		if have {
			sum.Skipped++
			continue
		}
		want = append(want, h)
	}
	bar := a.bar("fetching", len(want))
	f.expect.Waiting = a.waiting(bar)
	turned := 0
	failed := s.FetchExpected(ctx, f.grant.GetName(), f.token, want, f.expect, func(img *pb.Image) error {
		facts, err := saveImage(f.dir, img)
		if err != nil {
			return err
		}
		if err := m.add(facts, img, f.expect.Views[facts.Handle], a.now()); err != nil {
			return fmt.Errorf("manifest: %w", err)
		}
		sum.Fetched++
		sum.Bytes += int64(facts.Size)
		sum.Images = append(sum.Images, facts)
		if facts.Orientation > 1 {
			turned++
		}
		bar.addSized(int64(facts.Size))
		return nil
	})
	if failed == nil {
		failed = m.lines.sync()
	}
	bar.done()
	if a.output == jsonOutput {
		err = a.showJSON(sum)
	} else {
		err = a.showTable(func(t *grid) {
			t.line("fetched %s (%s) to %s; %d were there already", count(sum.Fetched, "image"), humanize.IBytes(uint64(sum.Bytes)), f.dir, sum.Skipped)
			if sum.Replaced > 0 {
				t.line("%s: %s replaced", manifestName, count(sum.Replaced, "damaged line"))
			}
			if sum.Removed > 0 {
				t.line("%s of an earlier fetch removed", count(sum.Removed, "unfinished file"))
			}
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

// waiting gives what shows that a fetch waits for the rate of its purpose: on the bar each time,
// without one in a line, once.
func (a *app) waiting(bar progress) func(time.Duration) {
	told := a.output == jsonOutput
	return func(d time.Duration) {
		why := fmt.Sprintf("waiting %s: the purpose allows no more records this minute", max(d.Round(time.Second), time.Second))
		if !bar.say(why) && !told {
			told = true
			fmt.Fprintln(a.stderr, why)
		}
	}
}

var extensions = map[string]string{"image/jpeg": ".jpg", "image/png": ".png"}

// imageName is the name of an image's file. It is made of nothing that the service could choose.
func imageName(m vault.Modality, handle, contentType string) string {
	return string(m) + "-" + handle + extensions[contentType]
}

// saveImage writes one image. It is durable on return.
func saveImage(dir string, img *pb.Image) (imageFacts, error) {
	h, err := vault.ParseHandle("handle", img.GetHandle())
	if err != nil {
		return imageFacts{}, fmt.Errorf("the service's answer: %w", err)
	}
	m, err := wire.ParseModality("modality", img.GetModality())
	if err != nil {
		return imageFacts{}, fmt.Errorf("the service's answer: %w", err)
	}
	if extensions[img.GetContentType()] == "" {
		return imageFacts{}, fmt.Errorf("the service's answer: content type %q is neither image/jpeg nor image/png", img.GetContentType())
	}
	path := filepath.Join(dir, imageName(m, h.String(), img.GetContentType()))
	if err := writeFile(path, img.GetData()); err != nil {
		return imageFacts{}, err
	}
	return imageFacts{
		Handle: h.String(), Modality: m, File: path, ContentType: img.GetContentType(),
		Orientation: img.GetOrientation(), Size: len(img.GetData()),
	}, nil
}
