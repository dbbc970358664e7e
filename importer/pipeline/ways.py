"""Walks an image along its route into an open target. Each way is a few lines over the rooms that do the work.

A room that not every way leads through is opened where it is needed: together they would take 60 ms at each start.
"""

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from importer.api.failure import Failure
from importer.api.request import ImportRequest
from importer.disk import detect, examine
from importer.disk.chart import Course
from importer.disk.extents import Extents
from importer.disk.image import Format, Image, Limits
from importer.disk.reads import Reads
from importer.disk.space import SpaceGuard, reserve_of
from importer.disk.target import Target
from importer.pipeline import movers
from importer.pipeline.checkpoint import Checkpoints
from importer.pipeline.digest import Digests
from importer.pipeline.fetcher import Fetcher, leaf_of
from importer.pipeline.in_order import InOrder
from importer.pipeline.judge import Found
from importer.pipeline.meter import Meter
from importer.pipeline.patience import Policy
from importer.pipeline.pinned import Pinned
from importer.pipeline.resume import Resume
from importer.pipeline.room import Room
from importer.pipeline.route import Route, Way
from importer.pipeline.sequential import Sequential
from importer.pipeline.shelf import PIECE
from importer.pipeline.window import Window
from importer.pipeline.writer import Writer
from importer.sources.protocol import Source
from machinery.values.quantity import show_size

if TYPE_CHECKING:
    from importer.pipeline import convert

T = TypeVar("T")
CAPACITY = 48
WINDOW_CAPACITY = 48
SPILL_SLACK = 64 << 20
NOTHING = Resume()
NO_TOOL = "no tool was run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """Everything one walk needs."""

    request: ImportRequest
    source: Source
    found: Found
    extents: Extents | None
    course: Course | None
    route: Route
    target: Target
    resume: Resume
    checkpoints: Checkpoints | None
    """Where it is written down what landed; None on ways that begin anew."""
    guard: SpaceGuard | None
    pinned: Pinned
    digests: Digests
    meter: Meter
    policy: Policy

    @property
    def connections(self) -> int:
        """How many to use."""
        return self.request.access.connections


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """What a walk left in the target."""

    format: Format
    virtual_size: int
    sandbox: str = NO_TOOL


async def walk(trip: Trip) -> Landed:
    """Bring the disk into the target, sized to its virtual size. Raises Failure."""
    trip.meter.fetch_total = trip.source.facts.length
    match trip.route.way:
        case Way.COPY:
            return await _copy(trip)
        case Way.STREAM | Way.DECODE | Way.BLOCKS:
            return await _stream(trip)
        case Way.NATIVE:
            return await _native(trip)
        case Way.CONVERT:
            return await _convert(trip)
        case Way.SPILL:
            return await _spill(trip)


async def _copy(trip: Trip) -> Landed:
    image = trip.found.image
    assert image is not None
    assert image.raw_span is not None
    trip.meter.enter("transferring")
    await asyncio.to_thread(trip.target.size_to, image.virtual_size, trip.request.preallocate)
    writer = Writer(trip.target, trip.meter, trip.guard)
    await _bring(trip, writer, until=image.raw_span[1], cap=_spill_cap(trip.source.facts.length or 0), resume=trip.resume)
    return Landed(format=image.format, virtual_size=image.virtual_size)


async def _bring(trip: Trip, writer: Writer, *, until: int | None, cap: movers.Cap, resume: Resume = NOTHING) -> int:
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
        return await _together(fetch, work, orders.stop, trip.checkpoints)
    stream = Sequential(trip.source, trip.meter, capacity=CAPACITY, pinned=trip.pinned, policy=trip.policy)
    work = movers.copy(stream, writer, trip.digests, trip.meter, until=until, cap=cap)
    return await _together(stream.run(), work, stream.stop)


async def _decode(trip: Trip, writer: Writer, cap: movers.Cap) -> int:
    """Decode the wrapper; return how many bytes it held."""
    wrapper, memory = trip.found.wrapper, trip.request.decoder_memory
    assert wrapper is not None
    pieces: InOrder | Sequential
    if trip.source.facts.ranges and trip.source.facts.length is not None:
        pieces = InOrder(length=trip.source.facts.length, capacity=CAPACITY, pinned=trip.pinned, connections=trip.connections)
        fetch = Fetcher(trip.source, pieces, trip.meter, connections=trip.connections, policy=trip.policy).run()
    else:
        pieces = Sequential(trip.source, trip.meter, capacity=CAPACITY, pinned=trip.pinned, policy=trip.policy)
        fetch = pieces.run()
    if trip.found.blocks:
        from importer.disk import xz_index

        threads = movers.threads_for(xz_index.first_dictionary(trip.source.head), memory)
        work = movers.decode_blocks(pieces, trip.found.blocks, writer, trip.digests, trip.meter, memory=memory, threads=threads)
    else:
        work = movers.decode(pieces, wrapper, writer, trip.digests, trip.meter, memory=memory, cap=cap)
    return await _together(fetch, work, pieces.stop)


async def _stream(trip: Trip) -> Landed:
    """Raw bytes whose end only the stream shows."""
    trip.meter.enter("transferring")
    writer = Writer(trip.target, trip.meter, trip.guard)
    if trip.found.wrapper is None:
        total = await _bring(trip, writer, until=None, cap=_cap(trip))
    else:
        total = await _decode(trip, writer, _cap(trip))
    size, found = total, Format.RAW
    if total >= 512 and trip.request.format is None:
        tail = await asyncio.to_thread(os.pread, trip.target.fd, 512, total - 512)
        if detect.is_fixed_vhd_footer(tail, total):
            size, found = total - 512, Format.VHD
    await asyncio.to_thread(os.ftruncate, trip.target.fd, size)
    await asyncio.to_thread(trip.target.size_to, size, trip.request.preallocate)
    return Landed(format=found, virtual_size=size)


def _cap(trip: Trip) -> movers.Cap:
    limit = trip.request.max_size

    def judge(total: int, /) -> None:
        if total > limit:
            raise Failure("too-large", "the disk is larger than the limit", decoded_so_far=total, limit=limit)

    return judge


async def _native(trip: Trip) -> Landed:
    from importer.disk import native
    from importer.pipeline import unpack

    image, length, course = trip.found.image, trip.source.facts.length, trip.course
    assert image is not None
    assert length is not None
    assert course is not None
    trip.meter.enter("transferring")
    await asyncio.to_thread(trip.target.size_to, image.virtual_size, trip.request.preallocate)
    course = course.without(trip.resume.done, PIECE)
    needed = course.pieces(length, PIECE)
    if trip.digests.wanted:
        unseen = trip.resume.missing(len(needed), hashing=True, piece=PIECE)
        needed = bytearray(map(max, needed, unseen))
    orders = InOrder(length=length, capacity=CAPACITY, pinned=trip.pinned, connections=trip.connections, needed=needed)
    fetch = Fetcher(trip.source, orders, trip.meter, connections=trip.connections, policy=trip.policy).run()
    writer = Writer(trip.target, trip.meter, trip.guard)
    unpacker = unpack.Unpacker(native.packing(image), writer, trip.meter, virtual_size=image.virtual_size)
    done = trip.checkpoints.done if trip.checkpoints else None
    await _together(fetch, unpack.unpack(orders, course, unpacker, trip.digests, done), orders.stop, trip.checkpoints)
    if trip.resume.begins_anew:  # what the tables do not map is zero, too
        trip.meter.zeroes = image.virtual_size - trip.meter.written
    return Landed(format=image.format, virtual_size=image.virtual_size)


async def _convert(trip: Trip) -> Landed:
    from importer.pipeline import convert

    image, length = trip.found.image, trip.source.facts.length
    assert image is not None
    assert length is not None
    trip.meter.enter("converting")
    await asyncio.to_thread(trip.target.size_to, image.virtual_size, trip.request.preallocate)
    work = _conversion(trip, image, trip.extents, trip.pinned, length)
    descriptor = getattr(trip.source, "descriptor", None)
    if descriptor is not None and not trip.digests.wanted:
        sandbox = await convert.from_file(work, descriptor)
    else:
        window = Window(length=length, capacity=WINDOW_CAPACITY, pinned=trip.pinned)
        fetcher = Fetcher(trip.source, window, trip.meter, connections=trip.connections, policy=trip.policy)
        sandbox = await convert.through_window(work, fetcher, window, trip.digests)
    return Landed(format=image.format, virtual_size=image.virtual_size, sandbox=sandbox)


def _conversion(trip: Trip, image: Image, extents: Extents | None, pinned: Pinned, length: int) -> "convert.Conversion":
    from importer.pipeline import convert

    return convert.Conversion(
        image=image,
        length=length,
        compressed=bool(image.compressed) or (extents is not None and extents.compressed_clusters > 0),
        pinned=pinned,
        target=trip.target,
        guard=trip.guard,
        meter=trip.meter,
        policy=trip.policy,
    )


async def _spill(trip: Trip) -> Landed:
    """Put the image into an unlinked file first, judge it there, and convert from there."""
    from importer.disk.spill import Spill
    from importer.pipeline import convert

    directory = trip.request.scratch_dir or trip.target.directory
    limit = _spill_limit(trip)
    if (
        trip.found.wrapper is None and trip.source.facts.length is not None
    ):  # then the limit is what it will take: said before the body
        Room.at(directory, trip.request.reserve).judge(needed=limit, virtual_size=None, preallocate=False)
    spill = await asyncio.to_thread(Spill.open, directory, cap=limit)
    try:
        trip.meter.note(f"a spill of up to {show_size(limit)} in {directory}: {trip.route.reason}")
        trip.meter.enter("spilling")
        guard = trip.guard
        if trip.request.scratch_dir is not None:
            guard = SpaceGuard(spill.free_space, reserve_of(spill.fd, trip.request.reserve))
        writer = Writer(spill, trip.meter, guard)
        if trip.found.wrapper is None:
            length = await _bring(trip, writer, until=None, cap=_spill_cap(limit))
        else:
            length = await _decode(trip, writer, _spill_cap(limit))
        trip.meter.spilled, trip.meter.written, trip.meter.zeroes = length, 0, 0
        await asyncio.to_thread(spill.extend, length)
        image, extents = await asyncio.to_thread(_judge_file, spill.fd, length, trip)
        trip.meter.enter("converting")
        await asyncio.to_thread(trip.target.size_to, image.virtual_size, trip.request.preallocate)
        work = _conversion(trip, image, extents, Pinned(piece=PIECE), length)
        sandbox = await convert.from_file(work, spill.fd)
        return Landed(format=image.format, virtual_size=image.virtual_size, sandbox=sandbox)
    finally:
        spill.close()


def _spill_limit(trip: Trip) -> int:
    """Return the most a spill may hold: what the image says it needs, or what the limits allow at all."""
    length = trip.source.facts.length
    if trip.found.wrapper is None and length is not None:
        return length
    virtual = trip.found.image.virtual_size if trip.found.image else trip.request.max_size
    if trip.found.format is Format.VHDX:  # qemu-img's fixed ones hold every block twice: allocated first, then appended
        virtual *= 2
    return virtual + virtual // 10 + SPILL_SLACK


def _spill_cap(limit: int) -> movers.Cap:
    def judge(total: int, /) -> None:
        if total > limit:
            raise Failure(
                "bomb", "the wrapper holds far more than an image of this virtual size needs", decoded_so_far=total, limit=limit
            )

    return judge


def _judge_file(fd: int, length: int, trip: Trip) -> tuple[Image, Extents | None]:
    found = trip.found.format
    image = _over_file(examine.examine(found, length, Limits(max_size=trip.request.max_size)), fd)
    if image.raw_span is not None:
        return image, None
    extents = Extents(length=length, unit=examine.unit(image))
    _over_file(examine.walk(image, length, extents), fd)
    return image, extents


def _over_file(reads: Reads[T], fd: int) -> T:
    try:
        wanted = next(reads)
        while True:
            wanted = reads.send(tuple(os.pread(fd, span.size, span.start) for span in wanted))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def _together(
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
