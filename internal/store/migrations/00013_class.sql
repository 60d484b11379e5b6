-- +goose Up

-- The retention class. Records from before there were classes are of the default one.
ALTER TABLE records ADD COLUMN class TEXT NOT NULL DEFAULT 'standard';
