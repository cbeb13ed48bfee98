-- Schema version 8: which addresses of a subnet containers get.

-- '' is all of the subnet.
ALTER TABLE network_subnets ADD COLUMN ip_range TEXT NOT NULL DEFAULT '';
-- A JSON object: addresses that others have, by what they are called.
ALTER TABLE network_subnets ADD COLUMN reserved TEXT NOT NULL DEFAULT '{}';
