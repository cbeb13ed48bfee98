"""The `[serve]` section of the configuration, understood: a registry that is safe to open."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from orlop.daemon import listening
from orlop.daemon.config import ConfigError, Serve

# Who serves no registry pays nothing for it, and a configuration is checked before there are rooms.
if TYPE_CHECKING:
    from orlop.content import ContentStore
    from orlop.images.store import ImageStore
    from orlop.leases.store import LeaseStore
    from orlop.origin import Origin

_KEYS = "configuration: serve"


def check(serve: Serve) -> None:
    """Raises ConfigError when a registry is wanted and the section makes no sense or is not safe.

    Whoever reaches the registry reads every image of its namespace. So plain HTTP beyond this
    machine must be asked for, and pushes from beyond it need a client's certificate.
    """
    if not serve.address:
        return
    host, _ = listening.host_and_port("serve.address", serve.address)
    loopback = listening.is_loopback(host)
    if bool(serve.cert) != bool(serve.key):
        raise ConfigError(f"{_KEYS}.cert and serve.key go together")
    if serve.client_ca and not serve.cert:
        raise ConfigError(f"{_KEYS}.client_ca needs serve.cert and serve.key")
    if serve.cert and serve.plain_http:
        raise ConfigError(f"{_KEYS}.plain_http and serve.cert exclude each other")
    if not (loopback or serve.cert or serve.plain_http):
        raise ConfigError(
            f'{_KEYS}.address "{serve.address}" is open to the network: set serve.cert and '
            "serve.key, or serve.plain_http = true if everybody there may read every image"
        )
    if serve.push and not loopback and not serve.client_ca:
        raise ConfigError(
            f'{_KEYS}.push: on "{serve.address}" anybody could push; set serve.client_ca, and '
            "only clients with a certificate of it are served"
        )
    if serve.push and not serve.name and listening.is_wildcard(host):
        raise ConfigError(f"{_KEYS}.name must say what host pushed images belong to")


def start(
    serve: Serve,
    content: ContentStore,
    images: ImageStore,
    leases: LeaseStore,
    closing: ExitStack,
) -> Origin:
    """Listen; the caller starts it. Raises FailedPrecondition and InvalidArgument."""
    host, port = listening.host_and_port("serve.address", serve.address)
    from orlop.origin import Origin, Settings, Tls  # noqa: PLC0415 - see above

    tls = Tls(serve.cert, serve.key, serve.client_ca) if serve.cert else None
    settings = Settings(host, port, serve.namespace, serve.name, serve.push, serve.max_blob, tls)
    origin = Origin(settings, content, images, leases)
    closing.callback(origin.close)
    return origin
