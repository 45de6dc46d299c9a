-- Fleet schema, version 2: policies.

ALTER TABLE clients ADD COLUMN policy TEXT NOT NULL DEFAULT 'default';

-- The policy file in force, as it was applied.
CREATE TABLE policy (
    only       INTEGER PRIMARY KEY CHECK (only = 1),
    text       TEXT    NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT;
