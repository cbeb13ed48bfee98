"""What a process does with the store until it is killed, and what it promises."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orlop.errors import AlreadyExists, OrlopError
from orlop.images.model import Image
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from tests.storm.layers import Layers
from tests.storm.rooms import NAMESPACES, Rooms

TOTALS = (100_000, 90_001)  # bytes of writes that are not finished
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Ledger:
    """What was begun and what was done, a line each, written at once; outlives who writes it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(self, what: str, *facts: Any) -> None:
        os.write(self._fd, f"{json.dumps([what, *facts])}\n".encode())


class Work:
    """Random things done to the rooms; the same for the same seed and store.

    With `synced`, snapshots are committed as a pull does it: when their files are on the disk.
    """

    def __init__(
        self, rooms: Rooms, ledger: Ledger, target: Path, seed: int, *, synced: bool = False
    ) -> None:
        self._rooms = rooms
        self._tell = ledger.tell
        self._random = random.Random(seed)
        self._seed = seed
        self._count = 0
        self.failures: list[OrlopError] = []
        self._layers = [
            Layers(
                rooms, name, target, self._tell, self._random, self._name, self._namespace, synced
            )
            for name in rooms.snapshotters
        ]

    def run(self, steps: int) -> None:
        """Do each thing once, in any order, and then at random."""
        things = [
            self._image, self._same_elsewhere, self._begin_write, self._begin_anew, self._abort,
            self._drop_image, self._take_over, self._mend, self._collect,
            *(thing for layers in self._layers for thing in layers.things()),
        ]  # fmt: skip
        once = self._random.sample(things, len(things))
        for thing in once + self._random.choices(things, k=steps):
            self._try(thing)
        for _ in range(3):  # and there is garbage in the end
            self._try(self._drop_image)
        self._try(self._collect)

    def _try(self, thing: Callable[[], None]) -> None:
        try:
            thing()
        except OrlopError as error:
            self.failures.append(error)
        except OSError as error:
            if error.errno != errno.ENOSPC or not _is_ours(error):
                raise

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._seed}-{self._count}"

    def _namespace(self) -> str:
        return self._random.choice(NAMESPACES)

    # Images

    def _image(self) -> None:
        self._make_image(self._namespace(), self._random.randbytes(self._random.randint(1, 50_000)))

    def _same_elsewhere(self) -> None:
        """Both namespaces have a blob; the second does not send it."""
        data = self._random.randbytes(10_000)
        for namespace in NAMESPACES:
            self._make_image(namespace, data)

    def _make_image(self, namespace: str, layer: bytes) -> None:
        name = self._name("image")
        lease = self._rooms.leases.create(namespace, name).id
        blob = self._put(namespace, layer, lease)
        manifest = json.dumps({"name": name, "layer": blob}).encode()
        labels = {"containerd.io/gc.ref.content.l.0": blob}
        target = self._put(namespace, manifest, lease, labels)
        descriptor = Descriptor(media_type=_MANIFEST, digest=target, size=len(manifest))
        self._rooms.images.create(namespace, Image(name, descriptor))
        self._tell("image", namespace, name, target, blob)
        self._rooms.leases.delete(namespace, lease)

    def _put(
        self, namespace: str, data: bytes, lease: str, labels: Mapping[str, str] | None = None
    ) -> str:
        digest = Digest.of(data)
        try:
            with self._rooms.content.writer(
                namespace, digest, total=len(data), expected=digest, lease=lease
            ) as writer:
                rest = data[writer.offset :]
                writer.write(rest[: len(rest) // 2])
                writer.write(rest[len(rest) // 2 :])
                writer.commit(labels=labels)
        except AlreadyExists:
            pass
        return digest

    def _take_over(self) -> None:
        """A blob comes as a file, as from another root."""
        namespace, name = self._namespace(), self._name("image")
        lease = self._rooms.leases.create(namespace, name).id
        manifest = json.dumps({"name": name, "layer": ""}).encode()
        digest = Digest.of(manifest)
        data = self._scratch(manifest)
        self._rooms.content.take(namespace, digest, data, {}, lease)
        data.unlink()
        target = Descriptor(media_type=_MANIFEST, digest=digest, size=len(manifest))
        self._rooms.images.create(namespace, Image(name, target))
        self._tell("image", namespace, name, digest)
        self._rooms.leases.delete(namespace, lease)

    def _drop_image(self) -> None:
        having = [each for each in NAMESPACES if self._rooms.images.list(each)]
        namespace = self._random.choice(having or NAMESPACES)
        if found := self._rooms.images.list(namespace):
            name = self._random.choice(found).name
            self._tell("drop", "image", namespace, name)
            self._rooms.images.delete(namespace, name)

    # Writes that are not finished

    def _begin_write(self) -> None:
        namespace, ref = self._namespace(), self._name("ref")
        self._write(namespace, ref, TOTALS[0])

    def _begin_anew(self) -> None:
        """A ref is used for something else, and what was written under it is given up."""
        namespace, ref = self._namespace(), self._name("ref")
        for total in TOTALS:
            self._tell("drop", "write", namespace, ref)
            self._write(namespace, ref, total)

    def _write(self, namespace: str, ref: str, total: int) -> None:
        with self._rooms.content.writer(namespace, ref, total=total) as writer:
            data = written(ref, total)[: self._random.randint(1, total - 1)]
            writer.write(data)
        self._tell("write", namespace, ref, len(data))

    def _abort(self) -> None:
        namespace = self._namespace()
        if found := self._rooms.content.statuses(namespace):
            ref = self._random.choice(found).ref
            self._tell("drop", "write", namespace, ref)
            self._rooms.content.abort(namespace, ref)

    # The rest

    def _mend(self) -> None:
        """A blob is replaced by itself."""
        content = self._rooms.content
        if found := content.list(self._namespace()):
            digest = self._random.choice(found).digest
            content.replace(digest, self._scratch(content.files.blob(digest).read_bytes()))

    def _scratch(self, data: bytes) -> Path:
        """A file of the store's own that is on the disk."""
        path = self._rooms.content.files.scratch()
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return path

    def _collect(self) -> None:
        self._rooms.collector.run()


def _is_ours(error: OSError) -> bool:
    """Whether it was the test that found the disk full, and not the code under test."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        if trace.tb_frame.f_globals["__name__"].startswith("orlop."):
            return False
        trace = trace.tb_next
    return True


def written(ref: str, total: int) -> bytes:
    """What is written under a ref, if that many bytes are to come."""
    return random.Random(f"{ref} {total}").randbytes(total)
