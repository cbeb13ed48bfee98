-- Schema version 3: networks, and the containers that are in them.

-- `id` never changes; `bridge` is the interface that the network is on the host.
CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL, -- networks do not keep one: they go with it
    name TEXT NOT NULL,
    driver TEXT NOT NULL,
    bridge TEXT NOT NULL UNIQUE,
    internal INTEGER NOT NULL DEFAULT 0,
    mtu INTEGER NOT NULL DEFAULT 0, -- 0 is that of the host's default route
    created_at INTEGER NOT NULL,
    UNIQUE (namespace, name)
) WITHOUT ROWID, STRICT;

-- `last` is the address that was given out last: the search for the next one starts behind it.
CREATE TABLE network_subnets (
    network TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    family INTEGER NOT NULL, -- 4 or 6
    subnet TEXT NOT NULL,
    gateway TEXT NOT NULL,
    last TEXT NOT NULL,
    PRIMARY KEY (network, family)
) WITHOUT ROWID, STRICT;

-- A container in a network; `link` is the host's end of its cable, `inside` the container's.
CREATE TABLE network_endpoints (
    namespace TEXT NOT NULL,
    container TEXT NOT NULL,
    network TEXT NOT NULL REFERENCES networks (id),
    position INTEGER NOT NULL,
    link TEXT NOT NULL UNIQUE,
    inside TEXT NOT NULL,
    mac TEXT NOT NULL,
    aliases TEXT NOT NULL DEFAULT '[]', -- JSON array
    PRIMARY KEY (namespace, container, network)
) WITHOUT ROWID, STRICT;

-- No address is given out twice.
CREATE TABLE network_addresses (
    network TEXT NOT NULL REFERENCES networks (id),
    address TEXT NOT NULL,
    namespace TEXT NOT NULL,
    container TEXT NOT NULL,
    PRIMARY KEY (network, address),
    FOREIGN KEY (namespace, container, network)
        REFERENCES network_endpoints (namespace, container, network) ON DELETE CASCADE
) WITHOUT ROWID, STRICT;
CREATE INDEX network_addresses_by_container ON network_addresses (namespace, container, network);

-- A port of the host that leads to a container, or `count` of them in a row.
CREATE TABLE network_ports (
    namespace TEXT NOT NULL,
    container TEXT NOT NULL,
    protocol TEXT NOT NULL,
    host_address TEXT NOT NULL, -- "" is all of them
    host_port INTEGER NOT NULL,
    container_port INTEGER NOT NULL,
    count INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (namespace, container, protocol, host_address, host_port, container_port)
) WITHOUT ROWID, STRICT;
