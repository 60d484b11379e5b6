package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

func (a *app) keyCommand() *cobra.Command {
	return noun("key", "records' keys: list, revoke, restore, destroy (admin)",
		a.keyList(), a.keyRevoke(), a.keyRestore(), a.keyDestroy(), a.keyCertificate())
}

// selectionFlags name records for work on their keys.
type selectionFlags struct {
	record      idFlag
	site        string
	modality    modalityFlag
	from, until timeFlag
}

func (s *selectionFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.Var(&s.record, "record", "this record alone")
	f.StringVar(&s.site, "site", "", "the records of this `SITE`, with --from and --until")
	f.Var(&s.modality, "modality", "of this modality only")
	f.Var(&s.from, "from", "captured at or after")
	f.Var(&s.until, "until", "captured before")
	complete(c, "modality", "face", "plate")
}

func (s *selectionFlags) selection() (vault.Selection, error) {
	sel := vault.Selection{
		Record: vault.ID(s.record), Site: s.site, Modality: vault.Modality(s.modality), From: s.from.Time, Until: s.until.Time,
	}
	switch byID, bySite := sel.Record != (vault.ID{}), sel.Site != ""; {
	case byID && (bySite || sel.Modality != "" || !sel.From.IsZero() || !sel.Until.IsZero()),
		!byID && (!bySite || sel.From.IsZero() || sel.Until.IsZero()):
		return sel, usagef("name the records: either --record UUID, or --site SITE --from TIME --until TIME")
	}
	if err := sel.Check(); err != nil {
		return sel, &usageError{err: err}
	}
	return sel, nil
}

const selectionHelp = `
The records are one (--record), or those of a site in a window of capture times (--site, --from,
--until, and --modality for one of the two). A time is 2026-11-23T14:30:00Z or 2026-11-23.`

func (a *app) keyList() *cobra.Command {
	var flags selectionFlags
	c := &cobra.Command{
		Use: "list", Short: "list records and the states of their keys", Args: exactly(0),
		Long:    "List gives each record of a selection, its retention class, its key's name and its key's state.\n" + selectionHelp,
		Example: "  portcullis --profile alice key list --site anzalduas --from 2026-11-01 --until 2026-11-08",
	}
	flags.add(c)
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		sel, err := flags.selection()
		if err != nil {
			return err
		}
		out := &pb.ListRecordKeysResponse{}
		err = s.RecordKeys(ctx, sel, func(r *pb.RecordKey) error {
			out.Records = append(out.Records, r)
			return nil
		})
		if err != nil {
			return err
		}
		return a.show(out, func(t *grid) {
			t.row("RECORD", "STATE", "STORED", "CLASS", "KEY")
			for _, r := range out.Records {
				t.row(bare(r.Record), r.KeyState, when(r.StoreTime), r.RetentionClass, r.KeyName)
			}
		})
	})
	return c
}

func (a *app) keyRevoke() *cobra.Command {
	var flags selectionFlags
	var note string
	c := &cobra.Command{
		Use: "revoke", Short: "make records' keys unusable, here and in Vault", Args: exactly(0),
		Long: `Revoke makes keys unusable: no grant opens the records any more. It is the first answer when it
is unclear what is safe: one admin is enough, no question is asked, and "key restore" by two
admins undoes it.
` + selectionHelp,
		Example: `  portcullis --profile alice key revoke --site anzalduas --from 2026-11-01 --until 2026-11-08 \
    --note "incident 12"`,
	}
	flags.add(c)
	c.Flags().StringVar(&note, "note", "", "why: one line of `TEXT`, of which the log keeps a hash")
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		sel, err := flags.selection()
		if err != nil {
			return err
		}
		got, err := s.Admin.RevokeKeys(ctx, &pb.RevokeKeysRequest{Selection: wire.Selection(sel), Note: note})
		if err != nil {
			return err
		}
		return a.show(got, func(t *grid) {
			t.line("the keys of %s are revoked", count(got.KeyWork.GetRecords(), "record"))
			t.line("%s", barrier(got.KeyWork.GetBarrier()))
		})
	})
	return c
}

func (a *app) keyRestore() *cobra.Command {
	var flags selectionFlags
	c := &cobra.Command{
		Use: "restore", Short: "make revoked keys usable again (two admins run it)", Args: exactly(0),
		Long:    "Restore shows what is signed, and asks. It takes effect when a second admin signs the same.\n" + selectionHelp,
		Example: "  portcullis --profile alice key restore --record 9b2f6c0e-4f1d-4a0b-8e57-3c1d2b4a6f90",
	}
	flags.add(c)
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		sel, err := flags.selection()
		if err != nil {
			return err
		}
		got, err := s.RestoreKeys(ctx, sel, func(d *pb.Decision) error {
			if err := a.showDecision(d); err != nil {
				return err
			}
			return a.confirm(ctx, "Sign?")
		})
		if err != nil {
			return err
		}
		return a.show(got, func(t *grid) { keyWork(t, got, "usable again", "") })
	})
	return c
}

func (a *app) keyDestroy() *cobra.Command {
	var flags selectionFlags
	var certificate string
	c := &cobra.Command{
		Use: "destroy", Short: "destroy records' keys for good (two admins run it)", Args: exactly(0),
		Long: `Destroy shows what is signed, and wants the number of records typed. With the second admin's
signature the keys are destroyed: the images are noise wherever they lie, and nobody using
Portcullis can undo it. The answer holds a certificate of what was destroyed and of which other
copies of the keys may exist; --certificate keeps it, and "key certificate" gives it again.
` + selectionHelp,
		Example: `  portcullis --profile alice key destroy --site anzalduas --from 2026-11-01 --until 2026-11-08
  portcullis --profile bob key destroy --site anzalduas --from 2026-11-01 --until 2026-11-08 \
    --certificate destroyed.txt`,
	}
	flags.add(c)
	c.Flags().StringVar(&certificate, "certificate", "", "keep the certificate of destruction in this `FILE`")
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		sel, err := flags.selection()
		if err != nil {
			return err
		}
		if certificate != "" {
			if err := writable(certificate); err != nil {
				return &usageError{err: fmt.Errorf("--certificate: nothing was signed: %w", err), hint: "name a file that can be written"}
			}
		}
		got, err := s.DestroyKeys(ctx, sel, func(d *pb.Decision) error {
			if err := a.showDecision(d); err != nil {
				return err
			}
			n := bodyField(d.Body, "records")
			return a.confirmTyped(ctx, "This can not be undone. Type the number of records to sign:", n)
		})
		if err != nil {
			return err
		}
		text := got.KeyWork.GetCertificate()
		kept := ""
		if certificate != "" && text != "" {
			if err = writeFile(certificate, []byte(text)); err == nil {
				kept = certificate
			} else {
				err = &hinted{fmt.Errorf("keep the certificate, which the answer shows: %w", err),
					"the keys are destroyed; get it again: portcullis key certificate " + bare(got.Decision.GetName()) + " --out FILE"}
			}
		}
		return errors.Join(err, a.show(got, func(t *grid) { keyWork(t, got, "destroyed", kept) }))
	})
	return c
}

func (a *app) keyCertificate() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "certificate DECISION", Short: "get the certificate of a destruction that is done (also auditor)", Args: exactly(1),
		Long: `Certificate gives what a destruction left as proof, as often as it is asked: what was destroyed,
by whose signatures, and which other copies of the keys may exist.`,
		Example: "  portcullis --profile alice key certificate 5d0c3c1e-6f0e-4a55-9d9b-0d6d2f0b7a11 --out destroyed.txt",
	}
	c.Flags().StringVar(&file, "out", "", "keep it in this `FILE` instead of showing it")
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		var id idFlag
		if err := id.Set(bare(args[0])); err != nil {
			return usagef("DECISION %q: %v", args[0], err)
		}
		got, err := s.Admin.GetDestructionCertificate(ctx, &pb.GetDestructionCertificateRequest{Name: wire.Name(wire.Decisions, vault.ID(id))})
		if err != nil {
			return err
		}
		if file == "" {
			return a.show(got, func(t *grid) { t.text("", got.Certificate) })
		}
		if err := writeFile(file, []byte(got.Certificate)); err != nil {
			return err
		}
		return a.show(got, func(t *grid) { t.line("the certificate of destruction is in %s", file) })
	})
	return c
}

func (a *app) showDecision(d *pb.Decision) error {
	parsed, err := wire.ParseDecision(d)
	if err != nil {
		return err
	}
	a.showSigned(parsed.Text())
	return nil
}

// keyWork says what came of a decision on keys. A certificate that was not kept is shown.
func keyWork(t *grid, got *pb.SignDecisionResponse, what, kept string) {
	w := got.KeyWork
	if w == nil {
		t.line("%s", howFar(got.Decision))
		return
	}
	t.line("the keys of %s are %s", count(w.Records, "record"), what)
	if w.Barrier != nil {
		t.line("%s", barrier(w.Barrier))
	}
	if w.Missing > 0 {
		t.line("%s of them could not be restored: HashiCorp Vault does not have the keys; they stay revoked", count(w.Missing, "record"))
	}
	switch {
	case w.Certificate == "" && got.Decision.GetKind() != string(vault.DestroyKeys):
	case w.Certificate == "":
		t.line("once Vault has followed: portcullis key certificate %s", bare(got.Decision.GetName()))
	case kept != "":
		t.line("the certificate of destruction is in %s", kept)
	default:
		t.text("", w.Certificate)
		t.line("to get it again: portcullis key certificate %s", bare(got.Decision.GetName()))
	}
}
