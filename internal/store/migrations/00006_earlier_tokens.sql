-- +goose Up

-- Tokens that Vault has still to end although their grant goes on: a later activation took
-- their place, or they were minted and given to nobody.
CREATE TABLE earlier_tokens (
    grant_id TEXT NOT NULL,
    accessor TEXT NOT NULL,
    PRIMARY KEY (grant_id, accessor)
);
