"""An image that must be read out of order but comes in order: put into an unlinked file first, judged and read there."""

import asyncio
import os
from typing import TypeVar

from importer.api.failure import Failure
from importer.disk import examine, native
from importer.disk.chart import Chart, Course
from importer.disk.extents import Extents
from importer.disk.image import Format, Image, Limits
from importer.disk.reads import Reads
from importer.disk.space import SpaceGuard, reserve_of
from importer.disk.spill import Spill
from importer.pipeline import convert, movers, transfer, unpack
from importer.pipeline.digest import Digests
from importer.pipeline.file_pieces import FilePieces
from importer.pipeline.pinned import Pinned
from importer.pipeline.room import Room
from importer.pipeline.shelf import PIECE
from importer.pipeline.trip import Landed, Trip
from importer.pipeline.writer import Writer
from machinery.values.quantity import show_size

T = TypeVar("T")
SLACK = 64 << 20


async def spill(trip: Trip) -> Landed:
    """Put the image into an unlinked file first, judge it there, and read it from there."""
    directory = trip.request.scratch_dir or trip.target.directory
    limit = _limit(trip)
    if (
        trip.found.wrapper is None and trip.source.facts.length is not None
    ):  # then the limit is what it will take: said before the body
        Room.at(directory, trip.request.reserve).judge(needed=limit, virtual_size=None, preallocate=False)
    file = await asyncio.to_thread(Spill.open, directory, cap=limit)
    try:
        trip.meter.note(f"a spill of up to {show_size(limit)} in {directory}: {trip.route.reason}")
        trip.meter.enter("spilling")
        guard = trip.guard
        if trip.request.scratch_dir is not None or guard is None:
            guard = SpaceGuard(file.free_space, reserve_of(file.fd, trip.request.reserve))
        writer = Writer(file, trip.meter, guard)
        if trip.found.wrapper is None:
            length = await transfer.bring(trip, writer, until=None, cap=cap(limit))
        else:
            length = await transfer.decode(trip, writer, cap(limit))
        trip.meter.spilled, trip.meter.written, trip.meter.zeroes = length, 0, 0
        await asyncio.to_thread(file.extend, length)
        image, extents, course = await asyncio.to_thread(_judge_file, file.fd, length, trip)
        trip.meter.enter("converting")
        await asyncio.to_thread(trip.target.size_to, image.virtual_size, trip.request.preallocate)
        if course is not None:
            return await _read_natively(trip, image, course, file.fd, length)
        work = convert.conversion(trip, image, extents, Pinned(piece=PIECE), length)
        sandbox = await convert.from_file(work, file.fd)
        return Landed(format=image.format, virtual_size=image.virtual_size, sandbox=sandbox)
    finally:
        file.close()


def _limit(trip: Trip) -> int:
    """Return the most a spill may hold: what the image says it needs, or what the limits allow at all."""
    length = trip.source.facts.length
    if trip.found.wrapper is None and length is not None:
        return length
    virtual = trip.found.image.virtual_size if trip.found.image else trip.request.max_size
    if trip.found.format is Format.VHDX:  # qemu-img's fixed ones hold every block twice: allocated first, then appended
        virtual *= 2
    return virtual + virtual // 10 + SLACK


def cap(limit: int) -> movers.Cap:
    """Return what ends an import whose wrapper holds more than `limit` bytes."""

    def judge(total: int, /) -> None:
        if total > limit:
            raise Failure(
                "bomb", "the wrapper holds far more than an image of this virtual size needs", decoded_so_far=total, limit=limit
            )

    return judge


async def _read_natively(trip: Trip, image: Image, course: Course, descriptor: int, length: int) -> Landed:
    pieces = FilePieces(descriptor, length, course.pieces(length, PIECE))
    writer = Writer(trip.target, trip.meter, trip.guard)
    unpacker = unpack.Unpacker(native.packing(image), writer, trip.meter, virtual_size=image.virtual_size)
    await unpack.unpack(pieces, course, unpacker, Digests((), trip.meter))
    trip.meter.zeroes = image.virtual_size - trip.meter.written
    return Landed(format=image.format, virtual_size=image.virtual_size)


def _judge_file(fd: int, length: int, trip: Trip) -> tuple[Image, Extents | None, Course | None]:
    """Judge the image in the spill; return what its tables claim, and the course through them if it is read natively."""
    image = _over_file(examine.examine(trip.found.format, length, Limits(max_size=trip.request.max_size)), fd)
    if image.raw_span is not None:
        return image, None, None
    chart = None if native.obstacle(image) else Chart()
    extents = Extents(length=length, unit=examine.unit(image), chart=chart)
    _over_file(examine.walk(image, length, extents), fd)
    return image, extents, native.course(image, chart) if chart is not None else None


def _over_file(reads: Reads[T], fd: int) -> T:
    try:
        wanted = next(reads)
        while True:
            wanted = reads.send(tuple(os.pread(fd, span.size, span.start) for span in wanted))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
