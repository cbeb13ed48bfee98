"""Chain IDs: the name of a stack of layers (OCI image spec, config.md, "Layer ChainID")."""

from __future__ import annotations

from collections.abc import Iterable

from orlop.oci.digest import Digest


def chain_ids(diff_ids: Iterable[str]) -> list[Digest]:
    """The chain ID of each layer with all below it, lowest first."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        link = Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else Digest.parse(diff_id)
        chain.append(link)
    return chain
