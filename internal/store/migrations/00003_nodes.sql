-- +goose Up

-- The processes that release images. One without a fresh lease releases nothing.
CREATE TABLE nodes (
    id    TEXT PRIMARY KEY,
    lease BIGINT NOT NULL -- until when
);

-- Access that ended, for every node to act on.
CREATE TABLE endings (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    body     BLOB NOT NULL, -- JSON
    ended_at BIGINT NOT NULL
);

-- What each node did about an ending: nothing of it is under way there any more.
CREATE TABLE confirmations (
    ending      INTEGER NOT NULL,
    node        TEXT NOT NULL,
    connections INTEGER NOT NULL, -- that it reset
    sends       INTEGER NOT NULL, -- that were under way
    PRIMARY KEY (ending, node)
);

CREATE INDEX grants_by_token ON grants (ends) WHERE accessor <> '';
