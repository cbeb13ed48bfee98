"""The `[status]` section of the configuration, understood: the page, and who may see it."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

from orlop.daemon import endpoint
from orlop.daemon.config import Config, ConfigError, Status
from orlop.daemon.endpoint import Endpoint

# Who serves no page pays nothing for it.
if TYPE_CHECKING:
    from orlop.daemon.rooms import Rooms

PRELOAD = ("orlop.status.worker",)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")


def check(status: Status) -> None:
    """Raises ConfigError when a page is wanted and the section makes no sense or is not safe."""
    endpoint.check("status", status, "the page")
    for host in status.hosts:
        if not _HOST.fullmatch(host):
            raise ConfigError(
                f'configuration: status.hosts must be names without a port, not "{host}"'
            )


def listen(config: Config, closing: ExitStack) -> Endpoint:
    """Listen; `start` serves. Raises FailedPrecondition and InvalidArgument."""
    from orlop.status.site import LIMITS  # noqa: PLC0415 - see above

    return endpoint.listen("status", "the status page", config.status, config, LIMITS, closing)


def start(shown: Endpoint, rooms: Rooms) -> None:
    """Serve the page."""
    from orlop.status.containers import Containers  # noqa: PLC0415 - see above
    from orlop.status.images import ImageOverview  # noqa: PLC0415 - see above
    from orlop.status.overview import Overview  # noqa: PLC0415 - see above
    from orlop.status.site import StatusSite  # noqa: PLC0415 - see above

    kept, tasks, config = rooms.storage, rooms.execution.tasks, rooms.ground.config
    overview = Overview(
        Containers(rooms.ground.forks, tasks, kept.containers, rooms.ground.state / "health"),
        ImageOverview(kept.namespaces, kept.images, kept.content),
        rooms.transfers.puller.underway,
        kept.content,
        rooms.ground.exchange,
    )
    shown.start(StatusSite(overview, shown.token, config.status.hosts))
