"""Who may have signed an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody whom an identity provider knows, as the certificate of a keyless signature says.

    `name` is a pattern (`*`, `?` and `[…]`, across slashes) of the certificate's subject
    alternative name, an e-mail address or a URI; `issuer` is the provider's URL, to the letter.
    """

    name: str
    issuer: str


@dataclass(frozen=True, slots=True)
class Signers:
    """Any of `keys` (files of PEM public keys) or of `identities`.

    Identities need `trusted_root`: a file with sigstore's JSON of the authorities and logs that
    vouch for them.
    """

    keys: tuple[Path, ...] = ()
    identities: tuple[Identity, ...] = ()
    trusted_root: Path | None = None


NOBODY = Signers()
