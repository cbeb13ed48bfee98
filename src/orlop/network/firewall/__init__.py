"""The packet filter of the host: what goes between networks, out of them, and in by ports.

A `Ruleset` says what there is; `Firewall` makes it so, by nftables (`nftables`) or, where that does
not work, by iptables (`iptables`). Both write all of it whenever something changes, so that the
kernel has what the records say. `libnftables` and `xtables` are for the network worker alone.
"""

from orlop.network.firewall.choosing import AUTO, Backend, Firewall
from orlop.network.firewall.passage import no_dockers
from orlop.network.firewall.ruleset import Published, Ruleset

__all__ = ["AUTO", "Backend", "Firewall", "Published", "Ruleset", "no_dockers"]
