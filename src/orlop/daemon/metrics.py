"""The `[metrics]` section of the configuration, understood: who may see what is running."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from orlop.daemon import endpoint
from orlop.daemon.config import Config, Metrics
from orlop.daemon.endpoint import Endpoint

# Who serves no metrics pays nothing for them.
if TYPE_CHECKING:
    from orlop.daemon.rooms import Rooms
    from orlop.rpc.calls import Calls
    from orlop.rpc.serving import SocketServer
    from orlop.tally import Counter

PRELOAD = ("orlop.metrics.worker", "orlop.metrics.measuring")


def check(metrics: Metrics) -> None:
    """Raises ConfigError when metrics are wanted and the section makes no sense or is not safe."""
    endpoint.check("metrics", metrics, "the metrics")


def listen(config: Config, closing: ExitStack) -> Endpoint:
    """Listen; `start` serves. Raises FailedPrecondition and InvalidArgument."""
    from orlop.metrics.endpoint import LIMITS  # noqa: PLC0415 - see above

    return endpoint.listen("metrics", "the metrics", config.metrics, config, LIMITS, closing)


def start(
    scraped: Endpoint,
    rooms: Rooms,
    servers: Mapping[str, tuple[SocketServer, Calls]],
    spans: Counter,
) -> None:
    """Serve metrics. Raises InvalidArgument for labels that contradict each other."""
    from orlop.daemon.readings import readings  # noqa: PLC0415 - see above
    from orlop.metrics.containers import Containers, Options  # noqa: PLC0415 - see above
    from orlop.metrics.endpoint import MetricsSite  # noqa: PLC0415 - see above
    from orlop.metrics.filesystems import Filesystems  # noqa: PLC0415 - see above
    from orlop.metrics.internals import Internals  # noqa: PLC0415 - see above
    from orlop.metrics.labels import Labels  # noqa: PLC0415 - see above
    from orlop.metrics.scraper import Outcomes, Scraper  # noqa: PLC0415 - see above

    metrics, forks, kept = rooms.ground.config.metrics, rooms.ground.forks, rooms.storage
    outcomes = Outcomes(metrics.max_containers)
    filesystems = Filesystems(forks, kept.everywhere, metrics.filesystem_age)
    rooms.ground.closing.callback(filesystems.close)
    options = Options(Labels(metrics.labels), metrics.max_containers, rooms.ground.state / "health")
    scraper = Scraper(
        Internals(readings(rooms, servers, spans)),
        Containers(forks, rooms.execution.tasks, kept.containers, filesystems, options),
        outcomes,
    )
    scraped.start(MetricsSite(scraper, scraped.token))
