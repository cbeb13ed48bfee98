"""All credentials of a user: several files, the first of which is written, and their helpers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from orlop.credentials.file import CredentialFile
from orlop.credentials.model import Credential, server_key


class Keyring:
    """The credentials in `files` and the helpers that they name; the first match counts."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = [CredentialFile(path) for path in files]

    @classmethod
    def of_user(cls) -> Keyring:
        """Docker's file, then Podman's, where their environment variables say."""
        env = os.environ
        docker = Path(env.get("DOCKER_CONFIG") or Path.home() / ".docker")
        files = [docker / "config.json"]
        if path := env.get("REGISTRY_AUTH_FILE"):
            files.append(Path(path))
        if folder := env.get("XDG_RUNTIME_DIR"):
            files.append(Path(folder) / "containers" / "auth.json")
        return cls(files)

    @property
    def path(self) -> Path:
        """The file that is written."""
        return self._files[0].path

    def find(self, registry: str, repository: str = "") -> Credential | None:
        """The credential for a registry; a file may have one for a part of it.

        Raises InvalidArgument for a malformed file or a helper's garbage, and what helpers raise.
        """
        for file in self._files:
            if name := file.helper(registry):
                from orlop.credentials.helper import Helper  # noqa: PLC0415 - it starts processes

                if found := Helper(name).get(server_key(registry)):
                    return found
            if found := file.find(registry, repository):
                return found
        return None

    def store(self, registry: str, credential: Credential) -> str:
        """Keep a credential where the first file says; what keeps it."""
        file = self._files[0]
        name = file.helper(registry)
        if not name:
            file.store(registry, credential)
            return str(file.path)
        from orlop.credentials.helper import Helper  # noqa: PLC0415

        helper = Helper(name)
        helper.store(server_key(registry), credential)
        file.store(registry, None)
        return helper.program

    def erase(self, registry: str) -> bool:
        """Forget what `store` keeps; whether there was anything."""
        file = self._files[0]
        known = False
        if name := file.helper(registry):
            from orlop.credentials.helper import Helper  # noqa: PLC0415

            helper = Helper(name)
            known = helper.get(server_key(registry)) is not None
            helper.erase(server_key(registry))
        return file.erase(registry) or known
