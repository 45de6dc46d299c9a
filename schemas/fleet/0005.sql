-- Fleet schema, version 5: what the scheduler remembers, and how clients are reached.

-- What is kept of a client across restarts, as JSON (backhaul-schedule, fleet::Memory).
ALTER TABLE clients ADD COLUMN memory TEXT;
-- No automatic run before then; none when it is not paused.
ALTER TABLE clients ADD COLUMN paused_until INTEGER;
-- Somebody asked for a nudge.
ALTER TABLE clients ADD COLUMN nudge_wanted INTEGER NOT NULL DEFAULT 0;
-- Where the client was seen last, where it says that its listener is, and the time zone it says it is in.
ALTER TABLE clients ADD COLUMN observed TEXT;
ALTER TABLE clients ADD COLUMN reported TEXT;
ALTER TABLE clients ADD COLUMN zone TEXT;
-- How it is connected right now: '', 'standing', 'dial' or 'push'; and its initiator with `auto` resolved.
ALTER TABLE clients ADD COLUMN link TEXT NOT NULL DEFAULT '';
ALTER TABLE clients ADD COLUMN mode TEXT NOT NULL DEFAULT '';
-- none, absent, gated, failing, waiting
ALTER TABLE clients ADD COLUMN obstacle TEXT NOT NULL DEFAULT 'none';
-- When its next run is due, seconds since 1970.
ALTER TABLE clients ADD COLUMN next_at INTEGER;
-- The version of the terms that its agent keeps to.
ALTER TABLE clients ADD COLUMN terms_version INTEGER NOT NULL DEFAULT 0;

-- What made a run begin: timer, join, manual, nudge, resume, dialled.
ALTER TABLE runs ADD COLUMN trigger TEXT NOT NULL DEFAULT '';

-- Machines that use a client's identity, to tell a copy from a restart.
CREATE TABLE instances (
    client     BLOB    NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    instance   BLOB    NOT NULL,
    host       TEXT    NOT NULL,
    address    TEXT    NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    -- The highest is the one that speaks for the client now.
    turn       INTEGER NOT NULL,
    -- 1: found to be a copy, and not let in.
    refused    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (client, instance)
) STRICT, WITHOUT ROWID;

-- Versions of the policy file; the newest is in force, or on its way.
CREATE TABLE policy_versions (
    version    INTEGER PRIMARY KEY,
    text       TEXT    NOT NULL,
    applied_at INTEGER NOT NULL,
    -- How it spreads, as JSON (backhaul-schedule, rollout::Rollout); none before the server has seen it.
    rollout    TEXT,
    -- 1: an operator has asked for a halted version to go on.
    resumed    INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO policy_versions SELECT 1, text, applied_at, NULL, 0 FROM policy;
DROP TABLE policy;

-- Keys of this server that are no secret of a vault.
CREATE TABLE keys (
    name TEXT PRIMARY KEY,
    key  BLOB NOT NULL
) STRICT, WITHOUT ROWID;
