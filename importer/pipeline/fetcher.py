"""Several connections bring spans of one object; broken attempts are resumed at the byte where they broke.

What to fetch next is decided by an `Orders` object (in order, or on demand); where bytes go is its shelf.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

from importer.api.failure import Failure
from importer.disk.reads import Span
from importer.pipeline.adapt import Adaptation
from importer.pipeline.meter import Meter
from importer.pipeline.patience import Patience, Policy
from importer.pipeline.rereading import Rereading
from importer.sources.protocol import Basin, Interrupted, RangesEnded, Source


class Orders(Basin, Protocol):
    """Tells connections what to fetch, and takes it. All calls are made on the event loop."""

    changed: asyncio.Event
    """Set whenever `take` may answer differently than before."""

    @property
    def ascending(self) -> bool:
        """True if spans are taken in byte order, so that one connection can bring them all."""
        ...

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


class _Flow:
    """The basin of one attempt: passes bytes on to the orders, counts them and feeds the watchdog."""

    def __init__(
        self, at: int, orders: Orders, watchdog: asyncio.Timeout, policy: Policy, arrived: Callable[[int, float], None]
    ) -> None:
        self.at = at
        """Where the next byte belongs."""
        self.place = orders.place
        self._orders = orders
        self._watchdog = watchdog
        self._policy = policy
        self._arrived = arrived
        self._clock = asyncio.get_running_loop().time
        self._fed, self._due = self._clock(), at + policy.stall_bytes

    def filled(self, at: int, count: int) -> None:
        self._orders.filled(at, count)
        self.at = at + count
        now = self._clock()
        self._arrived(count, now)
        # An expired watchdog cannot be fed: its attempt is about to end.
        if self.at >= self._due and now - self._fed >= self._policy.stall_seconds / 50 and not self._watchdog.expired():
            self._fed, self._due = now, self.at + self._policy.stall_bytes
            self._watchdog.reschedule(now + self._policy.stall_seconds)


class Fetcher:
    """Runs the connections until the orders are over."""

    def __init__(self, source: Source, orders: Orders, meter: Meter, *, connections: int, policy: Policy) -> None:
        """Use up to `connections` connections to `source`, as many as are worth having."""
        self._source = source
        self._orders = orders
        self._meter = meter
        self._policy = policy
        self._patience = Patience(policy=policy, connections=connections)
        self._adaptation = Adaptation(most=connections, latency=source.facts.latency)
        self._count = connections
        self._active = 0

    async def run(self) -> None:
        """Fetch until the orders are over. Raises Failure; every connection is then closed."""
        try:
            async with asyncio.TaskGroup() as lanes:
                for lane in range(self._count):
                    lanes.create_task(self._lane(lane), name=f"connection {lane}")
            return
        except BaseExceptionGroup as group:
            ended, others = group.split(RangesEnded)
            if others is not None:
                raise leaf_of(others) from None
            assert ended is not None
            refusal = leaf_of(ended)
        finally:
            self._meter.connections_reason = self._adaptation.reason
        assert isinstance(refusal, RangesEnded)
        if not self._orders.ascending:
            raise refusal.failure()
        self._meter.note("the server stopped serving ranges: the rest is read over one connection, from the first byte on")
        # A task of its own: a failed group leaves this one half cancelled (CPython before 3.13), and time-outs misread that.
        await asyncio.create_task(Rereading(self._source, self._orders, self._meter, self._policy).run(), name="rereading")

    async def _lane(self, lane: int) -> None:
        orders, clock = self._orders, self._meter.clock("fetch")
        loop = asyncio.get_running_loop()
        while not orders.over:
            wanted = lane < min(self._patience.connections, self._adaptation.count)
            span = orders.take() if wanted else None
            if span is None:
                orders.changed.clear()
                began = loop.time()
                await orders.changed.wait()
                if wanted:
                    waited = loop.time() - began
                    clock.waiting += waited
                    self._adaptation.waited(waited)
                continue
            await self._attempt(span)
        orders.changed.set()

    async def _attempt(self, span: Span) -> None:
        loop = asyncio.get_running_loop()
        broke: Interrupted | None = None
        began = loop.time()
        self._begin()
        try:
            async with asyncio.timeout(self._policy.stall_seconds) as watchdog:
                flow = _Flow(span.start, self._orders, watchdog, self._policy, self._arrived)
                with self._meter.clock("fetch").working():
                    await self._source.pour(span.start, span.end, flow)
        except TimeoutError:
            broke = Interrupted(f"stalled: fewer than {self._policy.stall_bytes} bytes in {self._policy.stall_seconds:g} s")
        except RangesEnded:
            raise
        except Interrupted as interrupted:
            broke = interrupted
        finally:
            self._active -= 1
            self._meter.connections = self._active
            if flow.at < span.end:
                self._orders.give_back(Span(flow.at, span.end))
        if flow.at < span.end:
            await self._recover(broke or Interrupted("the answer ended early"), began)
        else:
            self._patience.recovered()

    def _begin(self) -> None:
        self._active += 1
        self._meter.connections = self._active
        self._meter.most_connections = max(self._meter.most_connections, self._active)

    def _arrived(self, size: int, now: float) -> None:
        self._patience.progressed(now, size)
        self._meter.fetched += size
        self._meter.tick()
        if self._adaptation.arrived(now, size):
            self._orders.changed.set()

    async def _recover(self, broke: Interrupted, began: float) -> None:
        loop = asyncio.get_running_loop()
        delay = self._patience.broke(
            loop.time(),
            began=began,
            crowded=broke.crowded,
            retry_after=broke.retry_after,
            chance=random.random(),  # noqa: S311  # jitter, not a secret
        )
        self._adaptation.disturbed(loop.time(), self._patience.connections)
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
