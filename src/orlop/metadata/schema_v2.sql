-- Schema version 2: sandboxes, groups of containers that share what a shim gives them.

CREATE TABLE sandboxes (
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    id TEXT NOT NULL,
    runtime TEXT NOT NULL,
    runtime_options_any BLOB,
    spec_any BLOB,
    sandboxer TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
) STRICT;

CREATE TABLE sandbox_extensions (
    namespace TEXT NOT NULL,
    sandbox TEXT NOT NULL,
    key TEXT NOT NULL,
    value_any BLOB NOT NULL,
    PRIMARY KEY (namespace, sandbox, key),
    FOREIGN KEY (namespace, sandbox) REFERENCES sandboxes (namespace, id) ON DELETE CASCADE
) WITHOUT ROWID, STRICT;
