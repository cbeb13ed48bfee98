-- Schema version 5: networks on interfaces of the host, and limits to the rate of containers.

ALTER TABLE networks ADD COLUMN mode TEXT NOT NULL DEFAULT ''; -- of macvlan and ipvlan

-- Bits in a second into the container and out of it, and bytes at once; 0 is without limit.
ALTER TABLE network_endpoints ADD COLUMN rate_in INTEGER NOT NULL DEFAULT 0;
ALTER TABLE network_endpoints ADD COLUMN rate_out INTEGER NOT NULL DEFAULT 0;
ALTER TABLE network_endpoints ADD COLUMN burst INTEGER NOT NULL DEFAULT 0;
