-- +goose Up

-- Tells this database and its copies from others above the same Vault: see vault.Marked. It is drawn with the
-- first mark.
ALTER TABLE vault_mark ADD COLUMN database TEXT NOT NULL DEFAULT '';
