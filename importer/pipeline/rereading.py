"""What is still missing of an object, over one connection from its first byte on: the server stopped serving ranges.

What was brought before passes by once more and is left out. That it is still the same object is for the source to see to:
it compares validators and the head again.
"""

import asyncio
import random
from contextlib import aclosing
from typing import Protocol

from importer.api.failure import Failure
from importer.disk.reads import Span
from importer.pipeline.meter import Meter
from importer.pipeline.patience import Patience, Policy
from importer.sources.protocol import Basin, Interrupted, Source, fill


class Ascending(Basin, Protocol):
    """What is asked of the orders here (see fetcher.Orders): spans in byte order."""

    changed: asyncio.Event

    @property
    def over(self) -> bool:
        """True once nothing is missing."""
        ...

    def take(self) -> Span | None:
        """Return the next span that has room."""
        ...

    def give_back(self, span: Span) -> None:
        """Take back what is still missing."""
        ...


class Rereading:
    """Runs one connection until nothing is missing."""

    def __init__(self, source: Source, orders: Ascending, meter: Meter, policy: Policy) -> None:
        """Read `source` as a whole, as often as it takes."""
        self._source = source
        self._orders = orders
        self._meter = meter
        self._policy = policy
        self._patience = Patience(policy=policy, connections=1)
        self._at = 0
        self._span: Span | None = None

    async def run(self) -> None:
        """Read until the orders are over. Raises Failure."""
        loop = asyncio.get_running_loop()
        while not self._orders.over:
            began = loop.time()
            broke = await self._attempt()
            if broke is not None:
                await self._recover(broke, began)

    async def _recover(self, broke: Interrupted, began: float) -> None:
        loop = asyncio.get_running_loop()
        chance = random.random()  # noqa: S311  # jitter, not a secret
        delay = self._patience.broke(loop.time(), began=began, crowded=False, retry_after=broke.retry_after, chance=chance)
        self._meter.retries += 1
        if self._patience.exhausted(loop.time() + delay):
            raise Failure(
                "stalled",
                "the server brings no more bytes, and it stopped serving ranges to go on with",
                last_reason=broke.reason,
                attempts=self._patience.retries,
            )
        await asyncio.sleep(delay)

    async def _attempt(self) -> Interrupted | None:
        """Read once from the first byte; return why it broke off, None once nothing is missing."""
        loop, seconds = asyncio.get_running_loop(), self._policy.stall_seconds
        self._meter.connections = 1
        self._at = grown = 0
        try:
            async with asyncio.timeout(seconds) as watchdog, aclosing(self._source.fetch(0, None)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    self._meter.fetched += len(chunk)
                    self._meter.tick()
                    grown += len(chunk)
                    if grown >= self._policy.stall_bytes:
                        grown = 0
                        watchdog.reschedule(loop.time() + seconds)
                    due, paused = watchdog.when() or loop.time(), loop.time()
                    watchdog.reschedule(None)  # a consumer that is busy is no fault of the server
                    if not await self._take(chunk):
                        return None
                    watchdog.reschedule(due + loop.time() - paused)
        except TimeoutError:
            return Interrupted(f"stalled for {seconds:g} s")
        except Interrupted as interrupted:
            return interrupted
        finally:
            if self._span is not None:
                self._orders.give_back(self._span)
                self._span = None
        return None if self._orders.over else Interrupted("the answer ended early")

    async def _take(self, chunk: bytes) -> bool:
        """Put what is missing of a chunk where it belongs; False once nothing is missing any more."""
        rest = memoryview(chunk)
        while rest:
            span = self._span = self._span or await self._next()
            if span is None:
                return False
            if span.start > self._at:
                step = min(len(rest), span.start - self._at)
            else:
                step = min(len(rest), span.end - self._at)
                fill(self._orders, self._at, rest[:step])
                self._patience.progressed(asyncio.get_running_loop().time(), step)
                self._span = Span(self._at + step, span.end) if self._at + step < span.end else None
            self._at += step
            rest = rest[step:]
        return True

    async def _next(self) -> Span | None:
        while not self._orders.over:
            span = self._orders.take()
            if span is not None:
                return span
            self._orders.changed.clear()
            await self._orders.changed.wait()
        return None
