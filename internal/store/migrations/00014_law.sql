-- +goose Up

-- Terms that grants gained, and what is counted of them. Grants of before are not what was signed any more: their
-- terms have more lines now.
ALTER TABLE grants ADD COLUMN max_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE grants ADD COLUMN live INTEGER NOT NULL DEFAULT 0;
ALTER TABLE grants ADD COLUMN list TEXT NOT NULL DEFAULT '';    -- a list's ID, '' when none
ALTER TABLE grants ADD COLUMN records TEXT NOT NULL DEFAULT ''; -- what stands in it, joined by commas
ALTER TABLE grants ADD COLUMN released_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE grants ADD COLUMN minute_began BIGINT NOT NULL DEFAULT 0; -- the minute in which its rate is counted
ALTER TABLE grants ADD COLUMN minute_count BIGINT NOT NULL DEFAULT 0;
ALTER TABLE grants ADD COLUMN excess BIGINT NOT NULL DEFAULT 0; -- refusals for quota or rate since a release
ALTER TABLE grants ADD COLUMN uses_left BIGINT NOT NULL DEFAULT -1; -- that Vault counts and no token has; -1 while it never counted

ALTER TABLE contractors ADD COLUMN conflict_group TEXT NOT NULL DEFAULT '';
UPDATE contractors SET conflict_group = name;
CREATE INDEX contractors_by_group ON contractors (conflict_group);

-- What contractors have opened, by day of capture: see vault.ConflictRule. It outlives grants and records.
CREATE TABLE opened (
    contractor TEXT NOT NULL,
    site       TEXT NOT NULL,
    modality   TEXT NOT NULL,
    day        BIGINT NOT NULL,  -- since 1970, in UTC
    purpose    TEXT NOT NULL,
    linkage    INTEGER NOT NULL, -- of the purpose's version
    last_at    BIGINT NOT NULL,
    PRIMARY KEY (contractor, site, day, modality, purpose, linkage)
);
INSERT INTO opened (contractor, site, modality, day, purpose, linkage, last_at)
    SELECT g.contractor, r.site, r.modality, r.captured_at / 86400000000, g.purpose, 0, MAX(g.ends)
    FROM released l JOIN grants g ON g.id = l.grant_id JOIN records r ON r.id = l.record_id
    GROUP BY 1, 2, 3, 4, 5;

CREATE TABLE record_lists (
    id         TEXT PRIMARY KEY,
    contractor TEXT NOT NULL,
    records    TEXT NOT NULL, -- joined by commas
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    request_id TEXT NOT NULL,
    UNIQUE (created_by, request_id)
);

CREATE INDEX grants_by_purpose ON grants (purpose, state);
