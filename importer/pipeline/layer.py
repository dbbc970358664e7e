"""The disk inside a container image: a layer is decoded, its tar scanned, and the one file below disk/ handed on as a source.

All of a layer is read, also what follows the disk: only then its digest is known, and that it holds no second disk.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any

from importer.api.failure import Failure
from importer.disk import tar
from importer.disk.image import Wrapper
from importer.disk.tar import Hidden, LayerScan
from importer.pipeline import movers, transfer
from importer.pipeline.digest import Digests
from importer.pipeline.fetcher import Fetcher
from importer.pipeline.handover import Handover
from importer.pipeline.in_order import InOrder
from importer.pipeline.meter import Meter, Silent
from importer.pipeline.patience import Policy
from importer.pipeline.pinned import Pinned
from importer.pipeline.sequential import Sequential
from importer.pipeline.shelf import PIECE
from importer.sources.layers import Blob, Layers
from importer.sources.manifest import compression_of
from importer.sources.protocol import Basin, Source, SourceFacts
from machinery.values.tar import Member

HEAD = 1 << 20
DEPTH = 8
"""Parts of up to 1 MiB between the decoder and who takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What layers are read with."""

    meter: Meter
    policy: Policy
    connections: int
    memory: int
    """Bytes that a decoder may take for windows and dictionaries."""
    capacity: int
    """Pieces of a layer in hand at a time."""


class LayerSource:
    """The disk in the uppermost layer that has one (see Source): bytes in order, its length known."""

    def __init__(self, layers: Layers, reading: "_Reading", disk: Member, head: bytes, means: Means) -> None:
        """Take over a layer that is being read; use `open` instead."""
        self._layers = layers
        self._reading = reading
        self._fresh = True
        """True while nobody has taken what `reading` brings after the head."""
        self._disk = disk
        self._head = head
        self._means = means
        blob = reading.blob
        known = {"manifest": layers.digest, "layer": blob.digest or blob.diff_id}
        self._facts = SourceFacts(
            url=layers.shown,
            name=disk.name.rpartition("/")[2],
            length=disk.size,
            ranges=False,
            validators={name: digest for name, digest in known.items() if digest},
            notes=(*layers.notes, f"the disk is {disk.name} in a layer of {blob.size} bytes"),
            served_length=blob.size,
        )

    @classmethod
    async def open(cls, layers: Layers, means: Means) -> "LayerSource":
        """Find the disk. Takes over `layers`. Raises Failure: "disk-missing", "several-disks" and what reading a layer raises."""
        above, members = Hidden(), 0
        names: list[str] = []
        reading: _Reading | None = None
        try:
            for blob in layers.blobs:
                reading = _Reading(layers, blob, above, means)
                disk = await reading.find()
                if disk is not None:
                    return cls(layers, reading, disk, await reading.up_to(min(HEAD, disk.size)), means)
                await reading.close()
                above, members = reading.scan.hidden, members + reading.scan.members
                names.extend(reading.scan.found())
            raise tar.missing(tuple(names[:8]), members)
        except BaseException:
            if reading is not None:
                await reading.close()
            await layers.close()
            raise

    @property
    def facts(self) -> SourceFacts:
        """The disk's length and name; digests as validators."""
        return self._facts

    @property
    def head(self) -> bytes:
        """The disk's first MiB, or all of a smaller one."""
        return self._head

    async def fetch(self, start: int, end: int | None) -> AsyncIterator[bytes]:
        """Yield the whole disk; see Source.fetch. Ends only after the layer's digest and the rest of its tar were verified."""
        if start or end not in (None, self._disk.size):
            raise Failure("internal", "a range was asked of a source that has none", start=start, end=end)
        if not self._fresh:
            await self._again()
        self._fresh = False
        yield self._head
        got = len(self._head)
        while (part := await self._reading.part()) is not None:
            got += len(part)
            yield part
        if got != self._disk.size:
            raise Failure("truncated", "the layer ends within the disk", bytes=got, promised=self._disk.size)

    async def _again(self) -> None:
        """Read the layer once more, up to where the head ends."""
        await self._reading.close()
        self._reading = _Reading(self._layers, self._reading.blob, self._reading.above, self._means)
        disk = await self._reading.find()
        if disk != self._disk or await self._reading.up_to(len(self._head)) != self._head:
            raise Failure("source-changed", "the layer was another one when it was read again", url=self._facts.url)

    async def pour(self, start: int, end: int, basin: Basin) -> None:
        """Not for a source without ranges."""
        raise Failure("internal", "a range was asked of a source that has none", start=start, end=end)

    async def settle(self) -> None:
        """Tell what was verified while the layer streamed; nothing is left to check."""
        self._means.meter.note(f"verified: the layer is {self._facts.validators.get('layer', 'without a digest')}")

    async def close(self) -> None:
        """Let go of the layer and its image."""
        await self._reading.close()
        await self._layers.close()


class _Reading:
    """One pass through one layer."""

    def __init__(self, layers: Layers, blob: Blob, above: Hidden, means: Means) -> None:
        self.blob = blob
        self.above = above
        self.scan = LayerScan(above)
        self._layers = layers
        self._means = means
        self._meter = Meter(reporter=Silent())
        """Of the layer; what was fetched is told to the import's own."""
        self._told = 0
        self._handover: Handover[Member | bytes] = Handover(DEPTH)
        self._left = b""
        self._content = hashlib.sha256() if blob.digest is None and blob.diff_id else None
        self._task = asyncio.create_task(self._run(), name="layer")

    async def find(self) -> Member | None:
        """Return the disk once its header came by, None if the layer has none: it was then read to its end."""
        found = await self._taken()
        assert not isinstance(found, bytes)
        return found

    async def part(self) -> bytes | None:
        """Return more of the disk, None once the layer was read to its end and verified."""
        if self._left:
            part, self._left = self._left, b""
            return part
        found = await self._taken()
        assert not isinstance(found, Member)
        return found

    async def up_to(self, size: int) -> bytes:
        """Return the disk's next `size` bytes, fewer only if the layer ends before."""
        got = b""
        while len(got) < size and (part := await self.part()) is not None:
            got += part
        self._left = got[size:]
        return got[:size]

    async def _taken(self) -> Member | bytes | None:
        found = await self._handover.take()
        meter, told = self._means.meter, self._meter.fetched
        meter.fetched += told - self._told
        self._told = told
        meter.retries = max(meter.retries, self._meter.retries)
        meter.most_connections = max(meter.most_connections, self._meter.most_connections)
        meter.tick()
        return found

    async def close(self) -> None:
        """End it, wherever it is. More than once does no harm."""
        self._handover.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            source = await self._layers.open(self.blob)
            try:
                await self._read(source)
                await source.settle()
            finally:
                await source.close()
            self.scan.end()
        except BaseException as error:
            self._handover.end(error)
            if not isinstance(error, Failure):
                raise
        else:
            self._handover.end()

    async def _read(self, source: Source) -> None:
        """Decode the layer into `write`, hashing what is served, and verify."""
        promised = (self.blob.digest or "").partition(":")
        digests = Digests({promised[0]} if promised[2] else (), self._meter)
        try:
            pieces, fetch = self._fetching(source)
            work = self._decoding(compression_of(source.head), pieces, digests)
            await transfer.together(fetch, work, pieces.stop)
            found = digests.results().get(promised[0]) if promised[2] else None
        finally:
            digests.close()
        if found is not None and found != promised[2]:
            _mismatch(self.blob.digest, f"{promised[0]}:{found}")
        if self._content is not None and self.blob.diff_id != f"sha256:{self._content.hexdigest()}":
            _mismatch(self.blob.diff_id, f"sha256:{self._content.hexdigest()}")

    def _fetching(self, source: Source) -> tuple[InOrder | Sequential, Coroutine[Any, Any, None]]:
        means, pinned = self._means, Pinned(piece=PIECE)
        if source.facts.ranges and source.facts.length is not None:
            orders = InOrder(
                length=source.facts.length,
                capacity=means.capacity,
                pinned=pinned,
                connections=min(means.connections, means.capacity),
            )
            return orders, Fetcher(source, orders, self._meter, connections=means.connections, policy=means.policy).run()
        stream = Sequential(source, self._meter, capacity=means.capacity, pinned=pinned, policy=means.policy)
        return stream, stream.run()

    def _decoding(self, compression: str, pieces: InOrder | Sequential, digests: Digests) -> Coroutine[Any, Any, int]:
        if compression:
            wrapper = Wrapper(compression)
            return movers.decode(pieces, wrapper, self, digests, self._meter, memory=self._means.memory, cap=_endless, writers=1)
        return movers.copy_in_order(pieces, self, digests, self._meter)

    def write(self, offset: int, view: memoryview) -> None:
        """Take the layer's decoded bytes from `offset` on, in order, in a thread: scan them, and hand on what is the disk's."""
        if self._content is not None:
            self._content.update(view)
        found = self.scan.feed(view)
        if found is not None:
            self._handover.give(found)
        disk = self.scan.disk
        if disk is None:
            return
        low, high = max(disk.offset, offset), min(disk.offset + disk.size, offset + len(view))
        if low < high:
            self._handover.give(bytes(view[low - offset : high - offset]))


def _endless(_total: int, /) -> None:
    """A layer may hold more than the disk; the disk's own size is judged by its header."""


def _mismatch(promised: str | None, found: str) -> None:
    raise Failure(
        "checksum-mismatch",
        "a layer is not the one that its manifest names",
        hint="ask again or ask another mirror; if it stays so, the registry's storage is damaged",
        expected=promised,
        found=found,
    )
