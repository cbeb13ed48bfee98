"""A sigstore of the tests' own: certificate authority, certificate log and signature log.

It signs without a network, as cosign and the public instance do, and is spoilt as told.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

STATEMENT = "application/vnd.in-toto+json"
CONSENT = "https://sigstore.dev/cosign/sign/v1"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_ISSUER = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_TIMESTAMPS = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_LIFE = timedelta(minutes=10)


def statement(digest: str, predicate: str = CONSENT) -> bytes:
    """The in-toto statement that `cosign sign` makes of an image."""
    hexadecimal = digest.partition(":")[2]
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": hexadecimal}}],
            "predicateType": predicate,
            "predicate": {},
        }
    ).encode()


def pre_authentication(payload: bytes) -> bytes:
    """What is signed of a DSSE envelope."""
    return f"DSSEv1 {len(STATEMENT)} {STATEMENT} {len(payload)} ".encode() + payload


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _key_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(_spki(key)).digest()


def _sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(SHA256()))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign, key_cert_sign=not sign, crl_sign=not sign,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _der_text(text: str) -> bytes:
    data = text.encode()
    assert len(data) < 128
    return bytes([0x0C, len(data)]) + data


@dataclass
class Sigstore:
    """One instance; its `root` is what a verifier is given."""

    root_key: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    ca_key: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    ct_key: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    rekor_key: ec.EllipticCurvePrivateKey = field(default_factory=_key)

    def __post_init__(self) -> None:
        self._began = datetime.now(UTC) - timedelta(days=30)
        root = self._authority("root", self.root_key, "root", self.root_key)
        self._chain = [self._authority("issuing", self.ca_key, "root", self.root_key), root]

    def _authority(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: str,
        issuer_key: ec.EllipticCurvePrivateKey,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._began)
            .not_valid_after(self._began + timedelta(days=365))
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(_usage(sign=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(_authority_key(issuer_key), False)
        )
        return builder.sign(issuer_key, SHA256())

    def root(self, file: Path) -> Path:
        """Write sigstore's trusted root."""
        since = {"start": self._began.strftime("%Y-%m-%dT%H:%M:%SZ")}
        chain = [
            {"rawBytes": _b64(each.public_bytes(serialization.Encoding.DER))}
            for each in self._chain
        ]
        authority = {
            "subject": {"organization": "test", "commonName": "root"},
            "uri": "https://fulcio.invalid",
            "certChain": {"certificates": chain},
            "validFor": since,
        }

        def log(key: ec.EllipticCurvePrivateKey, url: str) -> dict[str, Any]:
            return {
                "baseUrl": url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": _b64(_spki(key)),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": since,
                },
                "logId": {"keyId": _b64(_key_id(key))},
            }

        document = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.rekor_key, "https://rekor.invalid")],
            "certificateAuthorities": [authority],
            "ctlogs": [log(self.ct_key, "https://ct.invalid")],
            "timestampAuthorities": [],
        }
        file.write_text(json.dumps(document))
        return file

    def sign(
        self, payload: bytes, identity: str, issuer: str, *, late: bool = False
    ) -> dict[str, Any]:
        """A bundle; a `late` signature reaches the log when the certificate has ended."""
        key = _key()
        now = datetime.now(UTC).replace(microsecond=0)
        certificate = self._leaf(key, identity, issuer, now)
        signature = _sign(key, pre_authentication(payload))
        envelope = {
            "payloadType": STATEMENT,
            "payload": _b64(payload),
            "signatures": [{"sig": _b64(signature)}],
        }
        moment = now + (2 * _LIFE if late else timedelta(0))
        return {
            "mediaType": BUNDLE,
            "verificationMaterial": {
                "certificate": {
                    "rawBytes": _b64(certificate.public_bytes(serialization.Encoding.DER))
                },
                "tlogEntries": [self._entry(certificate, payload, signature, moment)],
            },
            "dsseEnvelope": envelope,
        }

    def _leaf(
        self, key: ec.EllipticCurvePrivateKey, identity: str, issuer: str, now: datetime
    ) -> x509.Certificate:
        name: x509.GeneralName = (
            x509.RFC822Name(identity)
            if "://" not in identity
            else x509.UniformResourceIdentifier(identity)
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(_name("issuing"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=5))
            .not_valid_after(now + _LIFE)
            .add_extension(_usage(sign=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(_authority_key(self.ca_key), False)
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(x509.UnrecognizedExtension(_ISSUER, _der_text(issuer)), False)
        )
        to_log = builder.sign(self.ca_key, SHA256()).tbs_certificate_bytes
        stamp = self._certificate_timestamp(to_log, now)
        return builder.add_extension(
            x509.UnrecognizedExtension(_TIMESTAMPS, stamp), critical=False
        ).sign(self.ca_key, SHA256())

    def _certificate_timestamp(self, to_log: bytes, now: datetime) -> bytes:
        """The log's promise to take a certificate (RFC 6962 section 3.2), as an extension."""
        moment = int(now.timestamp() * 1000)
        entry = _key_id(self.ca_key) + len(to_log).to_bytes(3, "big") + to_log
        signature = _sign(
            self.ct_key, struct.pack("!BBQH", 0, 0, moment, 1) + entry + struct.pack("!H", 0)
        )
        stamp = struct.pack("!B32sQHBBH", 0, _key_id(self.ct_key), moment, 0, 4, 3, len(signature))
        stamp += signature
        listed = struct.pack("!HH", len(stamp) + 2, len(stamp)) + stamp
        assert len(listed) < 128 + 128
        header = bytes([4, len(listed)]) if len(listed) < 128 else bytes([4, 0x81, len(listed)])
        return header + listed

    def _entry(
        self, certificate: x509.Certificate, payload: bytes, signature: bytes, moment: datetime
    ) -> dict[str, Any]:
        """What the log keeps of a signature, with the promise and the proof that it does."""
        hashed = {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()}
        verifier = _b64(certificate.public_bytes(serialization.Encoding.PEM))
        spec = {
            "envelopeHash": hashed,
            "payloadHash": hashed,
            "signatures": [{"signature": _b64(signature), "verifier": verifier}],
        }
        body = json.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}).encode()
        log_id = _key_id(self.rekor_key)
        promised = {
            "body": _b64(body), "integratedTime": int(moment.timestamp()),
            "logID": log_id.hex(), "logIndex": 0,
        }  # fmt: skip
        promise = json.dumps(promised, sort_keys=True, separators=(",", ":")).encode()
        neighbour = hashlib.sha256(b"\0another entry").digest()
        leaf = hashlib.sha256(b"\0" + body).digest()
        root = hashlib.sha256(b"\1" + leaf + neighbour).digest()
        note = f"rekor.invalid - 1\n2\n{_b64(root)}\n"
        signed = _b64(log_id[:4] + _sign(self.rekor_key, note.encode()))
        return {
            "logIndex": "0",
            "logId": {"keyId": _b64(log_id)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(promised["integratedTime"]),
            "inclusionPromise": {"signedEntryTimestamp": _b64(_sign(self.rekor_key, promise))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": _b64(root),
                "treeSize": "2",
                "hashes": [_b64(neighbour)],
                "checkpoint": {"envelope": f"{note}\n— rekor.invalid {signed}\n"},
            },
            "canonicalizedBody": _b64(body),
        }


def _authority_key(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
