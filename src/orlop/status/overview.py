"""All that the page shows, by the rooms that know it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence

from orlop import __version__
from orlop.content import ContentStore
from orlop.events import Exchange, Subscription
from orlop.oci import mediatypes
from orlop.status.containers import Containers
from orlop.status.images import ImageOverview
from orlop.status.model import Host, Images, Part, Pull, State, Write
from orlop.transfer.underway import Pulling, Underway


class Overview:
    """Looks when it is asked, and keeps nothing but documents of images."""

    def __init__(
        self,
        containers: Containers,
        images: ImageOverview,
        underway: Underway,
        content: ContentStore,
        exchange: Exchange,
    ) -> None:
        self._containers = containers
        self._images = images
        self._underway = underway
        self._content = content
        self._exchange = exchange

    def state(self) -> State:
        """What changes from second to second. Raises what a database that cannot be read does."""
        pulls = self._underway.all()
        containers, lost = self._containers.all()
        return State(
            at=time.time(),
            host=Host(
                socket.gethostname(),
                __version__,
                len(os.sched_getaffinity(0)),
                os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            ),
            containers=containers,
            lost=lost,
            pulls=[_pull(each) for each in pulls],
            writes=self._writes(pulls),
        )

    def images(self) -> Images:
        """To be called by one at a time."""
        return self._images.all()

    def events(self) -> Subscription:
        """From now on; the caller closes it."""
        return self._exchange.subscribe()

    def _writes(self, pulls: Sequence[Pulling]) -> list[Write]:
        """What others write: `ctr` and dockerd fetch blobs themselves."""
        pulled = {(pull.namespace, part.name) for pull in pulls for part in pull.parts}
        return [
            Write(namespace, status.ref, status.offset, status.total)
            for namespace, status in self._content.open_writes()
            if (namespace, status.ref) not in pulled
        ]


def _pull(pull: Pulling) -> Pull:
    return Pull(
        namespace=pull.namespace,
        name=pull.name,
        began=pull.began,
        state=pull.state,
        done=sum(part.done for part in pull.parts),
        total=sum(part.total for part in pull.parts),
        layers=[
            Part(part.digest, part.event, part.done, part.total)
            for part in pull.parts
            if mediatypes.is_layer(part.media_type)
        ],
    )
