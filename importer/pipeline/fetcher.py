"""Several connections bring spans of one object; broken attempts are resumed at the byte where they broke.

What to fetch next is decided by an `Orders` object (in order, or on demand); where bytes go is its shelf.
"""

import asyncio
import random
from contextlib import aclosing
from typing import Protocol

from importer.api.failure import Failure
from importer.disk.reads import Span
from importer.pipeline.meter import Meter
from importer.pipeline.patience import Patience, Policy
from importer.sources.protocol import Interrupted, Source


class Orders(Protocol):
    """Tells connections what to fetch. All calls are made on the event loop."""

    changed: asyncio.Event
    """Set whenever `take` may answer differently than before."""

    @property
    def over(self) -> bool:
        """True once nothing will be asked for any more."""
        ...

    def take(self) -> Span | None:
        """Return a span for which the shelf has reserved places, or None: nothing now."""
        ...

    def give_back(self, span: Span) -> None:
        """Take back what an attempt did not bring."""
        ...

    def put(self, at: int, chunk: bytes) -> None:
        """Take the bytes of an attempt as they come."""
        ...


class Fetcher:
    """Runs the connections until the orders are over."""

    def __init__(self, source: Source, orders: Orders, meter: Meter, *, connections: int, policy: Policy) -> None:
        """Use up to `connections` connections to `source`."""
        self._source = source
        self._orders = orders
        self._meter = meter
        self._policy = policy
        self._patience = Patience(policy=policy, connections=connections)
        self._count = connections
        self._active = 0
        self._paused_until = 0.0

    async def run(self) -> None:
        """Fetch until the orders are over. Raises Failure; every connection is then closed."""
        try:
            async with asyncio.TaskGroup() as lanes:
                for lane in range(self._count):
                    lanes.create_task(self._lane(lane), name=f"connection {lane}")
        except BaseExceptionGroup as group:
            raise leaf_of(group) from None

    async def _lane(self, lane: int) -> None:
        orders, clock = self._orders, self._meter.clock("fetch")
        while not orders.over:
            span = orders.take() if lane < self._patience.connections else None
            if span is None:
                orders.changed.clear()
                with clock.idle():
                    await orders.changed.wait()
                continue
            await self._attempt(span)
        orders.changed.set()

    async def _attempt(self, span: Span) -> None:
        loop = asyncio.get_running_loop()
        broke: Interrupted | None = None
        at, began = span.start, loop.time()
        self._begin()
        try:
            async with asyncio.timeout(self._policy.stall_seconds) as watchdog, aclosing(self._chunks(span)) as chunks:
                fed, due = loop.time(), at + self._policy.stall_bytes
                async for chunk in chunks:
                    self._orders.put(at, chunk)
                    at += len(chunk)
                    now = loop.time()
                    self._arrived(len(chunk), now)
                    if at >= due and now - fed >= self._policy.stall_seconds / 50:
                        fed, due = now, at + self._policy.stall_bytes
                        watchdog.reschedule(now + self._policy.stall_seconds)
        except TimeoutError:
            broke = Interrupted(f"stalled: fewer than {self._policy.stall_bytes} bytes in {self._policy.stall_seconds:g} s")
        except Interrupted as interrupted:
            broke = interrupted
        finally:
            self._active -= 1
            self._meter.connections = self._active
        if at < span.end:
            self._orders.give_back(Span(at, span.end))
            await self._recover(broke or Interrupted("the answer ended early"), began)
        else:
            self._patience.recovered()

    async def _chunks(self, span: Span):  # type: ignore[no-untyped-def]  # an async generator, so that aclosing() can end it
        clock = self._meter.clock("fetch")
        async with aclosing(self._source.fetch(span.start, span.end)) as chunks:  # type: ignore[type-var]
            while True:
                with clock.working():
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                yield chunk

    def _begin(self) -> None:
        self._active += 1
        self._meter.connections = self._active
        self._meter.most_connections = max(self._meter.most_connections, self._active)

    def _arrived(self, size: int, now: float) -> None:
        self._patience.progressed(now, size)
        self._meter.fetched += size
        self._meter.tick()

    async def _recover(self, broke: Interrupted, began: float) -> None:
        loop = asyncio.get_running_loop()
        delay = self._patience.broke(
            loop.time(),
            began=began,
            crowded=broke.crowded,
            retry_after=broke.retry_after,
            chance=random.random(),  # noqa: S311  # jitter, not a secret
        )
        self._meter.retries = self._patience.retries
        self._meter.note(f"retried: {broke.reason}") if self._patience.retries <= 3 else None
        if self._patience.exhausted(loop.time() + delay):
            raise Failure(
                "overloaded" if broke.crowded else "stalled",
                "the server brings no more bytes",
                last_reason=broke.reason,
                attempts=self._patience.retries,
                fetched=self._meter.fetched,
            )
        with self._meter.clock("fetch").idle():
            await asyncio.sleep(delay)


def leaf_of(group: BaseException) -> BaseException:
    """Return the first exception of a group that is no group itself: where several connections fail at once, any tells why."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
