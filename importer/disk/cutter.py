"""Cuts the pieces of an object, as they come in ascending order, into the runs of its course. Pure."""

from typing import NamedTuple

from importer.disk.chart import Course, Run


class Part(NamedTuple):
    """Bytes in hand: the disk's own from `guest` on, or one whole compressed cluster that begins there."""

    guest: int
    data: memoryview | bytearray
    packed: bool
    host: int
    """Where they lie in the object, for messages."""


class Cutter:
    """Follows one course over ascending pieces; pieces that no run needs may be left out."""

    def __init__(self, course: Course) -> None:
        """Begin at the first run."""
        self._course = course
        self._next = 0
        self._begun: tuple[Run, bytearray] | None = None
        """A compressed cluster whose first bytes were in an earlier piece: copied, as that piece is given back."""

    @property
    def done(self) -> bool:
        """True once every run was cut to its end."""
        return self._begun is None and self._next == len(self._course)

    def cut(self, start: int, view: memoryview) -> list[Part]:
        """Return what the object's bytes from `start` on bring: parts are views of `view`, but for clusters begun before it."""
        parts: list[Part] = []
        end = start + len(view)
        if self._begun is not None:
            run, data = self._begun
            data += view[: max(0, run.host + run.size - start)]
            if len(data) < run.size:
                return parts
            parts.append(Part(run.guest, data, True, run.host))
            self._begun = None
        while self._next < len(self._course) and (run := self._course.run(self._next)).host < end:
            low, high = max(run.host, start), min(run.host + run.size, end)
            whole = high == run.host + run.size
            if whole or run.packed:
                self._next += 1
            if whole or not run.packed:
                parts.append(Part(run.guest + low - run.host, view[low - start : high - start], run.packed, run.host))
            else:
                self._begun = run, bytearray(view[low - start :])
            if not whole:
                break
        return parts
