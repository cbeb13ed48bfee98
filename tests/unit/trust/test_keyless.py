"""Sigstore bundles, checked by the library in its process against a root of the tests' own."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orlop.errors import InvalidArgument
from orlop.trust.keyless import verify
from orlop.trust.signers import Identity
from tests.sigstore_fixture import STATEMENT, Sigstore, statement

WHO = "https://ci.example/team/app/release@refs/tags/v1"
ISSUER = "https://login.example"
PAYLOAD = statement("sha256:" + "a" * 64)
OURS = [Identity("https://ci.example/team/*", ISSUER)]


@pytest.fixture(scope="module")
def sigstore() -> Sigstore:
    return Sigstore()


@pytest.fixture
def root(sigstore: Sigstore, tmp_path: Path) -> Path:
    return sigstore.root(tmp_path / "root.json")


def _json(bundle: dict[str, Any]) -> bytes:
    return json.dumps(bundle).encode()


def test_a_trusted_identity(sigstore: Sigstore, root: Path) -> None:
    bundles = [
        _json(sigstore.sign(PAYLOAD, WHO, ISSUER)),
        _json(sigstore.sign(PAYLOAD, "me@example.org", ISSUER)),
    ]
    identities = [*OURS, Identity("me@example.org", ISSUER)]
    first, second = verify(bundles, identities, root)
    assert not first.error
    assert first.signer == f"{WHO} ({ISSUER})"
    assert (first.payload_type, first.payload) == (STATEMENT, PAYLOAD)
    assert second.signer == f"me@example.org ({ISSUER})"


@pytest.mark.parametrize(
    ("who", "issuer"),
    [
        ("https://ci.example/other/app", ISSUER),
        (WHO, "https://login.example.evil"),
        ("https://evil.example/?https://ci.example/team/", ISSUER),
        ("me@example.org", ISSUER),
    ],
)
def test_somebody_else(sigstore: Sigstore, root: Path, who: str, issuer: str) -> None:
    (verdict,) = verify([_json(sigstore.sign(PAYLOAD, who, issuer))], OURS, root)
    assert f"its certificate is of {who}" in verdict.error
    assert not verdict.payload


def _forge_payload(bundle: dict[str, Any]) -> None:
    bundle["dsseEnvelope"]["payload"] = "e30="


def _drop_log(bundle: dict[str, Any]) -> None:
    bundle["verificationMaterial"]["tlogEntries"] = []


def _drop_promise(bundle: dict[str, Any]) -> None:
    del bundle["verificationMaterial"]["tlogEntries"][0]["inclusionPromise"]


def _move_time(bundle: dict[str, Any]) -> None:
    entry = bundle["verificationMaterial"]["tlogEntries"][0]
    entry["integratedTime"] = str(int(entry["integratedTime"]) + 1)


def _drop_certificate(bundle: dict[str, Any]) -> None:
    del bundle["verificationMaterial"]["certificate"]


def _lie_about_tree(bundle: dict[str, Any]) -> None:
    proof = bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
    proof["hashes"] = [proof["rootHash"]]


@pytest.mark.parametrize(
    "spoil",
    [_forge_payload, _drop_log, _drop_promise, _move_time, _drop_certificate, _lie_about_tree],
)
def test_a_spoilt_bundle(
    sigstore: Sigstore, root: Path, spoil: Callable[[dict[str, Any]], None]
) -> None:
    good = sigstore.sign(PAYLOAD, WHO, ISSUER)
    bad = copy.deepcopy(good)
    spoil(bad)
    spoilt, whole = verify([_json(bad), _json(good)], OURS, root)
    assert spoilt.error
    assert not spoilt.signer
    assert whole.signer  # one bad bundle does not spoil the next


@pytest.mark.parametrize("part", ["ca_key", "ct_key", "rekor_key"])
def test_another_authority_or_log(sigstore: Sigstore, root: Path, part: str) -> None:
    other = Sigstore(
        root_key=sigstore.root_key, ca_key=sigstore.ca_key,
        ct_key=sigstore.ct_key, rekor_key=sigstore.rekor_key,
    )  # fmt: skip
    setattr(other, part, getattr(Sigstore(), part))
    (verdict,) = verify([_json(other.sign(PAYLOAD, WHO, ISSUER))], OURS, root)
    assert verdict.error


def test_a_certificate_that_had_ended(sigstore: Sigstore, root: Path) -> None:
    (verdict,) = verify([_json(sigstore.sign(PAYLOAD, WHO, ISSUER, late=True))], OURS, root)
    assert verdict.error


def test_an_entry_of_another_signature(sigstore: Sigstore, root: Path) -> None:
    mine, other = (sigstore.sign(PAYLOAD, WHO, ISSUER) for _ in range(2))
    mine["verificationMaterial"]["tlogEntries"] = other["verificationMaterial"]["tlogEntries"]
    (verdict,) = verify([_json(mine)], OURS, root)
    assert "do not match" in verdict.error


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\xff", b'{"mediaType": 5}'])
def test_rubbish(root: Path, data: bytes) -> None:
    (verdict,) = verify([data], OURS, root)
    assert verdict.error


def test_a_root_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"none\.json.*No such file"):
        verify([b"{}"], OURS, tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InvalidArgument, match=r"trusted root .*bad\.json"):
        verify([b"{}"], OURS, tmp_path / "bad.json")
