-- Fleet schema, version 7: chores of the server, brakes, and what each run changed.

CREATE TABLE chores (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The word of what is done: forget, unforget, pin, unpin, ...
    kind         TEXT    NOT NULL,
    -- operator, timer
    asked_by     TEXT    NOT NULL,
    -- What exactly, as JSON (backhaul-server, chores::Chore).
    request      TEXT    NOT NULL,
    -- queued, running, done, failed
    state        TEXT    NOT NULL,
    requested_at INTEGER NOT NULL,
    started_at   INTEGER,
    ended_at     INTEGER,
    -- How far it is, in a line; once it is over, what it came to or why it failed.
    words        TEXT    NOT NULL DEFAULT '',
    -- What it came to, as JSON.
    result       TEXT,
    -- usage, damage, key, failed: of which kind its failure is.
    failure      TEXT
) STRICT;
CREATE INDEX chores_open ON chores (id) WHERE state IN ('queued', 'running');

-- What runs changed, by the counts that the brake goes by.
CREATE TABLE profiles (
    client        BLOB    NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    sequence      INTEGER NOT NULL,
    files         INTEGER NOT NULL,
    files_new     INTEGER NOT NULL,
    files_changed INTEGER NOT NULL,
    bytes         INTEGER NOT NULL,
    -- Contents that the run added, and what is left of them when they are compressed.
    bytes_new     INTEGER NOT NULL,
    bytes_packed  INTEGER NOT NULL,
    PRIMARY KEY (client, sequence)
) STRICT, WITHOUT ROWID;

-- Clients of which nothing is forgotten or reclaimed until an operator releases it.
CREATE TABLE brakes (
    client   BLOB    PRIMARY KEY REFERENCES clients (id) ON DELETE CASCADE,
    -- The run that tripped it.
    sequence INTEGER NOT NULL,
    since    INTEGER NOT NULL,
    why      TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
