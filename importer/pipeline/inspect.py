"""An answer before the first byte: what a source is, whether it fits, what is dangerous in it.

Reads the head, the tail and named metadata only: at most 4 MiB in at most 8 requests.
"""

import os
from dataclasses import dataclass, replace

from importer.api.failure import Failure
from importer.api.report import Inspection
from importer.api.request import ImportRequest
from importer.disk import landing
from importer.disk.extents import Extents
from importer.disk.image import Format, Wrapper
from importer.pipeline import opening
from importer.pipeline.judge import Found, Judge, OutOfReach
from importer.pipeline.meter import Meter, Silent
from importer.pipeline.pinned import Pinned
from importer.pipeline.room import Room
from importer.pipeline.run import check_size, needed_at_least, policy_of
from importer.pipeline.shelf import PIECE
from importer.sources import allowance
from importer.sources.protocol import Source

BUDGET = 4 << 20
REQUESTS = 8
AHEAD = 2
"""Pieces of a layer in hand, where the disk lies in one."""
UNKNOWN = "unknown until decoded"
UNREAD = "the mapping tables were not read: an import judges them before it writes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What is known of the disk's size, in bytes."""

    exact: int | None = None
    least: int | None = None
    """It is at least that large; more may show itself when it is decoded."""

    @classmethod
    def of(cls, found: Found | None) -> "Size":
        """Tell what headers, and an index of the wrapper, tell. The first of several zstd frames tells only of itself."""
        if found is None:
            return cls()
        if found.image is not None:
            return cls(exact=found.image.virtual_size)
        if found.format is not Format.RAW:
            return cls()
        return cls(least=found.decoded_size) if found.wrapper is Wrapper.ZSTD else cls(exact=found.decoded_size)


async def inspect(request: ImportRequest, target: str | None) -> Inspection:
    """Inspect `request.source`, and whether it fits at `target` if given. Raises Failure only if the source cannot be read."""
    with allowance.granted(REQUESTS) as asked:
        return await _inspect(request, target, asked)


async def _inspect(request: ImportRequest, target: str | None, asked: allowance.Allowance) -> Inspection:
    policy, meter = policy_of(os.environ), Meter(reporter=Silent())
    source = await opening.open_source(request, meter, policy, capacity=AHEAD, connections=1)
    try:
        judge = Judge(
            source,
            Pinned(piece=PIECE),
            policy=policy,
            connections=1,
            requests=REQUESTS - max(1, asked.requests),
            budget=BUDGET - max(0, asked.received - len(source.head)),
        )
        found, extents, dangers, warnings = await _judged(judge, request, asked)
        size = Size.of(found)
        fits = "not asked" if target is None else _fits(request, target, found, size, extents, dangers, warnings)
        page = _page(source, judge, found, size, extents, fits, dangers, warnings)
        return replace(page, bytes_read=asked.received, requests=asked.requests) if asked.requests else page
    finally:
        await source.close()


async def _judged(
    judge: Judge, request: ImportRequest, asked: allowance.Allowance
) -> tuple[Found | None, Extents | None, list[Failure], list[str]]:
    warnings = []
    try:
        found = await judge.find(request)
        check_size(request, found)
    except Failure as failure:
        return None, None, [failure], []
    extents = None
    if found.image is None and found.wrapper is None:
        warnings.append("the headers are out of reach: the server serves no ranges")
    elif found.image is not None and found.wrapper is None:
        try:
            extents = await judge.walk(found.image)
        except OutOfReach:
            warnings.append(UNREAD)
        except Failure as failure:
            if asked.spent:
                return found, None, [], [*warnings, UNREAD]
            return found, None, [failure], warnings
    return found, extents, [], warnings


def _fits(
    request: ImportRequest,
    target: str,
    found: Found | None,
    size: Size,
    extents: Extents | None,
    dangers: list[Failure],
    warnings: list[str],
) -> str:
    try:
        landing.check(target, force=request.force)
        virtual = size.exact or size.least
        if virtual is None:
            return UNKNOWN
        room = Room.around(target, request.reserve)
        needed = needed_at_least(extents, virtual, found.image if found else None)
        warnings.extend(
            room.judge(needed=needed, virtual_size=max(virtual, request.size or 0), preallocate=bool(request.preallocate))
        )
    except Failure as failure:
        dangers.append(failure)
        return f"no: {failure.cause}"
    if size.exact is None:
        return UNKNOWN
    return "yes, as long as its zeroes stay unwritten" if warnings and virtual > room.free else "yes"


def _page(
    source: Source,
    judge: Judge,
    found: Found | None,
    size: Size,
    extents: Extents | None,
    fits: str,
    dangers: list[Failure],
    warnings: list[str],
) -> Inspection:
    facts, image = source.facts, found.image if found else None
    server = {"ranges": "yes" if facts.ranges else "no", **facts.validators}
    if facts.content_type:
        server["content-type"] = facts.content_type
    notes = dict(image.notes) if image else {}
    if image and image.subformat:
        notes["subformat"] = image.subformat
    if found and found.blocks:
        notes["xz blocks"] = str(len(found.blocks))
    compressed = True if found and found.wrapper else image.compressed if image else None
    if extents is not None:
        compressed = bool(compressed) or extents.compressed_clusters > 0
        notes["data"] = str(extents.data_bytes)
    return Inspection(
        source=facts.url,
        length=facts.length,
        format=found.format.value if found else "refused",
        wrapper=found.wrapper.value if found and found.wrapper else None,
        virtual_size=size.exact,
        virtual_size_at_least=size.least,
        compressed=compressed,
        server=server,
        image=notes,
        fits=fits,
        dangers=tuple(danger.as_json() for danger in dangers),
        warnings=(*facts.notes, *warnings),
        bytes_read=judge.bytes_read,
        requests=judge.requests + 1,
    )
