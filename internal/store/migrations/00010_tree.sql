-- +goose Up

-- The tree over the events (internal/tlog): its newest signed checkpoint, and the hashes.
CREATE TABLE log_tree (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    size       BIGINT NOT NULL, -- events in the tree
    checkpoint BLOB NOT NULL
);

CREATE TABLE log_tiles (
    level  INTEGER NOT NULL,
    idx    BIGINT NOT NULL,
    hashes BLOB NOT NULL, -- up to 256, of 32 bytes each
    PRIMARY KEY (level, idx)
);
