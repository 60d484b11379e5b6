-- +goose Up

-- A look for restores writes a mark before it checks and one after it: see vault.Marked. And each
-- withdrawal raises the generation, so that a look that began before it changes nothing.
ALTER TABLE vault_mark ADD COLUMN begun TEXT NOT NULL DEFAULT '';
ALTER TABLE vault_mark ADD COLUMN generation BIGINT NOT NULL DEFAULT 0;

-- IDs of orphans that were destroyed: whoever is still storing one is refused at the commit.
CREATE TABLE destroyed_orphans (
    record_id TEXT PRIMARY KEY
);
