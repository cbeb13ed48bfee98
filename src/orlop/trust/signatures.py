"""Signatures of images, as cosign leaves them in the image's repository.

They are artifacts under the tag `sha256-<hex>.sig`, or with the image as `subject`. Each layer is
either a payload (containers/image "simple signing") whose signature is an annotation, or a sigstore
bundle with a signed in-toto statement (DSSE), by a key or with a certificate (`keyless`). Of what
is found, nothing is believed before a signature over it holds.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from orlop.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    OrlopError,
    PermissionDenied,
)
from orlop.oci import manifest as documents
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.oci.manifest import Manifest
from orlop.oci.reference import canonical_repository
from orlop.registry import RegistryClient
from orlop.trust import keyless
from orlop.trust.signers import Signers

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
# What earlier versions are called; the bundle itself says which it is.
_BUNDLES = frozenset(
    {BUNDLE, *(f"application/vnd.dev.sigstore.bundle+json;version=0.{n}" for n in (1, 2, 3))}
)
ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_STATEMENT = "application/vnd.in-toto+json"
# Other statements about an image, as of where it was built, are no consent to run it.
_CONSENT = "https://sigstore.dev/cosign/sign/v1"
# Where a registry tells what a bundle states, without its being read.
_PREDICATE = "dev.sigstore.bundle.predicateType"

_ARTIFACTS_MAX = 32
_LAYERS_MAX = 64
_SIZE_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Subject:
    """What a signed message says that it is about.

    `digest` is that of the image; `repository` "" where the message does not say.
    """

    digest: str
    repository: str


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature over `message`, and the whole bundle that it came in, if it came in one."""

    message: bytes
    signature: bytes
    subject: Subject
    bundle: bytes = b""


def verify(
    client: RegistryClient,
    target: Descriptor,
    signers: Signers,
    *,
    match_repository: bool = False,
) -> str:
    """Who among `signers` signed the image `target` of the client's repository: key or identity.

    Raises PermissionDenied when none did, and says what was found instead, or why it could not be
    looked for; and what `keyless.verify` raises.
    """
    from orlop.trust.keys import load_keys, made  # noqa: PLC0415 - see there

    trusted = load_keys(signers.keys)
    repository = canonical_repository(client.reference.repository) if match_repository else ""
    wanted = Subject(target.digest, repository)
    others: list[str] = []
    for artifacts in _artifacts(client, target, others):
        bundles: list[bytes] = []
        for found in _signatures(client, artifacts, others):
            if another := _another(found.subject, wanted):
                others.append(another)
                continue
            for file, key in trusted:
                if made(key, found.signature, found.message):
                    return str(file)
            if found.bundle and signers.identities:
                bundles.append(found.bundle)
            else:
                others.append("one is by another key")
        if signer := _keyless(bundles, signers, wanted, others):
            return signer
    why = "; ".join(dict.fromkeys(others)) or "there is none"
    by = " or ".join(
        kind for kind, known in (("key", signers.keys), ("identity", signers.identities)) if known
    )
    raise PermissionDenied(
        f'image "{client.reference}" with digest {target.digest} has no signature by a trusted '
        f"{by}: {why}"
    )


def _keyless(bundles: list[bytes], signers: Signers, wanted: Subject, others: list[str]) -> str:
    """The identity that signed one of the bundles, or "" and why not in `others`."""
    if not bundles or signers.trusted_root is None:
        return ""
    for verdict in keyless.verify(bundles, signers.identities, signers.trusted_root):
        if verdict.error:
            others.append(f"one is by no trusted identity: {verdict.error}")
            continue
        # Read again, from what the library says was signed: parsers may disagree on a bundle.
        try:
            another = _another(_statement(verdict.payload_type, verdict.payload), wanted)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            another = "one is malformed"
        if not another:
            return verdict.signer
        others.append(another)
    return ""


def _another(subject: Subject, wanted: Subject) -> str:
    """What a signature is for instead of what is wanted; "" if it is for that."""
    if subject.digest != wanted.digest:
        return f"one is of {subject.digest}"
    if wanted.repository and subject.repository != wanted.repository:
        return f'one is for the repository "{subject.repository}"'
    return ""


def _signatures(
    client: RegistryClient, artifacts: Sequence[Descriptor], others: list[str]
) -> Iterator[Signature]:
    """Those that can be read; what is wrong with the rest goes to `others`."""
    if len(artifacts) > _ARTIFACTS_MAX:
        others.append(f"{len(artifacts) - _ARTIFACTS_MAX} more were not looked at")
    for artifact in artifacts[:_ARTIFACTS_MAX]:
        layers: Sequence[Descriptor] = ()
        with _telling(others, "one cannot be read"):
            found = documents.parse(client.fetch_document(artifact), artifact.media_type)
            layers = found.layers[:_LAYERS_MAX] if isinstance(found, Manifest) else ()
        for layer in layers:
            signature = None
            try:
                with _telling(others, "one does not count"):
                    signature = _read(client, layer)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                others.append("one is malformed")
            if signature is not None:
                yield signature


def _artifacts(
    client: RegistryClient, target: Descriptor, others: list[str]
) -> Iterator[Sequence[Descriptor]]:
    """What may hold signatures, in groups. Each is looked for when its turn comes: whoever has
    found what he wants does not depend on hosts that are away."""
    tag = target.digest.replace(":", "-", 1)
    with _telling(others, "its tag of signatures cannot be looked up"), suppress(NotFound):
        yield [client.sibling(tag=f"{tag}.sig").resolve()]
    seen: set[str] = set()
    with _telling(others, "what refers to it cannot be listed"):
        for group in client.referrers(target.digest):
            fresh = {each.digest: each for each in group if each.digest not in seen}
            seen |= fresh.keys()
            yield [each for each in fresh.values() if _may_sign(each)]


def _may_sign(artifact: Descriptor) -> bool:
    """Whether it is worth reading: attestations may be many, and look like signatures else."""
    return (
        artifact.artifact_type in _BUNDLES | {ARTIFACT}
        and artifact.media_type in mediatypes.MANIFESTS
        and artifact.annotations.get(_PREDICATE, _CONSENT) == _CONSENT
    )


@contextmanager
def _telling(others: list[str], what: str) -> Iterator[None]:
    """What fails is told in `others` and goes no further, unless it is that the call is over."""
    try:
        yield
    except (Cancelled, DeadlineExceeded):
        raise
    except OrlopError as error:
        others.append(f"{what}: {error.message}")


def _read(client: RegistryClient, layer: Descriptor) -> Signature | None:
    """A layer's signature; None for a layer that is something else."""
    if layer.media_type != PAYLOAD and layer.media_type not in _BUNDLES:
        return None
    if layer.size > _SIZE_MAX:
        raise InvalidArgument(f"signature {layer.digest} of {layer.size} bytes is too large")
    data = client.fetch_document(layer)
    return _simple(data, layer) if layer.media_type == PAYLOAD else _bundle(data)


def _simple(payload: bytes, layer: Descriptor) -> Signature:
    signature = _base64(layer.annotations[_SIGNATURE])
    critical = json.loads(payload)["critical"]
    digest = Digest.parse(critical["image"]["docker-manifest-digest"])
    named = str(critical.get("identity", {}).get("docker-reference", ""))
    return Signature(payload, signature, Subject(digest, _repository(named)))


def _bundle(data: bytes) -> Signature:
    envelope: dict[str, Any] = json.loads(data)["dsseEnvelope"]
    kind, payload = str(envelope["payloadType"]), _base64(envelope["payload"])
    subject = _statement(kind, payload)
    (signed,) = envelope["signatures"]
    # DSSE protocol, "SIGNATURE DEFINITION": what is signed is this encoding of type and payload.
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    return Signature(message, _base64(signed["sig"]), subject, data)


def _statement(kind: str, payload: bytes) -> Subject:
    """The subject of an in-toto statement; InvalidArgument if it consents to nothing."""
    if kind != _STATEMENT:
        raise ValueError(kind)
    statement = json.loads(payload)
    predicate = statement["predicateType"]
    if predicate != _CONSENT:
        raise InvalidArgument(f'it is an attestation of "{predicate}"')
    (subject,) = statement["subject"]
    digest = Digest.parse(f"sha256:{subject['digest']['sha256']}")
    return Subject(digest, _repository(subject.get("name", "")))


def _repository(named: str) -> str:
    """The canonical `host/path` of a reference that may have a tag or digest."""
    name = named.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    return canonical_repository(f"{head}{slash}{tail.partition(':')[0]}")


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
