"""Of an object of which only some pieces are needed, exactly those are fetched and handed on, in order, within the bound."""

import asyncio
from itertools import groupby
from random import Random

import pytest
from fakes.memory_source import MemorySource
from hypothesis import given, settings
from hypothesis import strategies as st

from importer.api.report import Progress
from importer.pipeline.fetcher import Fetcher
from importer.pipeline.in_order import InOrder
from importer.pipeline.meter import Meter
from importer.pipeline.patience import Policy
from importer.pipeline.pinned import Pinned
from importer.pipeline.shelf import PIECE

QUICK = Policy(first_delay=0.0001, longest_delay=0.001, stall_seconds=5.0)
NOISE = Random(7).randbytes(9 * PIECE + 4321)
COUNT = -(-len(NOISE) // PIECE)


class Silent:
    def progress(self, moment: Progress) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


def orders(needed: bytes | None, *, capacity: int = 4, connections: int = 2, ordered: bool = True) -> InOrder:
    filled = None if needed is None else bytearray(needed)
    return InOrder(
        length=len(NOISE), capacity=capacity, pinned=Pinned(piece=PIECE), connections=connections, ordered=ordered, needed=filled
    )


def size_of(index: int) -> int:
    return min(PIECE, len(NOISE) - index * PIECE)


async def fetched(source: MemorySource, wanted: InOrder, connections: int) -> list[int]:
    """Fetch all that is wanted; return the pieces as they were handed on."""

    async def collect() -> list[int]:
        got = []
        while (piece := await wanted.next()) is not None:
            assert piece.view == NOISE[piece.start : piece.start + PIECE]
            got.append(piece.index)
            await asyncio.sleep(0)
            wanted.release(piece)
        wanted.stop()
        return got

    fetch = Fetcher(source, wanted, Meter(reporter=Silent()), connections=connections, policy=QUICK).run()
    got, _ = await asyncio.wait_for(asyncio.gather(collect(), fetch), 20)
    return got


needs = st.lists(st.booleans(), min_size=COUNT, max_size=COUNT).map(bytes)


@settings(deadline=None, max_examples=60)
@given(needs, st.integers(1, 12), st.integers(1, 5), st.booleans(), st.sampled_from([0.0, 0.5]), st.integers(0, 1000))
def test_the_needed_pieces_come_and_no_others(
    needed: bytes, capacity: int, connections: int, ordered: bool, breaks: float, seed: int
) -> None:
    source = MemorySource(NOISE, breaks=breaks, seed=seed, chunk=300_000)
    wanted = orders(needed, capacity=capacity, connections=connections, ordered=ordered)
    got = asyncio.run(fetched(source, wanted, connections))
    assert (got if ordered else sorted(got)) == [index for index in range(COUNT) if needed[index]]
    if not breaks:
        assert source.fetched == sum(size_of(index) for index in got)


@settings(deadline=None, max_examples=40)
@given(needs, st.integers(1, 12), st.integers(1, 5), st.sampled_from([0.0, 0.5]), st.integers(0, 1000))
def test_the_needed_pieces_come_though_the_server_stops_serving_ranges(
    needed: bytes, capacity: int, connections: int, breaks: float, seed: int
) -> None:
    source = MemorySource(NOISE, breaks=breaks, seed=seed, chunk=300_000)
    source.ranges_end = seed % 6
    assert asyncio.run(fetched(source, orders(needed, capacity=capacity, connections=connections), connections)) == [
        index for index in range(COUNT) if needed[index]
    ]


@given(needs, st.integers(1, 30), st.integers(1, 5))
def test_no_span_holds_a_piece_that_is_not_needed(needed: bytes, capacity: int, connections: int) -> None:
    wanted = orders(needed, capacity=capacity, connections=connections)
    spans = []
    while (span := wanted.take()) is not None:
        spans.append(span)
    asked = [index for span in spans for index in range(span.start // PIECE, -(-span.end // PIECE))]
    assert asked == [index for index in range(COUNT) if needed[index]][: len(asked)]
    assert (capacity + 1) // 2 <= len(asked) <= capacity or len(asked) == needed.count(1)
    assert all(span.end % PIECE == 0 or span.end == len(NOISE) for span in spans)


@pytest.mark.parametrize("capacity", [2, 8, 100])
def test_neighbours_are_asked_for_together_and_gaps_are_not(capacity: int) -> None:
    needed = bytes([1, 1, 0, 1, 1, 1, 0, 0, 1, 1])
    wanted = orders(needed, capacity=capacity, connections=1)
    first = wanted.take()
    assert first is not None
    stretches = [list(group) for one, group in groupby(range(COUNT), key=needed.__getitem__) if one]
    assert first.end // PIECE <= stretches[0][-1] + 1


async def test_where_nothing_is_needed_nothing_is_asked_for() -> None:
    wanted = orders(bytes(COUNT))
    assert wanted.over
    assert wanted.take() is None
    assert await asyncio.wait_for(wanted.next(), 5) is None


async def test_needed_pieces_that_were_judged_are_not_fetched() -> None:
    source, pinned = MemorySource(NOISE), Pinned(piece=PIECE)
    pinned.add(2 * PIECE, NOISE[2 * PIECE : 4 * PIECE])
    needed = bytearray([0, 0, 1, 1, 0, 1, 0, 0, 0, 1])
    wanted = InOrder(length=len(NOISE), capacity=3, pinned=pinned, connections=2, needed=needed)
    got = await fetched(source, wanted, 2)
    assert got == [2, 3, 5, 9]
    assert source.fetched == size_of(5) + size_of(9)
