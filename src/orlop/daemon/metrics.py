"""The `[metrics]` section of the configuration, understood: who may see what is running."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from orlop.daemon import listening
from orlop.daemon.config import Config, ConfigError, Metrics

# Who serves no metrics pays nothing for them.
if TYPE_CHECKING:
    from orlop.containers import ContainerStore
    from orlop.daemon.readings import Rooms
    from orlop.metrics.endpoint import Endpoint
    from orlop.snapshots import SnapshotStore

PRELOAD = ("orlop.metrics.worker", "orlop.metrics.measuring")
_KEYS = "configuration: metrics"


def check(metrics: Metrics) -> None:
    """Raises ConfigError when metrics are wanted and the section makes no sense or is not safe.

    They name every container: beyond this machine that takes a token or a certificate, or to say
    that everybody may read them.
    """
    if not metrics.address:
        return
    if bool(metrics.cert) != bool(metrics.key):
        raise ConfigError(f"{_KEYS}.cert and metrics.key go together")
    if metrics.client_ca and not metrics.cert:
        raise ConfigError(f"{_KEYS}.client_ca needs metrics.cert and metrics.key")
    if metrics.address.startswith("/"):
        if metrics.cert:
            raise ConfigError(f"{_KEYS}.cert: a Unix socket has no TLS")
        return
    host, _ = listening.host_and_port("metrics.address", metrics.address)
    guarded = metrics.client_ca or metrics.token
    if not (listening.is_loopback(host) or guarded or metrics.public):
        raise ConfigError(
            f'{_KEYS}.address "{metrics.address}" is open to the network: set metrics.token or '
            "metrics.client_ca, or metrics.public = true if everybody there may read the metrics"
        )
    if metrics.token and not (listening.is_loopback(host) or metrics.cert):
        raise ConfigError(
            f'{_KEYS}.token: on "{metrics.address}" it would be sent in the clear; set '
            "metrics.cert and metrics.key"
        )


def listen(config: Config, closing: ExitStack) -> Endpoint:
    """Listen; `start` serves. Raises FailedPrecondition and InvalidArgument."""
    from orlop.metrics.endpoint import Endpoint, Settings  # noqa: PLC0415 - see above
    from orlop.web import Tls  # noqa: PLC0415 - see above

    metrics = config.metrics
    tls = Tls(metrics.cert, metrics.key, metrics.client_ca) if metrics.cert else None
    if metrics.address.startswith("/"):
        private = config.grpc.uid < 0 and config.grpc.gid < 0
        mode = 0o600 if private else 0o660
        settings = Settings(path=metrics.address, mode=mode, token=metrics.token)
    else:
        host, port = listening.host_and_port("metrics.address", metrics.address)
        settings = Settings(host=host, port=port, tls=tls, token=metrics.token)
    endpoint = Endpoint(settings)
    closing.callback(endpoint.close)
    return endpoint


def start(
    endpoint: Endpoint,
    config: Config,
    rooms: Rooms,
    containers: ContainerStore,
    snapshotters: Mapping[str, SnapshotStore],
    closing: ExitStack,
) -> None:
    """Serve metrics. Raises InvalidArgument for labels that contradict each other."""
    from orlop.daemon.readings import readings  # noqa: PLC0415 - see above
    from orlop.metrics.containers import Containers, Options  # noqa: PLC0415 - see above
    from orlop.metrics.filesystems import Filesystems  # noqa: PLC0415 - see above
    from orlop.metrics.internals import Internals  # noqa: PLC0415 - see above
    from orlop.metrics.labels import Labels  # noqa: PLC0415 - see above
    from orlop.metrics.scraper import Outcomes, Scraper  # noqa: PLC0415 - see above

    metrics = config.metrics
    outcomes = Outcomes(metrics.max_containers)
    filesystems = Filesystems(rooms.forks, snapshotters, metrics.filesystem_age)
    closing.callback(filesystems.close)
    options = Options(Labels(metrics.labels), metrics.max_containers, Path(config.state) / "health")
    endpoint.start(
        Scraper(
            Internals([*readings(rooms), *outcomes.readings()]),
            Containers(rooms.forks, rooms.tasks, containers, filesystems, options),
            outcomes,
        )
    )
