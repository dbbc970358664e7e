"""How pure parsers read: they yield the spans they need and are sent the bytes.

A parser never touches a file or a socket. The same generator therefore serves `inspect`
(a few reads of a remote object), an import (whose reads are pinned) and a unit test (bytes
in memory), and a property test can cut its input at any place.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Bytes start..end (end excluded) of an object."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.end - self.start


Reads: TypeAlias = Generator[tuple[Span, ...], tuple[bytes, ...], T]
"""Yields spans within the object, is sent their bytes in the same order, returns T.

A span reaching past the object's end is the parser's own fault: check against `length` first
and raise Failure("truncated", ...). Ask for several spans at once where they do not depend on
each other: a remote source fetches them in parallel.
"""


def over(data: bytes, reads: Reads[T]) -> T:
    """Run `reads` over bytes in memory and return its result."""
    try:
        wanted = next(reads)
        while True:
            wanted = reads.send(tuple(data[span.start : span.end] for span in wanted))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
