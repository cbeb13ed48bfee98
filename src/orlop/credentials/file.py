"""Credential files: Docker's `config.json` and Podman's `auth.json`, which have one form."""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orlop.credentials.model import Credential, from_pair, same_place, server_key
from orlop.errors import FailedPrecondition, InvalidArgument

_FILE_MAX = 4 << 20
_FIELDS = ("auth", "username", "password", "identitytoken", "registrytoken")


class CredentialFile:
    """One file, read anew for each call. Raises InvalidArgument when it makes no sense."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"CredentialFile({str(self.path)!r})"

    def find(self, registry: str, repository: str = "") -> Credential | None:
        """What the file itself has, for a repository or the next wider part that it names."""
        entries = {same_place(key): entry for key, entry in self._section("auths").items()}
        place = same_place(server_key(registry))
        parts = [part for part in repository.split("/") if part]
        for length in range(len(parts), -1, -1):
            entry = entries.get("/".join([place, *parts[:length]]))
            if entry is not None and (found := self._decode(place, entry)):
                return found
        return None

    def helper(self, registry: str) -> str:
        """The name of the program that keeps this registry's credentials, "" for none."""
        place = same_place(server_key(registry))
        own = {same_place(key): name for key, name in self._section("credHelpers").items()}
        name = own.get(place) or self._read().get("credsStore") or ""
        if not isinstance(name, str):
            raise self._malformed(f'the credential helper for "{place}" is not a name')
        return name

    def store(self, registry: str, credential: Credential | None) -> None:
        """Keep a credential; None says that a helper has it.

        Written whole or not at all, readable by its owner alone; what else is in it stays. Raises
        FailedPrecondition when it cannot be written.
        """
        entry: dict[str, str] = {}
        if credential is not None:
            if ":" in credential.username:
                raise InvalidArgument(f'user name "{credential.username}" has a colon in it')
            pair = f"{credential.username}:{credential.secret}".encode()
            entry["auth"] = base64.b64encode(pair).decode()
            if credential.identity_token:
                entry["identitytoken"] = credential.identity_token
        with self._changing() as document:
            entries = document.setdefault("auths", {})
            self._forget(entries, registry)
            entries[server_key(registry)] = entry

    def erase(self, registry: str) -> bool:
        """Forget a registry; whether it was there."""
        if not self._section("auths"):
            return False
        with self._changing() as document:
            return self._forget(document["auths"], registry)

    def _forget(self, entries: dict[str, Any], registry: str) -> bool:
        place = same_place(server_key(registry))
        gone = [key for key in entries if same_place(key) == place]
        for key in gone:
            del entries[key]
        return bool(gone)

    def _decode(self, place: str, entry: object) -> Credential:
        if not isinstance(entry, dict):
            raise self._malformed(f'the entry of "{place}" is not an object')
        texts = {field: entry.get(field) or "" for field in _FIELDS}
        if not all(isinstance(text, str) for text in texts.values()):
            raise self._malformed(f'the entry of "{place}" has a field that is not a text')
        name, secret = texts["username"], texts["password"]
        if texts["auth"]:
            name, secret = self._pair(place, texts["auth"])
        plain = from_pair(name, secret)
        return Credential(
            plain.username,
            plain.secret,
            texts["identitytoken"] or plain.identity_token,
            texts["registrytoken"],
        )

    def _pair(self, place: str, encoded: str) -> tuple[str, str]:
        try:
            name, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            colon = ""
        if not colon:
            raise self._malformed(f'"auth" of "{place}" is not base64 of NAME:PASSWORD')
        return name, secret.strip("\0")  # some clients pad

    def _section(self, name: str) -> dict[str, Any]:
        found = self._read().get(name)
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise self._malformed(f'"{name}" is not an object')
        return found

    def _read(self) -> dict[str, Any]:
        try:
            with self.path.open("rb") as file:
                data = file.read(_FILE_MAX + 1)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise FailedPrecondition(
                f'credentials file "{self.path}" cannot be read: {error.strerror}'
            ) from None
        if len(data) > _FILE_MAX:
            raise self._malformed(f"it is longer than {_FILE_MAX} bytes")
        try:
            found = json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError):
            raise self._malformed("it is not JSON") from None
        if not isinstance(found, dict):
            raise self._malformed("it is not a JSON object")
        return found

    def _malformed(self, why: str) -> InvalidArgument:
        return InvalidArgument(f'credentials file "{self.path}" is malformed: {why}')

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """The document, to be changed by one process at a time, and written after."""
        path = self.path.resolve()  # a link stays a link
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                self._section("auths")
                document = self._read()
                if document.get("auths") is None:
                    document["auths"] = {}
                yield document
                _replace(path, json.dumps(document, indent="\t"))
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise FailedPrecondition(
                f'credentials file "{self.path}" cannot be written: {error.strerror}'
            ) from None


def _replace(path: Path, text: str) -> None:
    import tempfile  # noqa: PLC0415 - pulls come here for to read, and are to start fast

    fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(fd, "wb") as file:
            with suppress(FileNotFoundError, PermissionError):
                before = path.stat()
                os.fchown(fd, before.st_uid, before.st_gid)
            file.write(text.encode())
            file.flush()
            os.fsync(fd)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
