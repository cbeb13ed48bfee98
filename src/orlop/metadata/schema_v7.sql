-- Schema version 7: snapshots that another service keeps, and what they are called there.
--
-- A name is here before anything has it there, and until nothing has; one without a snapshot is to
-- be removed.

CREATE TABLE proxied_snapshots (
    snapshotter TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    snapshot INTEGER REFERENCES snapshots (id) ON DELETE SET NULL,
    PRIMARY KEY (snapshotter, namespace, name)
) WITHOUT ROWID, STRICT;
CREATE INDEX proxied_by_snapshot ON proxied_snapshots (snapshot);
