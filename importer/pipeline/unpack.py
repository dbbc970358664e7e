"""The native reader: pieces in the order of the image's bytes become the disk's data, compressed clusters decoded on the way."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from mmap import mmap

from importer.api.failure import Failure
from importer.disk.chart import Course
from importer.disk.cutter import Cutter, Part
from importer.disk.native import Packing
from importer.pipeline.digest import Digests
from importer.pipeline.meter import Meter
from importer.pipeline.movers import Done, Pieces, end_of, share_out
from importer.pipeline.shelf import Piece
from importer.pipeline.writer import Writer

THREADS = (os.cpu_count() or 1) + 2
"""More than there are cores, as each of them also waits for its own writes."""
BATCH = 2 << 20
"""Bytes of neighbouring clusters that are written at once: long writes go around the page cache."""
STRETCH = 2048
"""Parts in hand at once: more than a piece of an image has, unless its clusters are tiny."""


async def unpack(pieces: Pieces, course: Course, unpacker: "Unpacker", digests: Digests, done: Done | None = None) -> None:
    """Write all data of a course; `pieces` brings at least every piece that it needs. Raises Failure."""
    cutter = Cutter(course)

    def job(piece: Piece) -> Callable[[], None]:
        return partial(unpacker.work, cutter.cut(piece.start, piece.view))

    def restart(piece: Piece) -> int:
        return end_of(piece) if cutter.begun_at is None else cutter.begun_at

    await share_out(pieces, job, digests, THREADS, done, restart)
    if not cutter.done:
        raise Failure("internal", "the native reader did not come to the end of its course")


class Unpacker:
    """Writes parts of an image where they belong. `work` may run in many threads."""

    def __init__(self, packing: Packing | None, writer: Writer, meter: Meter, *, virtual_size: int) -> None:
        """Write a disk of `virtual_size` bytes with `writer`."""
        self._packing = packing
        self._writer = writer
        self._clock = meter.clock("decode") if packing else None
        self._meter = meter
        self._size = virtual_size
        self._spare: list[memoryview] = []
        """Page-aligned buffers that no thread holds just now."""

    def work(self, parts: Iterable[Part]) -> None:
        """Write the parts, compressed ones decoded, neighbours in one go. Raises Failure."""
        try:
            buffer = self._spare.pop()
        except IndexError:
            buffer = memoryview(mmap(-1, BATCH))
        base = filled = 0
        for part in _by_place(parts):
            if filled and (not part.packed or part.guest != base + filled or filled + self._holds > BATCH):
                self._writer.write(base, buffer[:filled])
                filled = 0
            if part.packed:
                base = base if filled else part.guest
                filled += self._decode(part, buffer[filled:])
            else:
                self._meter.decoded += len(part.data)
                self._writer.write(part.guest, memoryview(part.data))
        if filled:
            self._writer.write(base, buffer[:filled])
        self._spare.append(buffer)

    @property
    def _holds(self) -> int:
        return self._packing.holds if self._packing else 0

    def _decode(self, part: Part, out: memoryview) -> int:
        """Decode one cluster to the beginning of `out`; return how many bytes of the disk it holds."""
        assert self._packing is not None
        assert self._clock is not None
        reach = min(self._packing.holds, self._size - part.guest)
        began = time.monotonic()
        try:
            count = self._packing.inflate(part.data, out[: self._packing.holds])
        except Failure as failure:
            raise Failure(failure.code, failure.cause, offset=part.host, **failure.evidence) from failure
        if count < reach:
            raise Failure("corrupt", "a compressed cluster is too short", offset=part.host, decoded=count, needed=reach)
        self._clock.busy += time.monotonic() - began
        self._meter.decoded += reach
        return reach


def _by_place(parts: Iterable[Part]) -> Iterator[Part]:
    """Sort, in stretches: qemu-img -W leaves neighbours on the disk near one another in the image, not side by side."""
    rest = iter(parts)
    while stretch := sorted(islice(rest, STRETCH), key=_place):
        yield from stretch


def _place(part: Part) -> int:
    return part.guest
