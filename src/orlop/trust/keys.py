"""Public keys, and whether one made a signature. Loads `cryptography`, so import it late."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from orlop.errors import InvalidArgument

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_FILE_MAX = 64 * 1024


def load_keys(files: Sequence[Path]) -> list[tuple[Path, PublicKey]]:
    """Raises InvalidArgument for a file without a PEM public key of a kind that signs images."""
    return [(file, _load(file)) for file in files]


def _load(file: Path) -> PublicKey:
    try:
        with file.open("rb") as source:
            key = load_pem_public_key(source.read(_FILE_MAX))
    except OSError as error:
        raise InvalidArgument(f'public key "{file}" cannot be read: {error.strerror}') from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidArgument(f'"{file}" holds no public key in PEM: {error}') from None
    if not isinstance(key, PublicKey):
        raise InvalidArgument(f'public key "{file}" is neither of ECDSA, RSA nor Ed25519')
    return key


def made(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether the key's owner signed the message."""
    try:
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(signature, message, ec.ECDSA(_hash(key.curve.key_size)))
            case rsa.RSAPublicKey():
                key.verify(signature, message, padding.PKCS1v15(), SHA256())
            case ed25519.Ed25519PublicKey():
                key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _hash(bits: int) -> HashAlgorithm:
    return SHA256() if bits <= 256 else SHA384() if bits <= 384 else SHA512()
