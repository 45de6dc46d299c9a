-- Fleet schema, version 10: what a client's sessions have added that did not come to a snapshot yet.

CREATE TABLE unfinished (
    client       BLOB    PRIMARY KEY,
    -- As in profiles.
    bytes_new    INTEGER NOT NULL,
    bytes_packed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
