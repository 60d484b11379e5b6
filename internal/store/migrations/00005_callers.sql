-- +goose Up

ALTER TABLE suspended_callers ADD COLUMN suspended_by TEXT NOT NULL DEFAULT ''; -- SPIFFE ID of an admin

CREATE INDEX grants_by_grantee ON grants (grantee, state);
CREATE INDEX signatures_by_signer ON signatures (signer);
