"""The one question of a pull: may this image come in?"""

from __future__ import annotations

import logging
from pathlib import Path

from orlop.errors import PermissionDenied
from orlop.oci.descriptor import Descriptor
from orlop.registry import RegistryClient
from orlop.rpc import CallContext
from orlop.trust import policy
from orlop.trust.signatures import verify
from orlop.trust.verifiers import Verifiers

_log = logging.getLogger(__name__)


class Gate:
    """Asks the operator's policies, which are read for each pull, and then the verifiers."""

    def __init__(self, policies: Path, verifiers: Verifiers) -> None:
        self._policies = policies
        self._verifiers = verifiers

    def check(self, client: RegistryClient, target: Descriptor, ctx: CallContext) -> None:
        """Return if `target`, which is what the client's reference names, may be pulled.

        Raises PermissionDenied with the reason, and what policies and verifiers raise themselves.
        """
        self._ask_policy(client, target)
        self._verifiers.check(str(client.reference), target, ctx)

    def _ask_policy(self, client: RegistryClient, target: Descriptor) -> None:
        reference = client.reference
        found = policy.find(policy.load(self._policies), reference.repository)
        if found.action == policy.REJECT:
            raise PermissionDenied(
                f'image "{reference}" with digest {target.digest} is rejected by the policy for '
                f'"{found.repository}" in "{self._policies}"'
            )
        if found.action == policy.REQUIRE:
            who = verify(client, target, found.signers, match_repository=found.match_repository)
            _log.info('image "%s" with digest %s is signed by "%s"', reference, target.digest, who)
