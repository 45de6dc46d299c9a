-- Catalog schema, version 2: marks. A cache of the mark files beside the manifests.

CREATE TABLE marks (
    client    BLOB    NOT NULL,
    sequence  INTEGER NOT NULL,
    id        BLOB    NOT NULL,
    -- 0 kept, 1 pinned, 2 forgotten
    state     INTEGER NOT NULL,
    -- Seconds since 1970 by the server's clock.
    marked_at INTEGER NOT NULL,
    -- Nights that the vault had counted.
    night     INTEGER NOT NULL,
    -- Seconds for which a forgotten snapshot can be had back.
    grace     INTEGER NOT NULL,
    reason    TEXT    NOT NULL,
    PRIMARY KEY (client, sequence)
) STRICT, WITHOUT ROWID;
