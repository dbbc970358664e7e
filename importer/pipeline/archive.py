"""An archive, streamed in one pass into a directory: fetched as disks are, extracted instead of written."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from importer.api.failure import Failure
from importer.api.report import Receipt
from importer.api.request import ImportRequest
from importer.disk import detect, space, wrappers
from importer.disk.extraction import Extraction
from importer.disk.image import Wrapper
from importer.disk.members import Limits
from importer.disk.staging import NAME, Staging
from importer.pipeline import movers, opening, promises, transfer, versions
from importer.pipeline.digest import Digests
from importer.pipeline.fetcher import Fetcher
from importer.pipeline.in_order import InOrder
from importer.pipeline.meter import Meter
from importer.pipeline.patience import Policy
from importer.pipeline.pinned import Pinned
from importer.pipeline.sequential import Sequential
from importer.pipeline.shelf import PIECE
from importer.pipeline.trip import NO_TOOL
from importer.sources import schemes
from importer.sources.blank import BlankSource
from importer.sources.protocol import Source

_HEAD = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    request: ImportRequest
    source: Source
    wrapper: Wrapper | None
    digests: Digests
    meter: Meter
    policy: Policy


async def extract(request: ImportRequest, meter: Meter, policy: Policy) -> Receipt:
    """Extract the archive `request.source` into the directory `request.target`. Raises Failure; then nothing of it is there."""
    if schemes.names_image(request.source):
        raise Failure("usage", "a container image is no archive", hint="leave --content out, or name the archive itself")
    if not Path(request.target).is_dir():
        hint = "create it, or name another"
        raise Failure("target-directory", "an archive needs a directory that exists", hint=hint, path=request.target)
    meter.enter("probing")
    connections = request.access.connections
    source = await opening.open_source(request, meter, policy, capacity=transfer.CAPACITY // 2, connections=connections)
    try:
        for note in source.facts.notes:
            meter.note(note)
        if isinstance(source, BlankSource):
            raise Failure("usage", "nothing is no archive", hint="leave --content out")
        meter.enter("judging")
        wrapper = judge(source.head, source.facts.length, memory=request.decoder_memory)
        made = await promises.gather(request, source.facts.name, policy)
        digests = Digests({promise.algorithm for promise, _ in made} | ({request.digest} if request.digest else set()), meter)
        try:
            work = _Work(request=request, source=source, wrapper=wrapper, digests=digests, meter=meter, policy=policy)
            return await _land(work, made)
        finally:
            digests.close()
    finally:
        with suppress(asyncio.CancelledError):  # what is published is a success, whatever signal came meanwhile
            await asyncio.sleep(0)
        with suppress(asyncio.CancelledError):
            await source.close()


def judge(head: bytes, length: int | None, *, memory: int) -> Wrapper | None:
    """Return what a tar that begins with `head` is wrapped in. Raises Failure: not-an-archive, empty, and for bad wrappers."""
    if length == 0 or not head:
        raise Failure("empty", "the source holds no bytes")
    wrapper = detect.wrapper_of(head)
    inner = head if wrapper is None else wrappers.decode_head(wrapper, head, _HEAD, memory=memory)
    if not detect.is_tar(inner):
        what = _what(inner, length if wrapper is None else None)
        raise Failure("not-an-archive", f"this is {what}, no tar", what=what, first_bytes=inner[:16].hex(" "))
    return wrapper


def _what(head: bytes, length: int | None) -> str:
    try:
        found = detect.recognise(head, b"", length)
    except Failure as failure:
        return failure.evidence.get("what", "something unknown")
    return "a raw disk or something unknown" if found == "raw" else f"a {found} disk image"


async def _land(work: _Work, made: tuple[tuple[Any, str], ...]) -> Receipt:
    request, meter = work.request, work.meter
    staging = Staging(request.target)  # not in a thread: a cancelled wait would leave it
    try:
        reserve = space.reserve_of(staging.target, request.reserve, own_names=(NAME,))
        guard = space.SpaceGuard(lambda: space.free_space(staging.tree), reserve)
        guard.check()
        limits = Limits(request.max_size)
        meter.enter("transferring")
        extraction = Extraction(staging, limits, guard)
        try:
            await _bring(work, extraction)
            extraction.end()
            await work.source.settle()
            verified = tuple(work.digests.verify(promise, origin) for promise, origin in made)
            meter.enter("syncing")
            with meter.clock("sync").working():
                await asyncio.to_thread(staging.sync)
            took_part = await versions.gather(ran_tool=False)
            meter.enter("publishing")
            staging.publish()
            extraction.released()
        finally:
            extraction.close()
    finally:
        staging.close()
    return _receipt(work, limits, verified, took_part)


async def _bring(work: _Work, sink: Extraction) -> None:
    pieces, fetch = _fetching(work)
    moving: Coroutine[Any, Any, int]
    if work.wrapper is None:
        moving = movers.copy_in_order(pieces, sink, work.digests, work.meter)
    else:
        moving = movers.decode(
            pieces,
            work.wrapper,
            sink,
            work.digests,
            work.meter,
            memory=work.request.decoder_memory,
            cap=_judged_in_the_sink,
            writers=1,
        )
    await transfer.together(fetch, moving, pieces.stop)


def _judged_in_the_sink(_total: int, /) -> None:
    """What is too much for an archive is judged by its members."""


def _fetching(work: _Work) -> tuple[InOrder | Sequential, Coroutine[Any, Any, None]]:
    source, pinned, connections = work.source, Pinned(piece=PIECE), work.request.access.connections
    if source.facts.ranges and source.facts.length is not None:
        orders = InOrder(length=source.facts.length, capacity=transfer.CAPACITY, pinned=pinned, connections=connections)
        return orders, Fetcher(source, orders, work.meter, connections=connections, policy=work.policy).run()
    stream = Sequential(source, work.meter, capacity=transfer.CAPACITY, pinned=pinned, policy=work.policy)
    return stream, stream.run()


def _receipt(work: _Work, limits: Limits, verified: tuple[str, ...], took_part: dict[str, str]) -> Receipt:
    source, meter = work.source, work.meter
    return Receipt(
        source=source.facts.url,
        validators=source.facts.validators,
        digests=work.digests.results(),
        verified=verified,
        target=work.request.target,
        format="tar",
        wrapper=work.wrapper.value if work.wrapper else None,
        route="extract: the archive is extracted while it streams",
        virtual_size=limits.bytes,
        allocated_size=limits.bytes,
        source_length=source.facts.length,
        bytes_fetched=meter.fetched,
        bytes_decoded=meter.decoded,
        bytes_written=limits.bytes,
        bytes_zero=0,
        bytes_spilled=0,
        members=limits.members,
        seconds=round(meter.seconds, 3),
        stages=meter.stages(),
        limiting_stage=meter.limiting(),
        retries=meter.retries,
        connections=meter.most_connections,
        connections_reason=meter.connections_reason,
        peak_rss=0,
        sandbox=NO_TOOL,
        versions=took_part,
        notes=tuple(meter.notes),
    )
