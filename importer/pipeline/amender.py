"""Writes only where the disk differs from what comes: for an import that must come from its beginning once more."""

from importer.disk import zeroes
from importer.disk.landing import Landing
from importer.disk.space import SpaceGuard
from importer.pipeline.meter import Meter
from importer.pipeline.writer import Wipe, Writer

STEP = 256 << 10
"""Bytes compared at once."""


class Amender(Writer):
    """A Writer into a target that holds anything at all: zeroes, too, are looked after."""

    def __init__(self, target: Landing, meter: Meter, guard: SpaceGuard | None, wipe: Wipe | None = None) -> None:
        """Amend `target`; what lies beyond its end now is new, and written without a look."""
        super().__init__(target, meter, guard, wipe)
        self._target = target
        self._end = target.length

    def write(self, offset: int, view: memoryview) -> None:
        """See Writer.write."""
        old = max(0, min(len(view), self._end - offset))
        for start in range(0, old, STEP):
            self._amend(offset + start, view[start : min(old, start + STEP)])
        if old < len(view):
            super().write(offset + old, view[old:])

    def _amend(self, offset: int, view: memoryview) -> None:
        # As bytearray: its comparison with a memoryview is a memcmp.
        if bytearray(self._target.read(offset, len(view))) == view:
            self._meter.zeroes += sum(size for _, size, empty in zeroes.runs(view) if empty)
            return
        for start, size, empty in zeroes.runs(view):
            if empty:
                self._target.punch(offset + start, size)
        super().write(offset, view)
