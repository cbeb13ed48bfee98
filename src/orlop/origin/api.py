"""Which request means what: the endpoints of the OCI distribution spec, "Endpoints"."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace

from orlop.errors import OrlopError
from orlop.origin.exchange import Refusal, refusal_of
from orlop.origin.reads import Reads
from orlop.origin.uploads import SESSION
from orlop.origin.writes import Writes
from orlop.web import Reply, Request

_log = logging.getLogger(__name__)

_PATH_MAX = 1024
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_NAME_MAX = 255
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_ENDPOINT = re.compile(
    r"/v2/(?P<name>.+?)/(?:(?P<kind>manifests|referrers)/(?P<object>[^/]+)"
    r"|blobs/(?P<uploads>uploads)/?(?P<session>[^/]*)"
    r"|blobs/(?P<blob>[^/]+)"
    r"|(?P<tags>tags/list))"
)

_Method = Callable[[Request, str, str], Reply]


class Api:
    """Answers requests. Without `writes`, nothing can be pushed or deleted."""

    def __init__(self, reads: Reads, writes: Writes | None) -> None:
        self._reads = reads
        self._writes = writes

    def answer(self, request: Request) -> Reply:
        try:
            reply = self._find(request)
        except Refusal as refusal:
            reply = refusal.reply()
        except OrlopError as error:
            refused = refusal_of(error)
            level = logging.ERROR if refused.status >= 500 else logging.DEBUG
            _log.log(level, "registry request %s %s: %s", request.method, request.path, error)
            reply = refused.reply()
        return _named(reply)

    def refuse(self, status: int, message: str) -> Reply:
        return _named(Refusal(status, "UNSUPPORTED", message).reply())

    def _find(self, request: Request) -> Reply:
        """Raises Refusal, and errors of the rooms below."""
        if len(request.path) > _PATH_MAX:
            raise Refusal(414, "NAME_INVALID", f"paths are at most {_PATH_MAX} characters long")
        if request.path in ("/v2/", "/v2"):
            return self._only_read(request, lambda: Reply.json({}))
        if request.path == "/v2/_catalog":
            return self._only_read(request, lambda: self._reads.catalog(request))
        found = _ENDPOINT.fullmatch(request.path)
        if found is None:
            raise Refusal(404, "UNSUPPORTED", "there is nothing here but the registry under /v2/")
        name = found["name"]
        if len(name) > _NAME_MAX or not _NAME.fullmatch(name):
            raise Refusal(400, "NAME_INVALID", f'"{name[:80]}" is not a repository name')
        if found["tags"]:
            return self._only_read(request, lambda: self._reads.tags(request, name))
        if found["uploads"]:
            return self._upload(request, name, found["session"])
        if found["blob"]:
            blob = found["blob"]
            return self._only_read(request, lambda: self._reads.blob(request, name, blob))
        if found["kind"] == "referrers":
            digest = found["object"]
            return self._only_read(request, lambda: self._reads.referrers(request, name, digest))
        return self._manifest(request, name, found["object"])

    @staticmethod
    def _only_read(request: Request, read: Callable[[], Reply]) -> Reply:
        if request.method not in ("GET", "HEAD"):
            raise _not_allowed(request, "GET, HEAD")
        return read()

    def _manifest(self, request: Request, name: str, wanted: str) -> Reply:
        if ":" not in wanted and not _TAG.fullmatch(wanted):
            raise Refusal(400, "TAG_INVALID", f'"{wanted[:140]}" is neither a tag nor a digest')
        if request.method in ("GET", "HEAD"):
            return self._reads.manifest(request, name, wanted)
        writes = self._writing(request)
        methods: dict[str, _Method] = {
            "PUT": writes.put_manifest,
            "DELETE": writes.delete_manifest,
        }
        return self._choose(request, methods, name, wanted)

    def _upload(self, request: Request, name: str, session: str) -> Reply:
        writes = self._writing(request)
        if not session:
            if request.method != "POST":
                raise _not_allowed(request, "POST")
            return writes.begin(request, name)
        if not SESSION.fullmatch(session):
            raise Refusal(404, "BLOB_UPLOAD_UNKNOWN", f'upload "{session[:40]}" is not known')
        methods: dict[str, _Method] = {
            "GET": writes.status,
            "HEAD": writes.status,
            "PATCH": writes.append,
            "PUT": writes.finish,
            "DELETE": writes.cancel,
        }
        return self._choose(request, methods, name, session)

    @staticmethod
    def _choose(request: Request, methods: dict[str, _Method], name: str, object: str) -> Reply:
        chosen = methods.get(request.method)
        if chosen is None:
            raise _not_allowed(request, ", ".join(methods))
        return chosen(request, name, object)

    def _writing(self, request: Request) -> Writes:
        if self._writes is None:
            raise _not_allowed(request, "GET, HEAD")
        if "origin" in request.headers:
            # Pages in a browser on this machine reach loopback too; registry clients say no origin.
            raise Refusal(403, "DENIED", "pages in browsers may not push")
        return self._writes


def _not_allowed(request: Request, allowed: str) -> Refusal:
    return Refusal(
        405,
        "UNSUPPORTED",
        f"this registry does not allow {request.method[:16]} here",
        {"Allow": allowed},
    )


def _named(reply: Reply) -> Reply:
    """By this header clients know a registry."""
    headers = {**reply.headers, "Docker-Distribution-Api-Version": "registry/2.0"}
    return replace(reply, headers=headers)
