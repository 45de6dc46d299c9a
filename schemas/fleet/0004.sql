-- Fleet schema, version 4: alerts, and who is told of them.

-- Mail address of the person whose machine it is.
ALTER TABLE clients ADD COLUMN owner TEXT;

CREATE TABLE alerts (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    -- overdue, failing, group-silent, lost, clone, rollout-halted, storage-full
    kind          TEXT    NOT NULL,
    client        BLOB    REFERENCES clients (id) ON DELETE CASCADE,
    network_group TEXT,
    raised_at     INTEGER NOT NULL,
    cleared_at    INTEGER,
    -- What is wrong, in a sentence.
    text          TEXT    NOT NULL,
    -- What stands in the way.
    obstacle      TEXT    NOT NULL,
    -- raised, reminder, cleared: what is still to be handed to the channels.
    announce      TEXT
) STRICT;
-- One open alert of a kind about one thing.
CREATE UNIQUE INDEX alerts_open ON alerts (kind, ifnull(client, x''), ifnull(network_group, ''))
    WHERE cleared_at IS NULL;
CREATE INDEX alerts_announce ON alerts (id) WHERE announce IS NOT NULL;

CREATE TABLE deliveries (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    alert       INTEGER NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    -- mail, owner, webhook, command
    channel     TEXT    NOT NULL,
    recipient   TEXT    NOT NULL,
    -- raised, reminder, cleared
    what        TEXT    NOT NULL,
    -- pending, sent, failed
    state       TEXT    NOT NULL,
    tries       INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    next_try_at INTEGER NOT NULL,
    error       TEXT
) STRICT;
CREATE INDEX deliveries_pending ON deliveries (next_try_at) WHERE state = 'pending';
CREATE INDEX deliveries_alert ON deliveries (alert);
