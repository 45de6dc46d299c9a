-- Catalog schema, version 1. A cache of what packs and manifests say; rebuilt by `check --rebuild-index`.

CREATE TABLE meta (
    -- One row.
    only       INTEGER PRIMARY KEY CHECK (only = 1),
    -- Drawn anew whenever the index is rebuilt: agents drop local state of another generation.
    generation BLOB    NOT NULL,
    -- How many rows of the index files count.
    objects    INTEGER NOT NULL,
    members    INTEGER NOT NULL
) STRICT;

CREATE TABLE packs (
    number  INTEGER PRIMARY KEY,
    -- BLAKE3 of the sealed pack; NULL while it is being written to open/<number>.pack.
    name    BLOB,
    class   INTEGER NOT NULL,
    session BLOB    NOT NULL,
    client  BLOB    NOT NULL,
    -- Durable bytes: of an unsealed pack, what is beyond is cut off after a crash.
    bytes   INTEGER NOT NULL,
    objects INTEGER NOT NULL
) STRICT;

CREATE TABLE snapshots (
    id           BLOB    PRIMARY KEY,
    ordinal      INTEGER NOT NULL,
    client       BLOB    NOT NULL,
    client_name  TEXT    NOT NULL,
    sequence     INTEGER NOT NULL,
    -- Seconds since 1970 by the server's clock.
    server_time  INTEGER NOT NULL,
    bytes_stored INTEGER NOT NULL,
    objects_new  INTEGER NOT NULL,
    UNIQUE (client, sequence)
) STRICT, WITHOUT ROWID;

-- Content that a client has shown to possess, until a snapshot of it refers to that.
CREATE TABLE proven (
    client  BLOB    NOT NULL,
    ordinal INTEGER NOT NULL,
    -- -1 for the whole object.
    member  INTEGER NOT NULL,
    PRIMARY KEY (client, ordinal, member)
) STRICT, WITHOUT ROWID;
