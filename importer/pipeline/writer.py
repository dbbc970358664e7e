"""Bytes in hand become bytes on a disk: zeroes are left out, written ranges are pushed to the device as we go.

Called from worker threads; the target's own calls release the GIL.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from importer.disk import zeroes
from importer.disk.space import SpaceGuard
from importer.pipeline.meter import Meter
from machinery.process import syscalls

PUSH = 16 << 20
Wipe: TypeAlias = Callable[[int, int], None]
"""Takes an offset and a size."""
LONG = 128 << 10
"""Runs from which on a write of its own to the device beats a copy into the page cache."""


class Sink(Protocol):
    """What takes the bytes: a target or a spill."""

    @property
    def fd(self) -> int:
        """Descriptor, for write-back."""
        ...

    def write(self, offset: int, data: memoryview, /) -> None:
        """Write all of `data` at `offset`. Raises Failure."""
        ...

    def write_direct(self, offset: int, data: memoryview, /) -> None:
        """Write a long run, around the page cache where that pays. Raises Failure."""
        ...


class Writer:
    """Writes what is not zero; zeroes are left out where the sink reads as zeroes already."""

    def __init__(self, sink: Sink, meter: Meter, guard: SpaceGuard | None, wipe: Wipe | None = None) -> None:
        """Write into `sink`; `guard` watches the space left. `wipe` makes its ranges zero, None where they are."""
        self._sink = sink
        self._meter = meter
        self._guard = guard
        self._wipe = wipe
        self._clock = meter.clock("write")
        self._unpushed = 0
        self._low = 0

    def write(self, offset: int, view: memoryview) -> None:
        """Write `view` at `offset`, leaving runs of zeroes out. Raises Failure."""
        with self._clock.working():
            for start, size, empty in zeroes.runs(view):
                if empty:
                    self._meter.zeroes += size
                    if self._wipe:
                        self._wipe(offset + start, size)
                    continue
                if self._guard:
                    self._guard.wrote(size)
                self._meter.written += size
                if size >= LONG:
                    self._sink.write_direct(offset + start, view[start : start + size])
                    continue
                self._sink.write(offset + start, view[start : start + size])
                self._unpushed += size
            if self._unpushed >= PUSH:
                low, self._unpushed, self._low = self._low, 0, offset
                self._push(min(low, offset), offset + len(view))

    def _push(self, start: int, end: int) -> None:
        """Start write-back now: otherwise nothing reaches the device before fsync, and that then takes all the time."""
        syscalls.sync_file_range(self._sink.fd, start, end - start)
