-- +goose Up

-- What tells a restore of Vault or of this database: see vault.Marked.
CREATE TABLE vault_mark (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    mark     TEXT NOT NULL,   -- '' when none
    next     TEXT NOT NULL,
    log      BIGINT NOT NULL,
    next_log BIGINT NOT NULL,
    claimed  BIGINT NOT NULL, -- microseconds since 1970 in UTC, as is good_until
    good_until BIGINT NOT NULL,
    reason   TEXT NOT NULL
);
INSERT INTO vault_mark (one, mark, next, log, next_log, claimed, good_until, reason) VALUES (1, '', '', 0, 0, 0, 0, '');

CREATE INDEX records_by_shut ON records (id) WHERE key_state IN ('revoked', 'destroyed');
