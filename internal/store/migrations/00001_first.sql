-- +goose Up

-- Times are microseconds since 1970 in UTC; IDs are UUIDs as text; digests are 32 bytes.

-- The index of the next event. Raised last in each committing transaction, so that the
-- order of the log is the order of the commits.
CREATE TABLE log_counter (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    next BIGINT NOT NULL
);
INSERT INTO log_counter (one, next) VALUES (1, 0);

-- The audit log: the bytes of each event as first written.
CREATE TABLE events (
    idx  BIGINT PRIMARY KEY,
    type TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX events_by_type ON events (type, idx);

CREATE TABLE records (
    id           TEXT PRIMARY KEY,
    site         TEXT NOT NULL,
    lane         TEXT NOT NULL,
    modality     TEXT NOT NULL,
    captured_at  BIGINT NOT NULL,
    crossing_id  TEXT NOT NULL, -- '' when none
    content_type TEXT NOT NULL,
    orientation  INTEGER NOT NULL,
    size         BIGINT NOT NULL,
    device       TEXT NOT NULL,
    request_id   TEXT NOT NULL,
    stored_at    BIGINT NOT NULL,
    wrapped_key  TEXT NOT NULL, -- '' once destroyed
    sealed_hash  BLOB NOT NULL,
    key_state    TEXT NOT NULL,
    key_decision TEXT NOT NULL DEFAULT '',   -- that restores or destroys the key
    revoked_at   BIGINT NOT NULL DEFAULT 0,  -- the key, last; 0 when never
    UNIQUE (device, request_id)
);
CREATE INDEX records_by_scope ON records (site, modality, captured_at);
CREATE INDEX records_by_key_work ON records (id) WHERE key_state IN ('revoking', 'restoring', 'destroying');

CREATE TABLE contractors (
    name           TEXT PRIMARY KEY,
    title          TEXT NOT NULL,
    suspended      INTEGER NOT NULL,
    epoch          INTEGER NOT NULL,
    disabled_epoch INTEGER NOT NULL, -- the newest epoch that Vault has disabled; 0 when none
    decision_id    TEXT NOT NULL
);

-- Callers of any kind that are cut off one by one.
CREATE TABLE suspended_callers (
    id           TEXT PRIMARY KEY, -- SPIFFE ID
    suspended_at BIGINT NOT NULL
);

CREATE TABLE decisions (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,
    body       TEXT NOT NULL,
    payload    BLOB NOT NULL,
    expires    BIGINT NOT NULL,
    need       INTEGER NOT NULL,
    effective  INTEGER NOT NULL,
    created_at BIGINT NOT NULL
);

-- Signatures on decisions. A grant's approval is a decision with the grant's ID.
CREATE TABLE signatures (
    decision_id TEXT NOT NULL,
    signer      TEXT NOT NULL,
    signed_at   BIGINT NOT NULL,
    signature   BLOB NOT NULL,
    chain       TEXT NOT NULL, -- JSON array of base64 DER
    PRIMARY KEY (decision_id, signer)
);

CREATE TABLE purposes (
    name        TEXT NOT NULL,
    version     INTEGER NOT NULL,
    body        TEXT NOT NULL, -- JSON
    decision_id TEXT NOT NULL,
    PRIMARY KEY (name, version)
);

CREATE TABLE grants (
    id              TEXT PRIMARY KEY,
    state           TEXT NOT NULL,
    contractor      TEXT NOT NULL,
    purpose         TEXT NOT NULL,
    purpose_version INTEGER NOT NULL,
    purpose_digest  BLOB NOT NULL,
    grantee         TEXT NOT NULL,
    epoch           INTEGER NOT NULL,
    sites           TEXT NOT NULL, -- joined by commas, as are modalities
    modalities      TEXT NOT NULL,
    captured_from   BIGINT NOT NULL,
    captured_until  BIGINT NOT NULL,
    max_records     BIGINT NOT NULL,
    ends            BIGINT NOT NULL,
    approvals       INTEGER NOT NULL,
    justification   TEXT NOT NULL,
    requested_at    BIGINT NOT NULL,
    request_id      TEXT NOT NULL,
    released        BIGINT NOT NULL,
    handle_key      BLOB NOT NULL,
    token_digest    BLOB NOT NULL, -- empty before activation
    accessor        TEXT NOT NULL,
    fence           TEXT NOT NULL,
    UNIQUE (grantee, request_id)
);
CREATE INDEX grants_by_contractor ON grants (contractor, requested_at);
CREATE INDEX grants_by_time ON grants (requested_at, id);
CREATE INDEX grants_by_fence ON grants (fence, ends);

-- The distinct records that left under a grant.
CREATE TABLE released (
    grant_id  TEXT NOT NULL,
    record_id TEXT NOT NULL,
    PRIMARY KEY (grant_id, record_id)
);
CREATE INDEX released_by_record ON released (record_id);
