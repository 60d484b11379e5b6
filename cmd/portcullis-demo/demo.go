package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/portcullis/portcullis/internal/devservice"
)

// options are what the command line chooses.
type options struct {
	images string // directory of pictures; empty to draw them
	keep   bool
}

// What "portcullisd dev" sets up (its profiles and its sample files).
const (
	site       = "north-gate"
	contractor = "acme-vision"
	purpose    = "plate-reader-check"
	mostPlates = 100 // the sample purpose's max_records
)

// smallQuota is the quota of the grant that is to run out, in records.
const smallQuota = 3

// demo is one run: where everything lies, and what earlier steps leave for later ones.
type demo struct {
	tell       *teller
	dir        string   // of all data; commands run here
	service    string   // the daemon's directory below it
	env        []string // of all child processes
	portcullis string   // the programs
	daemon     *devservice.Service
	hashi      *hashi

	faces, plates []picture // as the camera has them
	from, until   string    // the window of capture times that grants ask for

	token  string              // the grant token of the contractor's first grant
	kept   string              // the file where the command line keeps it
	handle string              // one of its records
	grant  string              // that grant
	opened map[string][]string // by grant: the handles of images that the contractor received
	direct int                 // data keys that were opened at Vault directly, past Portcullis
	loot   loot
}

// play plays the story. It returns nil only if every step did what it should, and leaves
// nothing behind: no process, and no directory unless it is to be kept.
func play(ctx context.Context, tell *teller, o options) (err error) {
	began := time.Now()
	d := &demo{tell: tell, opened: map[string][]string{}}
	if d.dir, err = os.MkdirTemp("", "portcullis-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.clean(o.keep, err != nil)) }()
	if err := d.prepare(o, began); err != nil {
		return err
	}
	for _, step := range []struct {
		title string
		play  func(*scene)
	}{
		{"Start the service", d.start},
		{"Two people decide who may ask, and for what", d.sanction},
		{"A lane at the border stores its pictures", d.store},
		{"Is there a readable picture anywhere on the disk?", d.search},
		{"A use that nobody sanctioned", d.unsanctioned},
		{"A proper request, and the two people it takes", d.approve},
		{"The contractor opens the plates", d.fetch},
		{"Both halves, by two good purposes", d.halves},
		{"A bulk copy", d.quota},
		{"A thief copies the disk", d.thief},
		{"Somebody forges the database", d.forgery},
		{"The grant is revoked in the middle of a download", d.revoke},
		{"A breach: the contractor is cut off", d.breach},
		{"The day after: the keys themselves", d.keys},
		{"What left, to whom, and when?", d.audit},
		{"Would it show if somebody rewrote the log?", d.log},
	} {
		tell.title(step.title)
		s := &scene{demo: d, ctx: ctx}
		if step.play(s); s.err != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			return fmt.Errorf("step %d, %q: %w", tell.steps, step.title, s.err)
		}
	}
	if err := d.stopDaemon(); err != nil {
		return err
	}
	fmt.Fprintf(tell.w, "\n%s\n", tell.paint(green, fmt.Sprintf(
		"All %d steps did what they should: %d checks, %d pictures, %.1f s.",
		tell.steps, tell.checks, len(d.faces)+len(d.plates), time.Since(began).Seconds())))
	return nil
}

// prepare finds the programs and lays out the pictures.
func (d *demo) prepare(o options, now time.Time) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	d.portcullis = filepath.Join(filepath.Dir(self), "portcullis")
	for _, bin := range []string{d.portcullis, d.daemonBin()} {
		if _, err := os.Stat(bin); err != nil {
			return fmt.Errorf("%w: make demo builds what is needed", err)
		}
	}
	d.service = filepath.Join(d.dir, "service")
	d.env = append(devservice.Environ(), "PORTCULLIS_CONFIG="+filepath.Join(d.service, "portcullis.yaml"))
	d.from = now.UTC().Add(-time.Hour).Format(time.RFC3339)
	d.until = now.UTC().Add(time.Hour).Format(time.RFC3339)

	if o.images == "" {
		d.faces, d.plates, err = drawPictures()
	} else {
		d.faces, d.plates, err = readPictures(o.images)
	}
	if err != nil {
		return err
	}
	for name, pictures := range map[string][]picture{"face": d.faces, "plate": d.plates} {
		folder := filepath.Join(d.dir, "camera", name)
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		for _, p := range pictures {
			if err := os.WriteFile(filepath.Join(folder, p.name), p.bytes, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *demo) daemonBin() string { return filepath.Join(filepath.Dir(d.portcullis), "portcullisd") }

// readPictures reads the JPEG and PNG files of dir/face and dir/plate.
func readPictures(dir string) (faces, plates []picture, err error) {
	read := func(kind string) (out []picture) {
		folder := filepath.Join(dir, kind)
		entries, readErr := os.ReadDir(folder)
		err = errors.Join(err, readErr)
		for _, e := range entries {
			if !e.Type().IsRegular() || !slices.Contains([]string{".jpg", ".jpeg", ".png"}, strings.ToLower(filepath.Ext(e.Name()))) {
				continue
			}
			b, readErr := os.ReadFile(filepath.Join(folder, e.Name()))
			err = errors.Join(err, readErr)
			out = append(out, picture{e.Name(), b})
		}
		return out
	}
	faces, plates = read("face"), read("plate")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if len(faces) < 1 || len(plates) <= smallQuota || len(plates) > mostPlates {
		return nil, nil, fmt.Errorf("%s: at least one picture in face/ and %d to %d in plate/ are needed, not %d and %d",
			dir, smallQuota+1, mostPlates, len(faces), len(plates))
	}
	return faces, plates, nil
}

func (d *demo) stopDaemon() error {
	if d.daemon == nil {
		return nil
	}
	daemon := d.daemon
	d.daemon = nil
	return daemon.Stop()
}

// clean ends what runs and removes what was written. After a failure it shows the end of
// the daemon's log first.
func (d *demo) clean(keep, failed bool) error {
	if failed && d.daemon != nil {
		if tail := d.daemon.Tail(); tail != "" {
			fmt.Fprintln(d.tell.w, "\nthe end of the daemon's log:")
			d.tell.lines(tail)
		}
	}
	err := d.stopDaemon()
	if keep {
		fmt.Fprintf(d.tell.w, "\nkept: %s (Vault's keys lie in it: remove it when you are done)\n", d.dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(d.dir))
}
