-- Fleet schema, version 9: runs that somebody ended are `interrupted` and have not `failed`.

UPDATE runs SET state = 'interrupted'
WHERE state = 'failed'
  AND (why LIKE 'cut short on the client: %' OR why LIKE 'backups of this client are paused on the server%');
