"""Walks an image along its route into an open target. Each way is a few lines over the rooms that do the work.

A room that not every way leads through is opened where it is needed: together they would take 60 ms at each start.
"""

import asyncio

from importer.api.failure import Failure
from importer.disk import detect
from importer.disk.image import Format
from importer.pipeline import movers, transfer
from importer.pipeline.amender import Amender
from importer.pipeline.fetcher import Fetcher
from importer.pipeline.in_order import InOrder
from importer.pipeline.resume import size_of
from importer.pipeline.route import Way
from importer.pipeline.shelf import PIECE
from importer.pipeline.trip import Landed, Trip
from importer.pipeline.writer import Writer


async def walk(trip: Trip) -> Landed:
    """Bring the disk into the target, sized to its virtual size. Raises Failure."""
    facts = trip.source.facts
    trip.meter.fetch_total = facts.served_length or facts.length
    match trip.route.way:
        case Way.BLANK:
            return await _blank(trip)
        case Way.COPY:
            return await _copy(trip)
        case Way.STREAM | Way.DECODE | Way.BLOCKS:
            return await _stream(trip)
        case Way.NATIVE:
            return await _native(trip)
        case Way.CONVERT:
            return await _convert(trip)
        case Way.SPILL:
            from importer.pipeline import spilling

            return await spilling.spill(trip)


async def _blank(trip: Trip) -> Landed:
    assert trip.request.size is not None
    await asyncio.to_thread(trip.target.size_to, trip.request.size, trip.request.preallocate)
    trip.meter.zeroes = trip.request.size
    return Landed(format=Format.RAW, virtual_size=trip.request.size)


async def _copy(trip: Trip) -> Landed:
    image = trip.found.image
    assert image is not None
    assert image.raw_span is not None
    trip.meter.enter("transferring")
    await asyncio.to_thread(trip.target.size_to, image.virtual_size, trip.request.preallocate)
    writer = Writer(trip.target, trip.meter, trip.guard, trip.wipe)
    await transfer.bring(trip, writer, until=image.raw_span[1], cap=_uncapped, resume=trip.resume)
    return Landed(format=image.format, virtual_size=image.virtual_size)


async def _stream(trip: Trip) -> Landed:
    """Raw bytes whose end only the stream shows."""
    trip.meter.enter("transferring")
    # What comes once more mostly is on the disk already; blocks of xz are left out if they are.
    writer = (Amender if trip.resume.amends else Writer)(trip.target, trip.meter, trip.guard, trip.wipe)
    if trip.found.wrapper is None:
        total = await transfer.bring(trip, writer, until=None, cap=_cap(trip))
    else:
        total = await transfer.decode(trip, writer, _cap(trip))
    size, found = total, Format.RAW
    if total >= 512 and trip.request.format is None:
        tail = await asyncio.to_thread(trip.target.read, total - 512, 512)
        if detect.is_fixed_vhd_footer(tail, total):
            size, found = total - 512, Format.VHD
    await asyncio.to_thread(trip.target.cut, size, total)
    await asyncio.to_thread(trip.target.size_to, size, trip.request.preallocate)
    return Landed(format=found, virtual_size=size)


def _cap(trip: Trip) -> movers.Cap:
    limit = trip.request.max_size

    def judge(total: int, /) -> None:
        if total > limit:
            raise Failure("too-large", "the disk is larger than the limit", decoded_so_far=total, limit=limit)

    return judge


def _uncapped(_total: int, /) -> None:
    """The probe told how much there is, and the fetcher takes no more."""


async def _native(trip: Trip) -> Landed:
    from importer.disk import native
    from importer.pipeline import unpack

    image, length, course = trip.found.image, trip.source.facts.length, trip.course
    assert image is not None
    assert length is not None
    assert course is not None
    trip.meter.enter("transferring")
    await asyncio.to_thread(trip.target.size_to, image.virtual_size, trip.request.preallocate)
    before = course.pieces(length, PIECE)
    course = course.without(trip.resume.done, PIECE)
    needed = course.pieces(length, PIECE)
    if trip.digests.wanted:
        first = (trip.resume.hashed.bytes if trip.resume.hashed else 0) // PIECE
        before[:] = b"\x01" * len(before)
        needed[first:] = b"\x01" * (len(needed) - first)
    trip.meter.resumed = size_of(before, length, PIECE) - size_of(needed, length, PIECE)
    orders = InOrder(length=length, capacity=transfer.CAPACITY, pinned=trip.pinned, connections=trip.connections, needed=needed)
    fetch = Fetcher(trip.source, orders, trip.meter, connections=trip.connections, policy=trip.policy).run()
    writer = Writer(trip.target, trip.meter, trip.guard, None if trip.resume.begins_anew else trip.wipe)
    unpacker = unpack.Unpacker(native.packing(image), writer, trip.meter, virtual_size=image.virtual_size)
    done = trip.checkpoints.done if trip.checkpoints else None
    await transfer.together(fetch, unpack.unpack(orders, course, unpacker, trip.digests, done), orders.stop, trip.checkpoints)
    if trip.resume.begins_anew:  # what the tables do not map is zero, too
        trip.meter.zeroes = image.virtual_size - trip.meter.written
    return Landed(format=image.format, virtual_size=image.virtual_size)


async def _convert(trip: Trip) -> Landed:
    from importer.pipeline import convert
    from importer.pipeline.window import Window

    image, length = trip.found.image, trip.source.facts.length
    assert image is not None
    assert length is not None
    trip.meter.enter("converting")
    await asyncio.to_thread(trip.target.size_to, image.virtual_size, trip.request.preallocate)
    work = convert.conversion(trip, image, trip.extents, trip.pinned, length)
    descriptor = getattr(trip.source, "descriptor", None)
    if descriptor is not None and not trip.digests.wanted:
        sandbox = await convert.from_file(work, descriptor)
    else:
        window = Window(length=length, capacity=transfer.CAPACITY, pinned=trip.pinned)
        fetcher = Fetcher(trip.source, window, trip.meter, connections=trip.connections, policy=trip.policy)
        sandbox = await convert.through_window(work, fetcher, window, trip.digests)
    return Landed(format=image.format, virtual_size=image.virtual_size, sandbox=sandbox)
