-- Schema version 4: what garbage collection goes by.
--
-- Whatever may have become garbage is noted by name as it happens, in the same transaction, so that
-- a collection looks at nothing else. A name stands for all records of a namespace that have it:
-- digests of blobs, keys of snapshots, names of images. `lost` tells the deletion of something that
-- kept others from what is new or was changed.

CREATE TABLE gc_log (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    lost INTEGER NOT NULL
) STRICT;

-- Edges are labels; these are the ways back along them.
CREATE INDEX labels_gc ON labels (namespace, value)
    WHERE key >= 'containerd.io/gc.' AND key < 'containerd.io/gc/';
CREATE INDEX labels_gc_expire ON labels (kind, value) WHERE key = 'containerd.io/gc.expire';
CREATE INDEX lease_resources_by_id ON lease_resources (namespace, id);
CREATE INDEX containers_by_snapshot ON containers (namespace, snapshot_key);
CREATE INDEX snapshots_by_key ON snapshots (namespace, key, snapshotter);
CREATE INDEX ingests_by_expected ON ingests (namespace, expected);

CREATE TRIGGER gc_label_gone AFTER DELETE ON labels
WHEN OLD.key >= 'containerd.io/gc.' AND OLD.key < 'containerd.io/gc/'
    AND OLD.key NOT IN ('containerd.io/gc.expire', 'containerd.io/gc.flat') BEGIN
    -- As with containerd, a change of labels alone is no reason to collect at once.
    INSERT INTO gc_log (namespace, name, lost)
    VALUES (OLD.namespace, OLD.value, 0), (OLD.namespace, OLD.owner, 0);
END;

-- A write that has become a blob, or a snapshot that has got its name, is let go of and lost nothing.
CREATE TRIGGER gc_lease_lets_go AFTER DELETE ON lease_resources
WHEN OLD.type IN ('networks', 'netns')
    OR EXISTS (SELECT 1 FROM content WHERE namespace = OLD.namespace AND digest = OLD.id)
    OR EXISTS (SELECT 1 FROM snapshots WHERE namespace = OLD.namespace AND key = OLD.id)
    OR EXISTS (SELECT 1 FROM images WHERE namespace = OLD.namespace AND name = OLD.id)
    OR EXISTS (SELECT 1 FROM ingests WHERE namespace = OLD.namespace AND ref = OLD.id) BEGIN
    INSERT INTO gc_log (namespace, name, lost) VALUES (OLD.namespace, OLD.id, 1);
END;

CREATE TRIGGER gc_content_comes AFTER INSERT ON content BEGIN
    INSERT INTO gc_log (namespace, name, lost) VALUES (NEW.namespace, NEW.digest, 0);
END;
CREATE TRIGGER gc_content_goes AFTER DELETE ON content BEGIN
    INSERT INTO gc_log (namespace, name, lost) VALUES (OLD.namespace, OLD.digest, 1);
END;

CREATE TRIGGER gc_ingest_goes AFTER DELETE ON ingests WHEN OLD.expected != '' BEGIN
    -- Most often because the blob has come: that is no loss.
    INSERT INTO gc_log (namespace, name, lost) VALUES (OLD.namespace, OLD.expected, 0);
END;

CREATE TRIGGER gc_image_goes AFTER DELETE ON images BEGIN
    INSERT INTO gc_log (namespace, name, lost)
    VALUES (OLD.namespace, OLD.digest, 1), (OLD.namespace, OLD.name, 1);
END;
CREATE TRIGGER gc_image_moves AFTER UPDATE OF digest ON images WHEN OLD.digest != NEW.digest BEGIN
    INSERT INTO gc_log (namespace, name, lost) VALUES (OLD.namespace, OLD.digest, 1);
END;

CREATE TRIGGER gc_container_goes AFTER DELETE ON containers BEGIN
    INSERT INTO gc_log (namespace, name, lost)
    VALUES (OLD.namespace, OLD.snapshot_key, 1), (OLD.namespace, OLD.id, 1);
END;
CREATE TRIGGER gc_container_moves AFTER UPDATE OF snapshot_key ON containers
WHEN OLD.snapshot_key != NEW.snapshot_key BEGIN
    INSERT INTO gc_log (namespace, name, lost) VALUES (OLD.namespace, OLD.snapshot_key, 1);
END;

CREATE TRIGGER gc_sandbox_goes AFTER DELETE ON sandboxes BEGIN
    INSERT INTO gc_log (namespace, name, lost) VALUES (OLD.namespace, OLD.id, 1);
END;

CREATE TRIGGER gc_network_goes AFTER DELETE ON networks BEGIN
    INSERT INTO gc_log (namespace, name, lost)
    VALUES (OLD.namespace, OLD.id, 1), (OLD.namespace, OLD.name, 1);
END;

CREATE TRIGGER gc_snapshot_comes AFTER INSERT ON snapshots BEGIN
    INSERT INTO gc_log (namespace, name, lost) VALUES (NEW.namespace, NEW.key, 0);
END;
CREATE TRIGGER gc_snapshot_moves AFTER UPDATE OF key ON snapshots BEGIN
    INSERT INTO gc_log (namespace, name, lost)
    VALUES (NEW.namespace, NEW.key, 0), (OLD.namespace, OLD.key, 0);
END;
CREATE TRIGGER gc_snapshot_goes AFTER DELETE ON snapshots BEGIN
    INSERT INTO gc_log (namespace, name, lost) VALUES (OLD.namespace, OLD.key, 1);
    INSERT INTO gc_log (namespace, name, lost)
        SELECT namespace, key, 1 FROM snapshots WHERE id = OLD.parent;
END;

-- What is here already has never been looked at.
INSERT INTO gc_log (namespace, name, lost) SELECT namespace, digest, 0 FROM content;
INSERT INTO gc_log (namespace, name, lost) SELECT namespace, key, 0 FROM snapshots;
