-- Fleet schema, version 8: what the server does for the vault by itself and fails at.

CREATE TABLE upkeep (
    -- export, forget, prune, scrub, night
    what  TEXT    PRIMARY KEY,
    -- When it failed first since it last worked, in seconds since 1970.
    since INTEGER NOT NULL,
    -- Why it failed last.
    why   TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
