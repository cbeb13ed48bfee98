"""What all rooms of a daemon stand on."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from orlop.daemon.config import Config
from orlop.events import Exchange
from orlop.fork.client import ForkServer
from orlop.metadata import Database
from orlop.rpc.reactor import Reactor


@dataclass(frozen=True, slots=True)
class Ground:
    """What is made with it says to `closing` how it is closed, and is closed in turn."""

    config: Config
    forks: ForkServer
    closing: ExitStack
    reactor: Reactor
    exchange: Exchange
    database: Database

    @property
    def root(self) -> Path:
        """What survives a reboot is below it."""
        return Path(self.config.root)

    @property
    def state(self) -> Path:
        """What does not is below it."""
        return Path(self.config.state)


def lay(config: Config, forks: ForkServer, closing: ExitStack) -> Ground:
    """Raises what opening the database does."""
    reactor = Reactor()
    closing.callback(reactor.close)
    database = Database(Path(config.root) / "metadata.db")
    closing.callback(database.close)
    return Ground(config, forks, closing, reactor, Exchange(), database)
