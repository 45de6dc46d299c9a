-- Catalog schema, version 3: what keeps objects that no snapshot reaches. Epochs are counted in finished marks.

ALTER TABLE proven ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;

-- Sessions that have written objects and have made no snapshot.
CREATE TABLE uploads (
    session BLOB    PRIMARY KEY,
    client  BLOB    NOT NULL,
    -- When it began to write.
    epoch   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Condemned objects that are needed again, since the file `condemned` of that epoch was written.
CREATE TABLE resurrected (
    epoch   INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    PRIMARY KEY (epoch, ordinal)
) STRICT, WITHOUT ROWID;
