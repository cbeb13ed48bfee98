-- Schema version 1. Times are UTC nanoseconds since the epoch; `*_any` columns hold a serialized
-- google.protobuf.Any exactly as the client sent it.

CREATE TABLE namespaces (
    name TEXT PRIMARY KEY
) WITHOUT ROWID, STRICT;

-- Labels of every kind of record. `kind` is 'namespace', 'content', 'image', 'container', 'lease',
-- 'sandbox' or 'snapshot/<snapshotter>'; `owner` is the record's key inside its namespace.
CREATE TABLE labels (
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (kind, namespace, owner, key)
) WITHOUT ROWID, STRICT;

-- A blob as a namespace sees it. The bytes are shared: one file per digest.
CREATE TABLE content (
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, digest)
) WITHOUT ROWID, STRICT;
CREATE INDEX content_by_digest ON content (digest);

-- A write in progress. `directory` is its folder's name under content/ingest.
CREATE TABLE ingests (
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    ref TEXT NOT NULL,
    directory TEXT NOT NULL UNIQUE,
    expected TEXT NOT NULL DEFAULT '',
    total INTEGER NOT NULL DEFAULT 0,
    started_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (namespace, ref)
) WITHOUT ROWID, STRICT;

CREATE TABLE images (
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    name TEXT NOT NULL,
    media_type TEXT NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    annotations TEXT NOT NULL DEFAULT '{}', -- JSON object of the target descriptor's annotations
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID, STRICT;
CREATE INDEX images_by_digest ON images (namespace, digest);

CREATE TABLE containers (
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    id TEXT NOT NULL,
    image TEXT NOT NULL DEFAULT '',
    runtime TEXT NOT NULL,
    runtime_options_any BLOB,
    spec_any BLOB NOT NULL,
    snapshotter TEXT NOT NULL DEFAULT '',
    snapshot_key TEXT NOT NULL DEFAULT '',
    sandbox TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
) STRICT;

CREATE TABLE container_extensions (
    namespace TEXT NOT NULL,
    container TEXT NOT NULL,
    key TEXT NOT NULL,
    value_any BLOB NOT NULL,
    PRIMARY KEY (namespace, container, key),
    FOREIGN KEY (namespace, container) REFERENCES containers (namespace, id) ON DELETE CASCADE
) WITHOUT ROWID, STRICT;

-- `id` never comes back: it names the snapshot's folder.
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    snapshotter TEXT NOT NULL,
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    key TEXT NOT NULL,
    parent INTEGER REFERENCES snapshots (id),
    kind INTEGER NOT NULL, -- 1 view, 2 active, 3 committed, as on the wire
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    size INTEGER NOT NULL DEFAULT 0, -- bytes and inodes of a committed snapshot
    inodes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (snapshotter, namespace, key)
) STRICT;
CREATE INDEX snapshots_by_parent ON snapshots (parent);

CREATE TABLE leases (
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
) WITHOUT ROWID, STRICT;

-- `type` is 'content', 'ingests', 'images' or 'snapshots/<snapshotter>'.
CREATE TABLE lease_resources (
    namespace TEXT NOT NULL,
    lease TEXT NOT NULL,
    type TEXT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (namespace, lease, type, id),
    FOREIGN KEY (namespace, lease) REFERENCES leases (namespace, id) ON DELETE CASCADE
) WITHOUT ROWID, STRICT;
