"""The pipeline: from a request to a published disk and its receipt. What every front door calls."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from importer.api.failure import Failure
from importer.api.report import Receipt, Reporter
from importer.api.request import Checksum, ImportRequest
from importer.disk import landing, native
from importer.disk.chart import Chart, Course
from importer.disk.extents import Extents
from importer.disk.image import Format, Image
from importer.disk.journal import Bond
from importer.disk.landing import Landing
from importer.pipeline import completed, opening, promises, resume, route, transfer, versions, ways
from importer.pipeline.continuation import Continuation
from importer.pipeline.digest import Digests
from importer.pipeline.fetcher import leaf_of
from importer.pipeline.judge import Found, Judge, OutOfReach
from importer.pipeline.meter import Meter
from importer.pipeline.patience import Policy
from importer.pipeline.pinned import Pinned
from importer.pipeline.room import Room
from importer.pipeline.shelf import PIECE
from importer.pipeline.trip import NO_TOOL, Landed, Trip
from importer.sources.blank import BlankSource
from importer.sources.protocol import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An image that may be imported, as far as its headers and tables show."""

    found: Found
    extents: Extents | None
    course: Course | None
    """Where the disk's data lies, for the native reader; None if it does not take the image."""
    route: route.Route


async def run(request: ImportRequest, reporter: Reporter, policy: Policy | None = None) -> Receipt:
    """Import one disk. Raises Failure; then, and when cancelled, there is no target, and no leftover either, unless the same
    command can go on with it: see pipeline.continuation.
    """
    meter = Meter(reporter=reporter)
    try:
        async with meter.beating():
            return await _run(request, meter, policy or policy_of(os.environ))
    except BaseExceptionGroup as group:
        raise leaf_of(group) from None
    except OSError as error:
        raise Failure("io", f"{error.strerror or error}", path=error.filename or "unknown", errno=error.errno) from error


def policy_of(environ: Mapping[str, str]) -> Policy:
    """Return the policy with what SLIPSTREAM_STALL_SECONDS and SLIPSTREAM_GIVE_UP_SECONDS change, for tests and odd networks."""
    default = Policy()
    return Policy(
        stall_seconds=float(environ.get("SLIPSTREAM_STALL_SECONDS", default.stall_seconds)),
        give_up_seconds=float(environ.get("SLIPSTREAM_GIVE_UP_SECONDS", default.give_up_seconds)),
    )


async def _run(request: ImportRequest, meter: Meter, policy: Policy) -> Receipt:
    if request.content == "archive":
        from importer.pipeline import archive  # disks need none of it

        return replace(await archive.extract(request, meter, policy), peak_rss=_high_water())
    if (receipt := completed.before(request)) is not None:
        return receipt
    meter.enter("probing")
    landing.check(request.target, force=request.force)
    connections = request.access.connections
    source = await opening.open_source(request, meter, policy, capacity=transfer.CAPACITY // 2, connections=connections)
    try:
        for note in source.facts.notes:
            meter.note(note)
        pinned = Pinned(piece=PIECE)
        meter.enter("judging")
        judged = await judge(request, source, pinned, meter, policy)
        made = await promises.gather(request, source.facts.name, policy)
        digests = Digests({promise.algorithm for promise, _ in made} | ({request.digest} if request.digest else set()), meter)
        try:
            return await _land(request, source, judged, pinned, digests, made, meter, policy)
        finally:
            digests.close()
    finally:
        with suppress(asyncio.CancelledError):  # a disk that is published is a success, whatever signal came meanwhile
            await asyncio.sleep(0)
        with suppress(asyncio.CancelledError):
            await source.close()


async def judge(request: ImportRequest, source: Source, pinned: Pinned, meter: Meter, policy: Policy) -> Judged:
    """Recognise and judge the object before anything is opened for writing. Raises Failure."""
    if isinstance(source, BlankSource):
        return _blank(request)
    reader = Judge(source, pinned, policy=policy, connections=request.access.connections)
    try:
        found = await reader.find(request)
        local = hasattr(source, "descriptor")
        extents, course, obstacle = None, None, "its tables cannot be read beforehand"
        if found.image is not None and found.wrapper is None:
            with suppress(OutOfReach):
                extents, course, obstacle = await _survey(reader, found.image)
    finally:
        meter.fetched += reader.bytes_read
    check_size(request, found)
    return Judged(
        found=found,
        extents=extents,
        course=course,
        route=route.choose(
            format=found.format,
            raw=found.format == "raw" or (found.image is not None and found.image.raw_span is not None),
            wrapper=found.wrapper,
            ranges=source.facts.ranges,
            length=source.facts.length,
            in_order=extents is None or extents.in_order,
            local=local and not (request.digest or request.checksum or request.checksum_url),
            blocks=len(found.blocks),
            obstacle=obstacle,
        ),
    )


def _blank(request: ImportRequest) -> Judged:
    if request.size is None:
        raise Failure("usage", "an empty disk needs a size", hint="give it with --size")
    found = Found(wrapper=None, format=Format.RAW, image=Image(format=Format.RAW, virtual_size=request.size, compressed=False))
    way = route.Route(way=route.Way.BLANK, reason="nothing is to be read")
    return Judged(found=found, extents=None, course=None, route=way)


async def _survey(reader: Judge, image: Image) -> tuple[Extents | None, Course | None, str]:
    """Judge the tables; return what they claim, the course through them, and why there is none. Raises Failure, OutOfReach."""
    obstacle = native.obstacle(image)
    if obstacle:
        return await reader.walk(image), None, obstacle
    chart = Chart()
    extents = await reader.walk(image, chart)
    course = native.course(image, chart)
    return extents, course, "" if course is not None else "its data lies in too many runs"


def check_size(request: ImportRequest, found: Found) -> None:
    """Raise Failure("shrink") for a --size that would cut the disk."""
    virtual = found.image.virtual_size if found.image else found.decoded_size
    if request.size is not None and virtual is not None and request.size < virtual:
        raise Failure("shrink", "--size is smaller than the disk in the image", size=request.size, virtual_size=virtual)


async def _land(
    request: ImportRequest, source: Source, judged: Judged, pinned: Pinned, digests: Digests,
    made: tuple[tuple[Checksum, str], ...], meter: Meter, policy: Policy,
) -> Receipt:  # fmt: skip
    # Not in a thread: a cancelled wait would leave the partial.
    target = landing.open_landing(request.target, force=request.force)
    unfinished = Continuation(target, digests, meter)
    try:
        found = judged.found
        unfinished.begin(_bond(request, source, judged, target), restart=request.restart, piece=PIECE)
        room = Room.of(target, request.reserve)
        virtual = found.image.virtual_size if found.image else found.decoded_size
        lower = needed_at_least(judged.extents, virtual, found.image)
        there = (
            0 if room.capacity is not None else target.allocated()
        )  # kept of an earlier import: no longer free, and not needed twice
        size_to_be = max(0, max(virtual or 0, request.size or 0) - there) or None
        for warning in room.judge(needed=max(0, lower - there), virtual_size=size_to_be, preallocate=bool(request.preallocate)):
            meter.note(warning)
        for told in await asyncio.to_thread(target.prepare, span=_span(request, judged, virtual)):
            meter.note(told)
        trip = Trip(
            request=request, source=source, found=found, extents=judged.extents, course=judged.course, route=judged.route,
            target=target, resume=unfinished.resume, checkpoints=unfinished.checkpoints, guard=room.guard(), pinned=pinned,
            digests=digests, meter=meter, policy=policy,
        )  # fmt: skip
        landed = await ways.walk(trip)
        await source.settle()
        verified = tuple(digests.verify(promise, origin) for promise, origin in made)
        size = await _grow(request, target, landed.virtual_size)
        meter.enter("syncing")
        with meter.clock("sync").working():
            if request.preallocate == "full":
                await asyncio.to_thread(target.fill)
            await asyncio.to_thread(target.sync)
        unfinished.settle()
        allocated = size if target.capacity is not None else target.allocated()  # a device does not tell
        took_part = await versions.gather(ran_tool=landed.sandbox != NO_TOOL)
        meter.enter("publishing")
        receipt = _receipt(
            source, judged, landed, digests, verified, meter, path=target.path, size=size, allocated=allocated, versions=took_part
        )
        unfinished.finishing(request, receipt)
        target.publish()  # not in a thread: a cancelled wait could leave a target behind
        unfinished.published()
        return receipt
    except BaseException as error:
        unfinished.broken(error)
        raise


def _bond(request: ImportRequest, source: Source, judged: Judged, target: Landing) -> Bond | None:
    image = judged.found.image
    shape: dict[str, object] = {"found": judged.found.format.value}
    if image is not None:
        shape |= {"virtual_size": image.virtual_size, "span": list(image.raw_span or ())}
    if judged.course is not None:  # tables that changed would leave data where now there is none
        shape["course"] = judged.course.fingerprint()
    return resume.bond(request, source.facts, source.head, image=shape, way=judged.route.way, target=target.identity, piece=PIECE)


def needed_at_least(extents: Extents | None, virtual_size: int | None, image: Image | None) -> int:
    """Return the bytes of data that the tables show: what the target must hold at least.

    Tables that map all of the disk say nothing: such an image was preallocated, and may hold mostly zeroes. Of a block
    of more than 1 MiB (VHD has 2, VHDX up to 256) only that much counts: one sector written takes all of it.
    """
    if extents is None or virtual_size is None or extents.data_bytes >= virtual_size * 0.98:
        return 0
    block = getattr(image.layout, "block", 0) if image is not None else 0
    return extents.data_bytes // max(1, block >> 20)


def _span(request: ImportRequest, judged: Judged, virtual: int | None) -> int | None:
    """Return how much of the target must read as zeroes before it is written; see Landing.prepare."""
    if judged.route.way in (route.Way.COPY, route.Way.STREAM, route.Way.DECODE, route.Way.BLOCKS):
        return 0
    return None if judged.route.way is route.Way.SPILL or virtual is None else max(virtual, request.size or 0)


async def _grow(request: ImportRequest, target: Landing, virtual: int) -> int:
    if request.size is None:
        return virtual
    if request.size < virtual:
        raise Failure("shrink", "--size is smaller than the disk in the image", size=request.size, virtual_size=virtual)
    await asyncio.to_thread(target.size_to, request.size, request.preallocate)
    if not target.reads_zero:
        await asyncio.to_thread(target.punch, virtual, request.size - virtual)
    return request.size


def _receipt(
    source: Source, judged: Judged, landed: Landed, digests: Digests, verified: tuple[str, ...],
    meter: Meter, *, path: str, size: int, allocated: int, versions: dict[str, str],
) -> Receipt:  # fmt: skip
    ran_tool = landed.sandbox != NO_TOOL
    return Receipt(
        source=source.facts.url,
        validators=source.facts.validators,
        digests=digests.results(),
        verified=verified,
        target=path,
        format=landed.format.value,
        wrapper=judged.found.wrapper.value if judged.found.wrapper else None,
        route=f"{judged.route.way}: {judged.route.reason}",
        virtual_size=size,
        allocated_size=allocated,
        source_length=source.facts.length,
        bytes_fetched=meter.fetched,
        bytes_resumed=meter.resumed,
        bytes_decoded=meter.decoded,
        bytes_written=allocated if ran_tool else meter.written,
        bytes_zero=max(0, size - allocated) if ran_tool else meter.zeroes,
        bytes_spilled=meter.spilled,
        seconds=round(meter.seconds, 3),
        stages=meter.stages(),
        limiting_stage=meter.limiting(),
        retries=meter.retries,
        connections=meter.most_connections,
        connections_reason=meter.connections_reason,
        peak_rss=_high_water(),
        sandbox=landed.sandbox,
        versions=versions,
        notes=tuple(meter.notes),
    )


def _high_water() -> int:
    """Return the most memory this process had resident. Not ru_maxrss: that begins with what the parent had at fork."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
