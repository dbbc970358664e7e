"""Mapping tables that lie in one piece: how they are read, and how their entries are joined into runs. Pure."""

import sys
from array import array
from collections.abc import Iterable, Iterator
from typing import Literal

from importer.disk.reads import Span

PIECE = 4 << 20
"""Most bytes of a table asked for at once."""


def pieces(offset: int, entries: int, width: int) -> Iterator[tuple[int, Span]]:
    """Cut a table of `entries` entries of `width` bytes at `offset` into spans, each with the index of its first entry."""
    step = PIECE // width
    for first in range(0, entries, step):
        last = min(entries, first + step)
        yield first, Span(offset + first * width, offset + last * width)


def words(data: bytes, code: Literal["I", "Q"], order: Literal["little", "big"]) -> "array[int]":
    """Return the unsigned numbers in `data`, of 4 bytes ("I") or 8 ("Q")."""
    entries = array(code, data)
    if sys.byteorder != order:
        entries.byteswap()
    return entries


def runs(hosts: Iterable[int], stride: int) -> Iterator[tuple[int, int, int]]:
    """Join entries that lie one after another: yield index, host byte and number of entries of each run.

    `hosts` are the host bytes of consecutive entries, -1 for those that hold no data; `stride` is the
    distance of neighbours.
    """
    begun = start = count = 0
    follows = -2
    for index, host in enumerate(hosts):
        if host == follows:
            count += 1
            follows += stride
            continue
        if count:
            yield begun, start, count
        if host < 0:
            count, follows = 0, -2
        else:
            begun, start, count, follows = index, host, 1, host + stride
    if count:
        yield begun, start, count
