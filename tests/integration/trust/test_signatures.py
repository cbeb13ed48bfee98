"""Policies that require signatures, made here as cosign makes them, in Debian's docker-registry."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384

from orlop.cli.main import main
from orlop.client.pull import pull_image
from orlop.errors import OrlopError, PermissionDenied
from orlop.oci import reference
from orlop.oci.descriptor import Descriptor
from orlop.registry import Http, RegistryClient
from orlop.registry.host import Host
from orlop.trust.signatures import BUNDLE, PAYLOAD, verify
from orlop.trust.signers import Identity, Signers
from tests.daemon_fixture import Orlopd
from tests.lying_registry import INDEX, MANIFEST, digest_of
from tests.registry_fixture import free_port, run_registry, skopeo_copy
from tests.sigstore_fixture import CONSENT, STATEMENT, Sigstore, pre_authentication, statement
from tests.spoiling_proxy import SpoilingProxy

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

EMPTY = {
    "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2,
}  # fmt: skip


def _sign(key: Key, message: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), SHA256())
    return key.sign(message, ec.ECDSA(SHA384() if key.curve.key_size == 384 else SHA256()))


def _public(key: Key, file: Path) -> Path:
    file.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return file


class Signer:
    """Signs an image in a registry, and spoils it as told."""

    def __init__(self, client: RegistryClient, folder: Path) -> None:
        self.client = client
        self.target = client.resolve()
        self._folder = folder

    def _put(self, data: bytes) -> dict[str, Any]:
        file = self._folder / "blob"
        file.write_bytes(data)
        wanted = Descriptor(media_type="x", digest=digest_of(data), size=len(data))
        fd = os.open(file, os.O_RDONLY)
        try:
            self.client.uploads().blob(wanted, fd, sent=lambda _: None)
        finally:
            os.close(fd)
        return {"digest": wanted.digest, "size": wanted.size}

    def _artifact(self, layers: list[dict[str, Any]], name: str = "", **more: Any) -> bytes:
        self._put(b"{}")
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST, "config": EMPTY, "layers": layers, **more,
        }  # fmt: skip
        data = json.dumps(manifest).encode()
        self.client.uploads().manifest(name or digest_of(data), data, MANIFEST)
        return data

    def _payload(self, digest: str, repository: str) -> bytes:
        image = {"docker-manifest-digest": digest}
        identity = {"docker-reference": repository}
        return json.dumps({"critical": {"identity": identity, "image": image}}).encode()

    def simple(
        self, key: Key, *, digest: str = "", repository: str = "", signature: str = ""
    ) -> None:
        """Under the tag, as `cosign sign --key` does."""
        payload = self._payload(digest or self.target.digest, repository)
        made = signature or base64.b64encode(_sign(key, payload)).decode()
        notes = {"dev.cosignproject.cosign/signature": made}
        layer = {"mediaType": PAYLOAD, **self._put(payload), "annotations": notes}
        self._artifact([layer], self.target.digest.replace(":", "-") + ".sig")

    def bundle(self, key: Key, predicate: str = CONSENT) -> None:
        """With the image as subject, as newer ones do."""
        payload = statement(self.target.digest, predicate)
        signature = _sign(key, pre_authentication(payload))
        envelope = {
            "payloadType": STATEMENT, "payload": base64.b64encode(payload).decode(),
            "signatures": [{"sig": base64.b64encode(signature).decode()}],
        }  # fmt: skip
        self.attach({"dsseEnvelope": envelope})

    def attach(self, bundle: dict[str, Any], kind: str = BUNDLE) -> None:
        """A sigstore bundle that refers to the image."""
        layer = {"mediaType": kind, **self._put(json.dumps(bundle).encode())}
        subject = {
            "mediaType": self.target.media_type, "digest": self.target.digest,
            "size": self.target.size,
        }  # fmt: skip
        data = self._artifact([layer], artifactType=kind, subject=subject)
        entry = {
            "mediaType": MANIFEST, "digest": digest_of(data), "size": len(data),
            "artifactType": kind,
        }  # fmt: skip
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
        tag = self.target.digest.replace(":", "-")
        self.client.uploads().manifest(tag, json.dumps(index).encode(), INDEX)


@pytest.fixture
def host(tmp_path: Path, layout: Path) -> Iterator[str]:
    (tmp_path / "registry").mkdir()
    with run_registry(tmp_path / "registry") as name:
        skopeo_copy(f"oci:{layout}:latest", f"docker://{name}/team/app:1")
        yield name


@pytest.fixture
def signer(host: str, tmp_path: Path) -> Iterator[Signer]:
    with Http() as http:
        yield Signer(RegistryClient(reference.parse(f"{host}/team/app:1"), http=http), tmp_path)


def _verify(signer: Signer, *keys: Path, match_repository: bool = False) -> str:
    signers = Signers(keys)
    return verify(signer.client, signer.target, signers, match_repository=match_repository)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-256", "P-384", "RSA", "Ed25519"],
)
@pytest.mark.parametrize("how", ["simple", "bundle"])
def test_a_signature_by_a_trusted_key(signer: Signer, tmp_path: Path, key: Key, how: str) -> None:
    getattr(signer, how)(key)
    other = _public(ec.generate_private_key(ec.SECP256R1()), tmp_path / "other.pub")
    mine = _public(key, tmp_path / "mine.pub")
    assert _verify(signer, other, mine) == str(mine)
    with pytest.raises(PermissionDenied, match="no signature by a trusted key: one is by another"):
        _verify(signer, other)


def test_signatures_that_are_none(signer: Signer, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    mine = _public(key, tmp_path / "mine.pub")
    with pytest.raises(PermissionDenied, match="there is none") as caught:
        _verify(signer, mine)
    assert signer.target.digest in str(caught.value)
    signer.simple(key, digest=digest_of(b"another image"))
    with pytest.raises(PermissionDenied, match=f"one is of {digest_of(b'another image')}"):
        _verify(signer, mine)
    signer.simple(key, signature="no base64!")
    with pytest.raises(PermissionDenied, match="malformed"):
        _verify(signer, mine)
    signer.simple(key, signature=base64.b64encode(b"noise").decode())
    with pytest.raises(PermissionDenied, match="another key"):
        _verify(signer, mine)


def test_a_signature_for_another_repository(signer: Signer, host: str, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    mine = _public(key, tmp_path / "mine.pub")
    signer.simple(key, repository="example.com/elsewhere:1")
    assert _verify(signer, mine) == str(mine)
    with pytest.raises(PermissionDenied, match=r'the repository "example\.com/elsewhere"'):
        _verify(signer, mine, match_repository=True)
    signer.simple(key, repository="index.docker.io/team/app")  # as cosign has it
    with Http() as http:
        name = reference.parse("docker.io/team/app:1")
        hub = RegistryClient(name, http=http, hosts=[Host("http", host)])
        assert verify(hub, signer.target, Signers((mine,)), match_repository=True) == str(mine)
    signer.simple(key, repository=f"{host}/team/app")
    assert _verify(signer, mine, match_repository=True) == str(mine)


def test_an_attestation_is_no_signature(signer: Signer, tmp_path: Path) -> None:
    """Who says where an image was built, or what is wrong with it, does not say: run it."""
    key = ec.generate_private_key(ec.SECP256R1())
    mine = _public(key, tmp_path / "mine.pub")
    signer.bundle(key, "https://slsa.dev/provenance/v1")
    with pytest.raises(PermissionDenied, match=r"an attestation of .*slsa"):
        _verify(signer, mine)


def test_keyless(signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sigstore = Sigstore()
    root = sigstore.root(tmp_path / "root.json")
    us = Identity("https://ci.example/team/*", "https://login.example")
    signers = Signers((), (us,), root)
    who = "https://ci.example/team/app"

    def sign(digest: str, name: str, predicate: str = CONSENT) -> None:
        signer.attach(sigstore.sign(statement(digest, predicate), name, us.issuer))

    sign(signer.target.digest, "https://ci.example/others/app")
    with pytest.raises(
        PermissionDenied, match=r"trusted identity: .*of https://ci\.example/others"
    ):
        verify(signer.client, signer.target, signers)
    sign(digest_of(b"another image"), who)
    with pytest.raises(PermissionDenied, match=f"one is of {digest_of(b'another image')}"):
        verify(signer.client, signer.target, signers)
    sign(signer.target.digest, who, "https://slsa.dev/provenance/v1")
    with pytest.raises(PermissionDenied, match="an attestation"):
        verify(signer.client, signer.target, signers)

    sign(signer.target.digest, who)
    assert verify(signer.client, signer.target, signers) == f"{who} ({us.issuer})"
    mine = _public(ec.generate_private_key(ec.SECP256R1()), tmp_path / "mine.pub")
    both = Signers((mine,), (us,), root)
    assert verify(signer.client, signer.target, both) == f"{who} ({us.issuer})"
    with pytest.raises(PermissionDenied, match="by a trusted key: one is by another key"):
        verify(signer.client, signer.target, Signers((mine,)))

    name = str(signer.client.reference)
    by = ["image", "verify", "--identity", us.name, "--issuer", us.issuer]
    assert main([*by, "--trusted-root", str(root), name]) == 0
    expected = f"{name}@{signer.target.digest} is signed by {who} ({us.issuer})\n"
    assert capsys.readouterr().out == expected
    assert main([*by, name]) == 1
    assert "--trusted-root need each other" in capsys.readouterr().err
    assert main(["image", "verify", name]) == 1
    assert "whose signature?" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
def test_keyless_of_an_earlier_version(signer: Signer, tmp_path: Path, version: str) -> None:
    sigstore = Sigstore()
    us = Identity("me@example.org", "https://login.example")
    bundle = sigstore.sign(statement(signer.target.digest), us.name, us.issuer)
    kind = bundle["mediaType"] = f"application/vnd.dev.sigstore.bundle+json;version={version}"
    if version != "0.3":
        material = bundle["verificationMaterial"]
        material["x509CertificateChain"] = {"certificates": [material.pop("certificate")]}
    signer.attach(bundle, kind)
    signers = Signers((), (us,), sigstore.root(tmp_path / "root.json"))
    assert verify(signer.client, signer.target, signers) == f"{us.name} ({us.issuer})"


@pytest.mark.parametrize("how", ["simple", "bundle"])
def test_where_only_a_mirror_can_be_reached(
    signer: Signer, host: str, tmp_path: Path, how: str
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    getattr(signer, how)(key)
    mine = _public(key, tmp_path / "mine.pub")
    other = _public(ec.generate_private_key(ec.SECP256R1()), tmp_path / "other.pub")
    asked: list[str] = []
    away = f"127.0.0.1:{free_port()}"
    hosts = [Host("http", host, namespace="registry.test"), Host("http", away)]
    name = reference.parse("registry.test/team/app:1")
    with Http(answered=lambda host, _: asked.append(host)) as http:
        client = RegistryClient(name, http=http, hosts=hosts)
        assert verify(client, client.resolve(), Signers((mine,))) == str(mine)
        assert (away in asked) == (how == "bundle")  # which the tag is looked up before
        with pytest.raises(PermissionDenied, match=r"one is by another key.* does not answer"):
            verify(client, client.resolve(), Signers((other,)))


@pytest.mark.parametrize("status", [400, 403, 500])
def test_a_registry_that_refuses_to_list_what_refers(
    signer: Signer, host: str, tmp_path: Path, status: int
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    mine = _public(key, tmp_path / "mine.pub")
    proxy = SpoilingProxy(host)
    proxy.spoil = lambda request: "/referrers/" in request.path and request.answer(status)
    try:
        with Http() as http:
            client = RegistryClient(reference.parse(f"{proxy.host}/team/app:1"), http=http)
            with pytest.raises(PermissionDenied, match=f"cannot be listed: .* status {status}"):
                verify(client, signer.target, Signers((mine,)))
            signer.bundle(key)  # and lists it under a tag
            assert verify(client, signer.target, Signers((mine,))) == str(mine)
            signer.simple(key)
            proxy.requests.clear()
            assert verify(client, signer.target, Signers((mine,))) == str(mine)
            assert not [path for _, path, _ in proxy.requests if "/referrers/" in path]
    finally:
        proxy.close()


@pytest.mark.parametrize("told", [True, False])
def test_a_signature_among_many_attestations(
    signer: Signer, host: str, tmp_path: Path, told: bool
) -> None:
    """A registry that tells what bundles state is not asked for each of them."""
    key = ec.generate_private_key(ec.SECP256R1())
    mine = _public(key, tmp_path / "mine.pub")
    signer.bundle(key)
    listed = signer.client.uploads().document(signer.target.digest.replace(":", "-"), INDEX)
    assert listed is not None
    (signature,) = json.loads(listed)["manifests"]
    kind = "dev.sigstore.bundle.predicateType"
    attestations = [
        {**signature, "digest": digest_of(f"{at}".encode()),
         "annotations": {kind: "https://slsa.dev/provenance/v1"} if told else {}}
        for at in range(40)
    ]  # fmt: skip
    index = {
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [*attestations, {**signature, "annotations": {kind: CONSENT}}],
    }  # fmt: skip
    page = json.dumps(index).encode()
    proxy = SpoilingProxy(host)
    proxy.spoil = lambda request: "/referrers/" in request.path and request.answer(200, page)
    try:
        with Http() as http:
            client = RegistryClient(reference.parse(f"{proxy.host}/team/app:1"), http=http)
            if told:
                assert verify(client, signer.target, Signers((mine,))) == str(mine)
            else:
                with pytest.raises(PermissionDenied, match="9 more were not looked at"):
                    verify(client, signer.target, Signers((mine,)))
    finally:
        proxy.close()


def test_the_command(signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    mine, name = _public(key, tmp_path / "mine.pub"), str(signer.client.reference)
    assert main(["image", "verify", "--key", str(mine), name]) == 1
    assert "there is none" in capsys.readouterr().err
    signer.simple(key)
    assert main(["image", "verify", "--key", str(mine), name]) == 0
    out = capsys.readouterr().out
    assert out == f"{name}@{signer.target.digest} is signed by {mine}\n"
    (tmp_path / "no.pub").write_text("nothing")
    assert main(["image", "verify", "--key", str(tmp_path / "no.pub"), name]) == 1
    assert "holds no public key" in capsys.readouterr().err


@pytest.mark.root
def test_pulls_by_policy(host: str, signer: Signer, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    _public(key, tmp_path / "team.pub")
    policy, config = tmp_path / "trust.toml", tmp_path / "config.toml"
    config.write_text(f'[trust]\npolicy = "{policy}"\n')
    daemon = Orlopd(["--config", str(config)])
    name = f"{host}/team/app:1"
    try:
        daemon.start()
        with daemon.connect() as connection:
            policy.write_text(
                f'[[policy]]\nrepository = "{host}/team/*"\naction = "require"\n'
                'keys = ["team.pub"]\n'
            )
            with pytest.raises(PermissionDenied, match="there is none"):
                pull_image(connection, name)
            assert daemon.ctr("content", "ls", "-q").stdout == ""
            policy.write_text('default = "reject"\n')
            with pytest.raises(PermissionDenied, match="rejected by the policy"):
                pull_image(connection, name)
            policy.write_text("[[policy]]\n")
            with pytest.raises(OrlopError, match=r"policy\[0\].action must be one of"):
                pull_image(connection, name)
            policy.write_text(
                f'default = "reject"\n[[policy]]\nrepository = "{host}/team/*"\n'
                'action = "require"\nkeys = ["team.pub"]\n'
            )
            signer.simple(key)
            pull_image(connection, name)
            policy.write_text(
                f'[[policy]]\nrepository = "{host}/team/*"\naction = "require"\n'
                'identities = [{ identity = "me@example.org", issuer = "https://login.example" }]\n'
                'trusted_root = "root.json"\n'
            )
            sigstore = Sigstore()
            sigstore.root(tmp_path / "root.json")
            with pytest.raises(PermissionDenied, match="by a trusted identity: one is by another"):
                pull_image(connection, name)
            agreed = statement(signer.target.digest)
            signer.attach(sigstore.sign(agreed, "me@example.org", "https://login.example"))
            pull_image(connection, name)
        assert "me@example.org (https://login.example)" in daemon.log.read_text()
        assert "is signed by" in daemon.log.read_text()
        daemon.close()
    finally:
        daemon.discard()
