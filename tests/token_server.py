"""A server of tokens for docker-registry (`auth: token`), as the Docker token spec has it."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.lying_registry import send
from tests.quiet_server import QuietServer
from tests.registry_fixture import SECRET, USER

ISSUER, SERVICE = "harbour master", "quay"


class TokenServer:
    """Gives tokens to USER with SECRET, and to others for pulls if `public`.

    A token lasts `life` seconds. Without `get`, only the OAuth2 way is open; each answer to it
    brings a refresh token. `granted` has the method and the scopes of each token given, in order.
    """

    def __init__(self, folder: Path) -> None:
        self.life = 300
        self.public = False
        self.get = True
        self.granted: list[tuple[str, list[str]]] = []
        self.refused = 0
        self.refresh_tokens: set[str] = set()
        self._key, self.certificate = folder / "token.key", folder / "token.crt"
        self._run("req", "-x509", "-days", "2", "-newkey", "rsa:2048", "-nodes",
                  "-subj", "/CN=tokens", "-keyout", str(self._key),
                  "-out", str(self.certificate))  # fmt: skip
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                server._by_get(self, query)

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                server._by_post(self, {key: each[0] for key, each in parse_qs(form).items()})

            def log_message(self, *args: Any) -> None:
                pass

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self._server.server_port}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def settings(self) -> dict[str, Any]:
        """docker-registry's `auth`."""
        return {
            "token": {
                "realm": self.realm,
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(self.certificate),
            }
        }

    def _by_get(self, request: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        pair = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
        sent = request.headers.get("Authorization", "")
        if not self.get:
            send(request, 404, b"")
        elif sent == f"Basic {pair}" or (not sent and self.public):
            scopes = query.get("scope", [])
            self._grant(request, "GET", scopes, full=bool(sent), names=("token",))
        else:
            self._refuse(request)

    def _by_post(self, request: BaseHTTPRequestHandler, form: dict[str, str]) -> None:
        by_password = (form["grant_type"], form.get("username"), form.get("password")) == (
            "password", USER, SECRET,
        )  # fmt: skip
        by_token = form["grant_type"] == "refresh_token"
        if by_password or (by_token and form.get("refresh_token") in self.refresh_tokens):
            scopes = form.get("scope", "").split()
            names = ("access_token",)
            self._grant(request, form["grant_type"], scopes, full=True, names=names)
        else:
            self._refuse(request)

    def _refuse(self, request: BaseHTTPRequestHandler) -> None:
        self.refused += 1
        send(request, 401, b'{"details": "incorrect username or password"}')

    def _grant(
        self,
        request: BaseHTTPRequestHandler,
        how: str,
        scopes: list[str],
        *,
        full: bool,
        names: tuple[str, ...],
    ) -> None:
        self.granted.append((how, scopes))
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = [each for each in actions.split(",") if full or each == "pull"]
            access.append({"type": kind, "name": name, "actions": allowed})
        answer: dict[str, Any] = {"expires_in": self.life}
        answer |= dict.fromkeys(names, self._token(access))
        if how != "GET":
            answer["refresh_token"] = self.new_refresh_token()
        send(request, 200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def new_refresh_token(self) -> str:
        made = secrets.token_urlsafe()
        self.refresh_tokens.add(made)
        return made

    def _token(self, access: list[dict[str, Any]]) -> str:
        """A JSON web token, signed with a certificate that it carries (RFC 7515)."""
        now = int(time.time())
        certificate = "".join(self.certificate.read_text().splitlines()[1:-1])
        head = {"typ": "JWT", "alg": "RS256", "x5c": [certificate]}
        claims = {
            "iss": ISSUER, "aud": SERVICE, "sub": "", "jti": secrets.token_hex(8), "iat": now,
            # The registry allows clocks a minute's difference.
            "nbf": now - 60, "exp": now + self.life - 60 if self.life < 60 else now + self.life,
            "access": access,
        }  # fmt: skip
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
        signature = self._run("dgst", "-sha256", "-sign", str(self._key), given=signed.encode())
        return f"{signed}.{_base64(signature)}"

    @staticmethod
    def _run(*arguments: str, given: bytes = b"") -> bytes:
        return subprocess.run(
            ["openssl", *arguments], input=given, capture_output=True, check=True
        ).stdout


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def run_token_server(folder: Path) -> Iterator[TokenServer]:
    """A running token server that keeps its key in `folder`."""
    server = TokenServer(folder)
    try:
        yield server
    finally:
        server.close()
