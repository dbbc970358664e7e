"""Cuts the pieces of an object, as they come in ascending order, into the runs of its course. Pure."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from importer.disk.chart import Course, Run


class Part(NamedTuple):
    """Bytes in hand: the disk's own from `guest` on, or one whole compressed cluster that begins there."""

    guest: int
    data: memoryview | bytearray
    packed: bool
    host: int
    """Where they lie in the object, for messages."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What one piece brings. Parts are made as they are asked for: all those of a piece full of tiny clusters take 300 MiB."""

    course: Course
    first: int
    """First run that has bytes here, but for `begun`."""
    last: int
    """Run after the last."""
    start: int
    """Where `view` lies in the object."""
    view: memoryview
    begun: Part | None
    """A compressed cluster that began in an earlier piece and ends in this one."""

    def __iter__(self) -> Iterator[Part]:
        """Yield the parts: views of `view`, but for `begun`."""
        if self.begun is not None:
            yield self.begun
        start, end = self.start, self.start + len(self.view)
        for index in range(self.first, self.last):
            host, guest, size, packed = self.course.run(index)
            low = max(host, start)
            yield Part(guest + low - host, self.view[low - start : min(host + size, end) - start], packed, host)


class Cutter:
    """Follows one course over ascending pieces; pieces that no run needs may be left out.

    Pieces begin and end with sectors, as compressed clusters are told in sectors: so only the last run can reach over the end.
    """

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

    @property
    def begun_at(self) -> int | None:
        """Where the compressed cluster begins that reaches into the next piece, None if there is none."""
        return None if self._begun is None else self._begun[0].host

    def cut(self, start: int, view: memoryview) -> Cut:
        """Return what the object's bytes from `start` on bring."""
        whole, end = self._finish(start, view), start + len(view)
        first, last = self._next, bisect_left(self._course.hosts, end, self._next)
        self._next = last
        if last > first:
            run = self._course.run(last - 1)
            if run.host + run.size > end and run.packed:
                last -= 1
                self._begun = run, bytearray(view[run.host - start :])
            elif run.host + run.size > end:
                self._next -= 1
        return Cut(self._course, first, last, start, view, whole)

    def _finish(self, start: int, view: memoryview) -> Part | None:
        """Add to the compressed cluster that was begun; return it once it is whole."""
        if self._begun is None:
            return None
        run, data = self._begun
        data += view[: max(0, run.host + run.size - start)]
        if len(data) < run.size:
            return None
        self._begun = None
        return Part(run.guest, data, True, run.host)
