-- +goose Up

-- What no record names: put aside, reversibly, and destroyed after days. A record of an ID
-- that stands here is not added any more.
CREATE TABLE quarantine (
    kind      TEXT NOT NULL,   -- 'blob' or 'key'
    name      TEXT NOT NULL,   -- of a blob its record's ID, of a key its name in Vault
    record_id TEXT NOT NULL,
    since     BIGINT NOT NULL, -- microseconds since 1970 in UTC
    PRIMARY KEY (kind, name)
);
CREATE INDEX quarantine_by_record ON quarantine (record_id);
