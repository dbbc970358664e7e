"""Pieces come whole, in order and within their bound, however the source breaks."""

import asyncio
from collections.abc import Awaitable
from itertools import pairwise
from random import Random
from typing import TypeVar

import pytest
from fakes.memory_source import MemorySource
from hypothesis import given, settings
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.api.report import Progress
from importer.pipeline.fetcher import Fetcher
from importer.pipeline.in_order import InOrder
from importer.pipeline.meter import Meter
from importer.pipeline.patience import Policy
from importer.pipeline.pinned import Pinned
from importer.pipeline.sequential import Sequential
from importer.pipeline.shelf import PIECE
from importer.pipeline.window import Window

T = TypeVar("T")
QUICK = Policy(first_delay=0.0001, longest_delay=0.001, stall_seconds=5.0)
NOISE = Random(7).randbytes(9 * PIECE + 4321)


class Silent:
    def progress(self, moment: Progress) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


def meter() -> Meter:
    return Meter(reporter=Silent())


async def bounded(work: Awaitable[T]) -> T:
    return await asyncio.wait_for(work, 20)


async def collect(pieces: InOrder | Sequential) -> bytes:
    out = bytearray(len(NOISE))
    total = 0
    while (piece := await pieces.next()) is not None:
        out[piece.start : piece.start + len(piece.view)] = piece.view
        total += len(piece.view)
        pieces.release(piece)
    pieces.stop()
    return bytes(out[:total])


async def fetch_in_order(source: MemorySource, *, capacity: int, connections: int, ordered: bool, pinned: Pinned) -> bytes:
    orders = InOrder(length=len(source.data), capacity=capacity, pinned=pinned, connections=connections, ordered=ordered)
    fetcher = Fetcher(source, orders, meter(), connections=connections, policy=QUICK)
    got, _ = await bounded(asyncio.gather(collect(orders), fetcher.run()))
    return got


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 5), st.booleans(), st.sampled_from([0.0, 0.3, 0.8]), st.integers(0, 1000))
def test_every_byte_arrives_once_whatever_breaks(
    capacity: int, connections: int, ordered: bool, breaks: float, seed: int
) -> None:
    source = MemorySource(NOISE, breaks=breaks, seed=seed, chunk=400_000)
    pinned = Pinned(piece=PIECE)
    assert (
        asyncio.run(fetch_in_order(source, capacity=capacity, connections=connections, ordered=ordered, pinned=pinned)) == NOISE
    )
    if not breaks:
        assert source.fetched == len(NOISE)


async def test_the_receipt_hears_how_the_number_of_connections_came_about() -> None:
    figures = meter()
    orders = InOrder(length=len(NOISE), capacity=12, pinned=Pinned(piece=PIECE), connections=3)
    fetcher = Fetcher(MemorySource(NOISE), orders, figures, connections=3, policy=QUICK)
    await bounded(asyncio.gather(collect(orders), fetcher.run()))
    assert figures.connections_reason == "begun with 3, the most allowed, as the time to the first byte is unknown"


async def test_judged_pieces_are_not_fetched_again() -> None:
    source, pinned = MemorySource(NOISE), Pinned(piece=PIECE)
    pinned.add(0, NOISE[: 2 * PIECE])
    assert await fetch_in_order(source, capacity=4, connections=2, ordered=True, pinned=pinned) == NOISE
    assert source.fetched == len(NOISE) - 2 * PIECE


async def test_other_bytes_than_the_judged_ones_end_the_import() -> None:
    source, pinned = MemorySource(NOISE), Pinned(piece=PIECE)
    pinned.add(5 * PIECE + 10, b"something else")
    with pytest.raises(Failure) as caught:
        await fetch_in_order(source, capacity=4, connections=2, ordered=True, pinned=pinned)
    assert caught.value.code == "source-changed"


async def test_a_stalled_connection_is_cut_and_only_its_missing_bytes_are_asked_for_again() -> None:
    source = MemorySource(NOISE)
    source.stalls = {1}
    orders = InOrder(length=len(NOISE), capacity=12, pinned=Pinned(piece=PIECE), connections=3)
    policy = Policy(stall_seconds=0.2, first_delay=0.001)
    fetcher = Fetcher(source, orders, meter(), connections=3, policy=policy)
    got, _ = await bounded(asyncio.gather(collect(orders), fetcher.run()))
    assert got == NOISE
    assert source.attempts[1] in source.attempts[2:]


async def test_a_source_that_brings_nothing_ends_as_stalled() -> None:
    source = MemorySource(NOISE)
    source.stalls = set(range(1000))
    orders = InOrder(length=len(NOISE), capacity=4, pinned=Pinned(piece=PIECE), connections=2)
    policy = Policy(stall_seconds=0.02, give_up_seconds=0.1, first_delay=0.001)
    with pytest.raises(Failure) as caught:
        await bounded(Fetcher(source, orders, meter(), connections=2, policy=policy).run())
    assert caught.value.code == "stalled"
    assert "stalled" in caught.value.evidence["last_reason"]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.integers(1, 5), st.booleans(), st.sampled_from([0.0, 0.3, 0.6]), st.integers(0, 1000))
def test_where_ranges_end_the_rest_is_read_from_the_first_byte_on(
    capacity: int, connections: int, ordered: bool, breaks: float, seed: int
) -> None:
    source = MemorySource(NOISE, breaks=breaks, seed=seed, chunk=400_000)
    source.ranges_end = seed % 7
    needed = bytearray(Random(seed).choices(b"\x00\x01", weights=(1, 4), k=10))
    pinned = Pinned(piece=PIECE)
    pinned.add(0, NOISE[: (seed % 3) * PIECE])
    orders = InOrder(length=len(NOISE), capacity=capacity, pinned=pinned, connections=connections, ordered=ordered, needed=needed)
    fetcher = Fetcher(source, orders, meter(), connections=connections, policy=QUICK)

    async def run() -> bytes:
        return (await bounded(asyncio.gather(collect(orders), fetcher.run())))[0]

    got = asyncio.run(run())
    for index in range(10):
        at = slice(index * PIECE, (index + 1) * PIECE)
        assert not needed[index] or got[at] == NOISE[at][: len(got[at])]


async def test_where_ranges_end_random_reads_end_at_once_with_a_name() -> None:
    source = MemorySource(NOISE)
    source.ranges_end = 2
    window = Window(length=len(NOISE), capacity=8, pinned=Pinned(piece=PIECE))
    fetch = asyncio.create_task(Fetcher(source, window, meter(), connections=3, policy=QUICK).run())
    fetch.add_done_callback(lambda task: window.stop(task.exception()))

    async def read() -> None:
        for index in range(window.count):
            window.release(await window.acquire(index))

    with pytest.raises(Failure, match="stopped serving ranges") as caught:
        await bounded(read())
    assert caught.value.code == "protocol"
    await asyncio.wait([fetch])


async def test_rereading_gives_up_on_a_source_that_brings_nothing() -> None:
    source = MemorySource(NOISE, breaks=1.0)
    source.ranges_end = 0
    source.stalls = set(range(1, 1000))
    orders = InOrder(length=len(NOISE), capacity=4, pinned=Pinned(piece=PIECE), connections=2)
    policy = Policy(stall_seconds=0.02, give_up_seconds=0.1, first_delay=0.001)
    with pytest.raises(Failure, match="stopped serving ranges") as caught:
        await bounded(Fetcher(source, orders, meter(), connections=2, policy=policy).run())
    assert caught.value.code == "stalled"


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.sampled_from([0.0, 0.5, 0.8]), st.integers(0, 1000), st.booleans())
def test_a_source_without_ranges_is_begun_anew_and_never_mixed(capacity: int, breaks: float, seed: int, known: bool) -> None:
    async def run() -> bytes:
        source = MemorySource(NOISE, ranges=False, known=known, breaks=breaks, seed=seed, chunk=700_000)
        stream = Sequential(source, meter(), capacity=capacity, pinned=Pinned(piece=PIECE), policy=QUICK)
        got, _ = await bounded(asyncio.gather(collect(stream), stream.run()))
        return got

    assert asyncio.run(run()) == NOISE


async def test_a_second_answer_that_begins_otherwise_is_a_changed_source() -> None:
    source = MemorySource(NOISE, ranges=False, breaks=1.0, seed=3)
    stream = Sequential(source, meter(), capacity=12, pinned=Pinned(piece=PIECE), policy=QUICK)

    def change(fetched: int) -> None:
        if fetched > PIECE:
            source.data, source.breaks = b"x" + NOISE[1:], 0.0

    source.served = change
    with pytest.raises(Failure) as caught:
        await bounded(asyncio.gather(stream.run(), collect(stream)))
    assert caught.value.code == "source-changed"


def reads(seed: int, *, sequential: bool) -> list[tuple[int, int]]:
    random = Random(seed)
    if sequential:
        cuts = sorted({0, len(NOISE), *(random.randrange(len(NOISE)) for _ in range(60))})
        return list(pairwise(cuts))
    return [
        (start, min(len(NOISE), start + random.randint(1, 2 * PIECE)))
        for start in (random.randrange(len(NOISE)) for _ in range(60))
    ]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.booleans(), st.sampled_from([0.0, 0.3]), st.integers(1, 4))
def test_the_window_serves_any_reads_in_parallel_without_a_deadlock(
    seed: int, sequential: bool, breaks: float, readers: int
) -> None:
    async def run() -> int:
        source = MemorySource(NOISE, breaks=breaks, seed=seed, chunk=400_000)
        window = Window(length=len(NOISE), capacity=3 * readers + 5, pinned=Pinned(piece=PIECE))
        fetch = asyncio.create_task(Fetcher(source, window, meter(), connections=3, policy=QUICK).run())
        todo = iter(reads(seed, sequential=sequential))

        async def reader() -> None:
            for start, end in todo:
                pieces = [await window.acquire(index) for index in range(start // PIECE, (end - 1) // PIECE + 1)]
                data = b"".join(bytes(piece.view[max(0, start - piece.start) : end - piece.start]) for piece in pieces)
                for piece in pieces:
                    window.release(piece)
                assert data == NOISE[start:end]

        await bounded(asyncio.gather(*(reader() for _ in range(readers))))
        window.stop()
        await bounded(fetch)
        return source.fetched

    fetched = asyncio.run(run())
    if sequential and not breaks:
        assert fetched == len(NOISE)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_a_digest_that_follows_a_slightly_disordered_reader_fetches_nothing_twice(seed: int, readers: int) -> None:
    async def run() -> tuple[int, bytes]:
        source = MemorySource(NOISE, seed=seed, chunk=400_000)
        window = Window(length=len(NOISE), capacity=10, pinned=Pinned(piece=PIECE))
        fetch = asyncio.create_task(Fetcher(source, window, meter(), connections=2, policy=QUICK).run())
        random = Random(seed)
        todo = iter(sorted(range(window.count), key=lambda index: index + random.random() * 3))
        seen = bytearray()

        async def reader() -> None:
            for index in todo:
                window.release(await window.acquire(index))

        async def digest() -> None:
            for index in range(window.count):
                window.follow(index)
                await window.until_base(index)
                piece = await window.acquire(index, leads=window.reader_done)
                await asyncio.sleep(0)
                seen.extend(piece.view)
                window.release(piece)

        follower = asyncio.create_task(digest())
        await bounded(asyncio.gather(*(reader() for _ in range(readers))))
        window.lead()
        await bounded(follower)
        window.stop()
        await bounded(fetch)
        return source.fetched, bytes(seen)

    fetched, seen = asyncio.run(run())
    assert seen == NOISE
    assert fetched <= len(NOISE) * 1.1
