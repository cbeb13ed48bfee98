"""The process that checks sigstore bundles: a task on stdin, a report on stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec
from cryptography.x509 import (
    Certificate,
    ExtensionNotFound,
    RFC822Name,
    SubjectAlternativeName,
    UniformResourceIdentifier,
)

from orlop import typed
from orlop.trust.keyless import Report, Task, Verdict
from orlop.trust.signers import Identity

try:
    from sigstore.errors import Error, VerificationError
    from sigstore.models import Bundle, TrustedRoot
    from sigstore.verify import Verifier, policy
except ImportError as missing:
    sys.exit(f"they need the Python library sigstore: install orlop[keyless] ({missing})")


class AnyOf:
    """sigstore's verification policy: the certificate is of one of these; `signer` says of whom."""

    def __init__(self, identities: Sequence[Identity]) -> None:
        self._identities = identities
        self.signer = ""

    def verify(self, cert: Certificate) -> None:
        """Raises VerificationError for a certificate of somebody else."""
        names = _names(cert)
        for each in self._identities:
            match = next((name for name in names if fnmatchcase(name, each.name)), None)
            if match is not None and _issued(cert, each.issuer):
                self.signer = f"{match} ({each.issuer})"
                return
        raise VerificationError(f"its certificate is of {' and '.join(names) or 'nobody'}")


def _names(cert: Certificate) -> list[str]:
    try:
        names = cert.extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return []
    return [
        *names.get_values_for_type(RFC822Name),
        *names.get_values_for_type(UniformResourceIdentifier),
    ]


def _issued(cert: Certificate, issuer: str) -> bool:
    """Whether the provider is this one; where there are both extensions, the newer one counts."""
    wanted: policy.VerificationPolicy = policy.OIDCIssuerV2(issuer)
    try:
        cert.extensions.get_extension_for_oid(policy.OIDCIssuerV2.oid)
    except ExtensionNotFound:
        wanted = policy.OIDCIssuer(issuer)
    try:
        wanted.verify(cert)
    except VerificationError:
        return False
    return True


def judge(verifier: Verifier, bundle: bytes, identities: Sequence[Identity]) -> Verdict:
    """What is to be thought of one bundle."""
    wanted = AnyOf(identities)
    try:
        kind, payload = verifier.verify_dsse(Bundle.from_json(bundle), wanted)
    except Exception as error:  # noqa: BLE001 - hostile input meets parsers that we do not know
        return Verdict(error=str(error) or type(error).__name__)
    return Verdict(signer=wanted.signer, payload_type=kind, payload=payload)


def report(task: Task) -> Report:
    """The verdicts on a task's bundles."""
    try:
        verifier = Verifier(trusted_root=TrustedRoot.from_file(task.trusted_root))
    except (OSError, ValueError, Error) as error:
        return Report(problem=" ".join(str(error).split()))
    return Report([judge(verifier, bundle, task.identities) for bundle in task.bundles])


def main() -> None:
    """Read the task, write the report."""
    task = typed.decode(sys.stdin.buffer.read(), Task)
    sys.stdout.buffer.write(msgspec.json.encode(report(task)))


if __name__ == "__main__":
    main()
