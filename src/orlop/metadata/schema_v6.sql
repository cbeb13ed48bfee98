-- Schema version 6: mounts that the daemon makes itself.
--
-- `made` is null while they are being made; then it is JSON of those that were, and of the rest.

CREATE TABLE mounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    made TEXT,
    UNIQUE (namespace, name)
) STRICT;

DROP TRIGGER gc_lease_lets_go;
CREATE TRIGGER gc_lease_lets_go AFTER DELETE ON lease_resources
WHEN OLD.type IN ('networks', 'netns', 'mounts')
    OR EXISTS (SELECT 1 FROM content WHERE namespace = OLD.namespace AND digest = OLD.id)
    OR EXISTS (SELECT 1 FROM snapshots WHERE namespace = OLD.namespace AND key = OLD.id)
    OR EXISTS (SELECT 1 FROM images WHERE namespace = OLD.namespace AND name = OLD.id)
    OR EXISTS (SELECT 1 FROM ingests WHERE namespace = OLD.namespace AND ref = OLD.id) BEGIN
    INSERT INTO gc_log (namespace, name, lost) VALUES (OLD.namespace, OLD.id, 1);
END;

CREATE TRIGGER gc_mount_comes AFTER UPDATE OF made ON mounts BEGIN
    INSERT INTO gc_log (namespace, name, lost) VALUES (NEW.namespace, NEW.name, 0);
END;
