"""The rooms that bring images and layers in and out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from orlop.daemon.config import Config
from orlop.daemon.rooms.ground import Ground
from orlop.daemon.rooms.storage import Storage
from orlop.diff.apply import Applier, Limits
from orlop.diff.processors import Processor, Processors
from orlop.transfer import Puller, Pusher
from orlop.transfer.archive import Exporter, Importer
from orlop.transfer.resolver import Resolver
from orlop.transfer.streams import Streams
from orlop.transfer.unpacking import Unpacking
from orlop.trust import Gate, Verifiers


@dataclass(frozen=True, slots=True)
class Transfers:
    applier: Applier
    unpacking: Unpacking
    puller: Puller
    pusher: Pusher
    importer: Importer
    exporter: Exporter
    streams: Streams
    resolver: Resolver


def make(ground: Ground, storage: Storage) -> Transfers:
    config, forks = ground.config, ground.forks
    content, images, leases = storage.content, storage.images, storage.leases
    limits = Limits(**asdict(config.diff))
    applier = Applier(content, forks, limits, _processors(config))
    unpacking = Unpacking(storage.everywhere, leases, applier, forks)
    streams = Streams()
    return Transfers(
        applier=applier,
        unpacking=unpacking,
        puller=Puller(content, images, leases, unpacking, _gate(config)),
        pusher=Pusher(content, images, leases),
        importer=Importer(content, images, leases, unpacking, max_ratio=limits.max_ratio),
        exporter=Exporter(content, images, leases),
        streams=streams,
        resolver=Resolver(streams, config.registry.folders),
    )


def _processors(config: Config) -> Processors:
    return Processors(
        {
            name: Processor(name, each.accepts, each.returns, each.path, each.args, each.env)
            for name, each in config.stream_processors.items()
        }
    )


def _gate(config: Config) -> Gate:
    wanted = config.image_verifier
    verifiers = Verifiers(Path(wanted.bin_dir), wanted.max_verifiers, wanted.per_verifier_timeout)
    return Gate(Path(config.trust.policy), verifiers)
