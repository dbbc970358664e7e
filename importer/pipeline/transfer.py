"""The bytes of an object go to a writer, as they are or decoded, over several connections or one."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from importer.pipeline import movers
from importer.pipeline.checkpoint import Checkpoints
from importer.pipeline.fetcher import Fetcher, leaf_of
from importer.pipeline.in_order import InOrder
from importer.pipeline.resume import Resume
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
            needed=resume.missing(-(-length // PIECE), hashing=trip.digests.wanted, piece=PIECE),
        )
        fetch = Fetcher(trip.source, orders, trip.meter, connections=trip.connections, policy=trip.policy).run()
        done = trip.checkpoints.done if trip.checkpoints else None
        work = movers.copy(orders, writer, trip.digests, trip.meter, until=until, cap=cap, done=done)
        return await together(fetch, work, orders.stop, trip.checkpoints)
    stream = _sequential(trip)
    work = movers.copy(stream, writer, trip.digests, trip.meter, until=until, cap=cap)
    return await together(stream.run(), work, stream.stop)


def _sequential(trip: Trip) -> Sequential:
    capacity = CAPACITY if trip.source.facts.served_length is None else FEW
    return Sequential(trip.source, trip.meter, capacity=capacity, pinned=trip.pinned, policy=trip.policy)


async def decode(trip: Trip, writer: Writer, cap: movers.Cap) -> int:
    """Decode the wrapper; return how many bytes it held."""
    wrapper, memory = trip.found.wrapper, trip.request.decoder_memory
    assert wrapper is not None
    pieces: InOrder | Sequential
    if trip.source.facts.ranges and trip.source.facts.length is not None:
        pieces = InOrder(length=trip.source.facts.length, capacity=CAPACITY, pinned=trip.pinned, connections=trip.connections)
        fetch = Fetcher(trip.source, pieces, trip.meter, connections=trip.connections, policy=trip.policy).run()
    else:
        pieces = _sequential(trip)
        fetch = pieces.run()
    if trip.found.blocks:
        from importer.disk import xz_index

        threads = movers.threads_for(xz_index.first_dictionary(trip.source.head), memory)
        work = movers.decode_blocks(pieces, trip.found.blocks, writer, trip.digests, trip.meter, memory=memory, threads=threads)
    else:
        work = movers.decode(pieces, wrapper, writer, trip.digests, trip.meter, memory=memory, cap=cap)
    return await together(fetch, work, pieces.stop)


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
