"""The bytes of an object go to a writer, as they are or decoded, over several connections or one."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from importer.pipeline import movers
from importer.pipeline.checkpoint import Checkpoints
from importer.pipeline.fetcher import Fetcher, leaf_of
from importer.pipeline.in_order import InOrder
from importer.pipeline.resume import Resume, size_of
from importer.pipeline.sequential import Sequential
from importer.pipeline.shelf import PIECE
from importer.pipeline.trip import Trip
from importer.pipeline.writer import Writer

T = TypeVar("T")
CAPACITY = 48
"""Pieces in hand at a time."""
FEW = 16
"""Pieces in hand of what comes from a layer, which holds as many again of its own."""
NOTHING = Resume()


async def bring(trip: Trip, writer: Writer, *, until: int | None, cap: movers.Cap, resume: Resume = NOTHING) -> int:
    """Copy the object's own bytes, by ranges where the server has them; return how many that took."""
    length = trip.source.facts.length
    if trip.source.facts.ranges and length is not None:
        orders = InOrder(
            length=length,
            capacity=CAPACITY,
            pinned=trip.pinned,
            connections=trip.connections,
            ordered=trip.digests.wanted,
            needed=_left_out(trip, length, resume.missing(-(-length // PIECE))),
        )
        fetch = Fetcher(trip.source, orders, trip.meter, connections=trip.connections, policy=trip.policy).run()
        done = trip.checkpoints.done if trip.checkpoints else None
        work = movers.copy(orders, writer, trip.digests, trip.meter, until=until, cap=cap, done=done)
        return await together(fetch, work, orders.stop, trip.checkpoints)
    stream = _sequential(trip)
    work = movers.copy(stream, writer, trip.digests, trip.meter, until=until, cap=cap)
    return await together(stream.run(), work, stream.stop)


def _left_out(trip: Trip, length: int, needed: bytearray) -> bytearray:
    """Count what need not be fetched again, and return `needed`: a byte for each piece of an object of `length` bytes."""
    trip.meter.resumed = length - size_of(needed, length, PIECE)
    return needed


def _sequential(trip: Trip) -> Sequential:
    capacity = CAPACITY if trip.source.facts.served_length is None else FEW
    return Sequential(trip.source, trip.meter, capacity=capacity, pinned=trip.pinned, policy=trip.policy)


async def decode(trip: Trip, writer: Writer, cap: movers.Cap) -> int:
    """Decode the wrapper; return how many bytes it held."""
    wrapper, memory = trip.found.wrapper, trip.request.decoder_memory
    assert wrapper is not None
    if trip.found.blocks:
        return await _decode_blocks(trip, writer)
    begin = trip.resume.mark or movers.BEGINNING
    pieces, fetch = _from(trip, begin.source)
    work = movers.decode(
        pieces, wrapper, writer, trip.digests, trip.meter, memory=memory, cap=cap, begin=begin,
        passed=trip.checkpoints.mark if trip.checkpoints else None,
    )  # fmt: skip
    return await together(fetch, work, pieces.stop, trip.checkpoints)


async def _decode_blocks(trip: Trip, writer: Writer) -> int:
    """Decode the blocks that are not done yet; return how many bytes all of them hold."""
    from importer.disk import xz_index

    length, blocks, checkpoints = trip.source.facts.length, trip.found.blocks, trip.checkpoints
    assert length is not None
    left = [index for index, missing in enumerate(trip.resume.missing(len(blocks))) if missing]
    hashed = trip.resume.hashed.bytes if trip.resume.hashed else 0
    needed = _pieces_of([(blocks[index].start, blocks[index].end) for index in left], length)
    if trip.digests.wanted:
        needed[hashed // PIECE :] = b"\x01" * (len(needed) - hashed // PIECE)
    pieces = InOrder(
        length=length, capacity=CAPACITY, pinned=trip.pinned, connections=trip.connections, needed=_left_out(trip, length, needed)
    )
    fetch = Fetcher(trip.source, pieces, trip.meter, connections=trip.connections, policy=trip.policy).run()

    def done(index: int) -> None:
        assert checkpoints is not None
        checkpoints.done(left[index], blocks[left[index]].uncompressed_size)

    if checkpoints is not None:
        checkpoints.reach = lambda units: blocks[units - 1].end if units else 0
    memory = trip.request.decoder_memory
    threads = movers.threads_for(xz_index.first_dictionary(trip.source.head), memory)
    work = movers.decode_blocks(
        pieces, tuple(blocks[index] for index in left), writer, trip.digests, trip.meter, memory=memory, threads=threads,
        done=done if checkpoints else None,
    )  # fmt: skip
    await together(fetch, work, pieces.stop, checkpoints)
    return sum(block.uncompressed_size for block in blocks)


def _pieces_of(spans: list[tuple[int, int]], length: int) -> bytearray:
    """Return a byte for each piece of the object, 1 for those that some span has bytes of; but one if there are none."""
    needed = bytearray(-(-length // PIECE))
    for start, end in spans or [(length - 1, length)]:
        needed[start // PIECE : (end - 1) // PIECE + 1] = b"\x01" * ((end - 1) // PIECE + 1 - start // PIECE)
    return needed


def _from(trip: Trip, start: int) -> tuple[InOrder | Sequential, Coroutine[Any, Any, None]]:
    """Return the object's pieces from byte `start` on, in order, and what fetches them; without ranges all pieces come."""
    length = trip.source.facts.length
    if not trip.source.facts.ranges or length is None:
        stream = _sequential(trip)
        return stream, stream.run()
    needed = _left_out(trip, length, _pieces_of([(start, length)], length))
    pieces = InOrder(length=length, capacity=CAPACITY, pinned=trip.pinned, connections=trip.connections, needed=needed)
    return pieces, Fetcher(trip.source, pieces, trip.meter, connections=trip.connections, policy=trip.policy).run()


async def together(
    fetch: Coroutine[Any, Any, None], work: Coroutine[Any, Any, T], stop: Any, checkpoints: Checkpoints | None = None
) -> T:
    """Fetch while working, and write down what is done; the first failure of any ends all."""

    async def working() -> T:
        try:
            return await work
        finally:
            stop()
            if saving is not None:
                saving.cancel()

    saving: asyncio.Task[None] | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            if checkpoints is not None:
                saving = tasks.create_task(checkpoints.run())
            tasks.create_task(fetch)
            task = tasks.create_task(working())
    except BaseExceptionGroup as group:
        raise leaf_of(group) from None
    return task.result()
