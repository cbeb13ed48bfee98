"""Who a user is to a registry: Docker's and Podman's credential files, and credential helpers.

`Keyring.of_user()` is what commands use. It knows nothing of the network or of the daemon.
"""

from orlop.credentials.keyring import Keyring
from orlop.credentials.model import Credential, from_pair

__all__ = ["Credential", "Keyring", "from_pair"]
