"""Finds out what an object is and whether it is safe, before anything else is done with it.

Runs the pure parsers of `importer.disk` over a remote object: reads what they ask for, counts it, pins it.
"""

import asyncio
import random
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from importer.api.failure import Failure
from importer.api.request import ImportRequest
from importer.disk import detect, examine
from importer.disk.chart import Chart
from importer.disk.extents import Extents
from importer.disk.image import Format, Image, Limits, Wrapper
from importer.disk.reads import Reads, Span
from importer.pipeline.fetcher import leaf_of
from importer.pipeline.patience import Patience, Policy
from importer.pipeline.pinned import Pinned
from importer.sources.protocol import Interrupted, Source

if TYPE_CHECKING:
    from importer.disk import xz_index

T = TypeVar("T")
TAIL = 64 << 10
HEAD_DECODED = 4 << 20
WINDOW = 32 << 20


class OutOfReach(Exception):
    """A parser asked for bytes that cannot be had now: past the head of a source without ranges, or over the budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is known before the body is read."""

    wrapper: Wrapper | None
    format: Format
    image: Image | None
    """None where only the decoded stream will tell."""
    extents: Extents | None = None
    blocks: "tuple[xz_index.XzBlock, ...]" = ()
    """Independent blocks of an xz file, where it has more than one and its index can be read."""
    decoded_size: int | None = None
    """Bytes inside the wrapper, where the wrapper tells."""


class Judge:
    """Reads and judges one object."""

    def __init__(
        self,
        source: Source,
        pinned: Pinned,
        *,
        policy: Policy,
        connections: int,
        requests: int | None = None,
        budget: int | None = None,
    ) -> None:
        """Read from `source`, at most `requests` more times and `budget` bytes if given."""
        self.source = source
        self.pinned = pinned
        self.requests = 0
        self.bytes_read = len(source.head)
        self._policy = policy
        self._lanes = asyncio.Semaphore(connections)
        self._most_requests = requests
        self._budget = budget
        pinned.add(0, source.head)

    async def run(self, reads: Reads[T]) -> T:
        """Run a parser. Raises its Failure, a Failure of the source, or OutOfReach."""
        try:
            wanted = next(reads)
            while True:
                wanted = reads.send(await self._read_all(wanted))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            reads.close()

    async def _read_all(self, wanted: tuple[Span, ...]) -> tuple[bytes, ...]:
        missing = [span for span in _merged(wanted) if self.pinned.cover(span.start, span.end) is None]
        if missing:
            self._allow(missing)
            try:
                async with asyncio.TaskGroup() as lanes:
                    tasks = [lanes.create_task(self._read(span)) for span in missing]
            except BaseExceptionGroup as group:
                raise leaf_of(group) from None
            got = {span: task.result() for span, task in zip(missing, tasks, strict=True)}
            for span, data in got.items():
                self.pinned.add(span.start, data)
        else:
            got = {}
        return tuple(self._part(span, got) for span in wanted)

    def _part(self, span: Span, got: dict[Span, bytes]) -> bytes:
        for whole, data in got.items():
            if whole.start <= span.start and span.end <= whole.end:
                return data[span.start - whole.start : span.end - whole.start]
        view = self.pinned.cover(span.start, span.end)
        assert view is not None
        return bytes(view)

    def _allow(self, missing: list[Span]) -> None:
        size = sum(span.size for span in missing)
        if not self.source.facts.ranges:
            raise OutOfReach("the server serves no ranges")
        if self._most_requests is not None and self.requests + len(missing) > self._most_requests:
            raise OutOfReach("too many requests")
        if self._budget is not None and self.bytes_read + size > self._budget:
            raise OutOfReach("too many bytes")
        self.requests += len(missing)
        self.bytes_read += size

    async def _read(self, span: Span) -> bytes:
        """Read one span, patiently."""
        loop = asyncio.get_running_loop()
        patience = Patience(policy=self._policy, connections=1)
        data = bytearray()
        while len(data) < span.size:
            broke: Interrupted | None = None
            began = loop.time()
            try:
                async with (
                    self._lanes,
                    asyncio.timeout(self._policy.stall_seconds),
                    aclosing(self.source.fetch(span.start + len(data), span.end)) as chunks,  # type: ignore[type-var]
                ):
                    async for chunk in chunks:
                        data += chunk
                        patience.progressed(loop.time(), len(chunk))
            except TimeoutError:
                broke = Interrupted("stalled")
            except Interrupted as interrupted:
                broke = interrupted
            if len(data) >= span.size:
                break
            broke = broke or Interrupted("the answer ended early")
            delay = patience.broke(loop.time(), began=began, crowded=False, retry_after=broke.retry_after, chance=random.random())  # noqa: S311
            if patience.exhausted(loop.time() + delay):
                code = "overloaded" if broke.crowded else "stalled"
                raise Failure(code, "the server does not serve the bytes asked for", last_reason=broke.reason, offset=span.start)
            await asyncio.sleep(delay)
        return bytes(data)

    async def tail(self) -> bytes:
        """Return the last bytes of the object, b"" where they are out of reach."""
        length = self.source.facts.length
        if length is None:
            return b""
        span = Span(max(0, length - TAIL), length)
        try:
            return (await self._read_all((span,)))[0]
        except OutOfReach:
            return b""

    async def find(self, request: ImportRequest) -> Found:
        """Recognise and judge headers; tables are `walk`ed separately. Raises Failure."""
        facts, head = self.source.facts, self.source.head
        if facts.length == 0 or not head:
            raise Failure("empty", "the source holds no bytes", source=facts.url)
        limits = Limits(max_size=request.max_size)
        wrapper = detect.wrapper_of(head)
        if wrapper is not None:
            return await self._find_wrapped(wrapper, request, limits)
        tail = await self.tail()
        forced = Format(request.format) if request.format else None
        found = forced or detect.recognise(head, tail, facts.length)
        if facts.length is None:
            return Found(wrapper=None, format=found, image=None if found is Format.RAW else _examine_head(found, head, limits))
        try:
            image = await self.run(examine.examine(found, facts.length, limits))
        except OutOfReach:
            return Found(wrapper=None, format=found, image=None)
        return Found(wrapper=None, format=found, image=image)

    async def _find_wrapped(self, wrapper: Wrapper, request: ImportRequest, limits: Limits) -> Found:
        """Judge what the first bytes inside the wrapper show; the rest shows itself when it is decoded."""
        from importer.disk import wrappers, xz_index  # here, not above: most images have no wrapper

        facts, head = self.source.facts, self.source.head
        inside = await asyncio.to_thread(wrappers.decode_head, wrapper, head, HEAD_DECODED, memory=request.decoder_memory)
        if detect.wrapper_of(inside) is not None and not request.format:
            raise Failure("not-a-disk", "a wrapper in a wrapper", outer=wrapper.value, inner=detect.wrapper_of(inside))
        found = Format(request.format) if request.format else detect.recognise(inside, b"", None)
        image = None if found is Format.RAW else _examine_head(found, inside, limits)
        blocks: tuple[xz_index.XzBlock, ...] = ()
        if wrapper is Wrapper.XZ and facts.ranges and facts.length:
            await self.tail()
            try:
                blocks = await self.run(xz_index.read_index(facts.length))
            except OutOfReach:
                blocks = ()
            except Failure as failure:
                if failure.code != "unsupported":  # an index too large to hold: decode in sequence instead
                    raise
        size = sum(block.uncompressed_size for block in blocks) if blocks else None
        if not blocks and (facts.length is not None or wrapper is not Wrapper.XZ):  # only xz tells it at the end
            size = wrappers.decoded_size_hint(wrapper, head, b"", facts.length or 0)
        if size is not None and size > limits.max_size:
            raise Failure("too-large", "the disk is larger than the limit", virtual_size=size, limit=limits.max_size)
        return Found(wrapper=wrapper, format=found, image=image, blocks=blocks if len(blocks) > 1 else (), decoded_size=size)

    async def walk(self, image: Image, chart: Chart | None = None) -> Extents | None:
        """Judge the mapping tables of a bare image and note them in `chart`; None for one without. Raises Failure, OutOfReach."""
        length = self.source.facts.length
        if image.raw_span is not None or length is None:
            return None
        extents = Extents(length=length, unit=examine.unit(image), window=WINDOW, chart=chart)
        await self.run(examine.walk(image, length, extents))
        return extents


def _examine_head(found: Format, inside: bytes, limits: Limits) -> Image | None:
    """Examine a decoded head as if the object were as long as its limits allow; None where the head is too short to tell."""
    reads = examine.examine(found, limits.max_size * 2, limits)
    try:
        wanted = next(reads)
        while all(span.end <= len(inside) for span in wanted):
            wanted = reads.send(tuple(inside[span.start : span.end] for span in wanted))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        reads.close()
    return None


def _merged(wanted: tuple[Span, ...], gap: int = 4096) -> list[Span]:
    """Join spans that nearly touch: one request instead of two."""
    merged: list[Span] = []
    for span in sorted(wanted):
        if merged and span.start <= merged[-1].end + gap:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        elif span.size:
            merged.append(span)
    return merged
