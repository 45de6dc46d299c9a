-- Fleet schema, version 3: why a client is not being backed up right now, as the scheduler sees it.

ALTER TABLE clients ADD COLUMN why TEXT NOT NULL DEFAULT '';
