-- Fleet schema, version 1: what the server knows about its clients. Not a cache.

CREATE TABLE clients (
    id           BLOB    PRIMARY KEY,
    name         TEXT    NOT NULL UNIQUE,
    -- server, client, hybrid, auto
    initiator    TEXT    NOT NULL,
    -- HOST:PORT where its agent listens.
    address      TEXT,
    vault        TEXT    NOT NULL,
    -- invited, active, revoked
    state        TEXT    NOT NULL,
    -- BLAKE3 of the public keys in its certificates.
    agent_key    BLOB,
    listener_key BLOB,
    added_at     INTEGER NOT NULL,
    seen_at      INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE invitations (
    -- Derived from the secret, which is not kept.
    id         BLOB    PRIMARY KEY,
    client     BLOB    NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    proof_key  BLOB    NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    client       BLOB    NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    -- server, client
    initiator    TEXT    NOT NULL,
    -- queued, running, done, partial, failed
    state        TEXT    NOT NULL,
    requested_at INTEGER NOT NULL,
    started_at   INTEGER,
    ended_at     INTEGER,
    snapshot     BLOB,
    errors       INTEGER NOT NULL DEFAULT 0,
    why          TEXT
) STRICT;
CREATE INDEX runs_queued ON runs (state) WHERE state = 'queued';
