-- Catalog schema, version 4: what checks have found, and sums by which a changed row is noticed.

-- Whose catalog it is, and the id of the object with the highest number: the index must be of the same vault and time.
ALTER TABLE meta ADD COLUMN vault BLOB;
ALTER TABLE meta ADD COLUMN newest BLOB;

-- When each sealed pack was last read whole, and what came of it. One that is not here never was.
CREATE TABLE pack_checks (
    pack       BLOB    PRIMARY KEY,
    checked_at INTEGER NOT NULL,
    -- whole, mended, damaged
    result     TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- Objects that were lost, until a client that still has them sends them again.
CREATE TABLE lost (
    ordinal  INTEGER PRIMARY KEY,
    id       BLOB    NOT NULL,
    found_at INTEGER NOT NULL
) STRICT;

-- How often a client has lost something: its agent's state of before is void, so that it reads everything anew.
CREATE TABLE losses (
    client BLOB    PRIMARY KEY,
    times  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The sum of the hashes of each table's rows, kept by triggers of the connection that writes.
CREATE TABLE digests (
    name TEXT    PRIMARY KEY,
    sum  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
