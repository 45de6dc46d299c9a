-- Catalog schema, version 5: the index of version 2, which knows objects by the first 24 bytes of their ids.

-- Version of the index files; one of version 1 is converted when the vault is opened.
ALTER TABLE meta ADD COLUMN index_version INTEGER NOT NULL DEFAULT 1;
-- How many rows of `parents` count.
ALTER TABLE meta ADD COLUMN parents INTEGER NOT NULL DEFAULT 0;
UPDATE meta SET newest = substr(newest, 1, 24);
UPDATE lost SET id = substr(id, 1, 24);
