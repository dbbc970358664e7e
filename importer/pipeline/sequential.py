"""One object read from its first byte to its last over one connection: servers without ranges, unknown lengths.

A broken attempt can only be begun anew; what was delivered before is then skipped, but not blindly: its digest must
be the same, so that a changed object never becomes a mix of two versions.
"""

import asyncio
import random
from collections import deque
from contextlib import aclosing
from hashlib import blake2b
from mmap import mmap

from importer.api.failure import Failure
from importer.pipeline.meter import Meter
from importer.pipeline.patience import Patience, Policy
from importer.pipeline.pinned import Pinned
from importer.pipeline.shelf import PIECE, Piece
from importer.sources.protocol import Interrupted, Source


class Sequential:
    """Hands on pieces in byte order like in_order.InOrder; the last one may be short."""

    def __init__(self, source: Source, meter: Meter, *, capacity: int, pinned: Pinned, policy: Policy) -> None:
        """Hold at most `capacity` pieces."""
        self._source = source
        self._meter = meter
        self._policy = policy
        self._patient = None if source.facts.once else policy.stall_seconds
        """Seconds in which some bytes must come."""
        self._patience = Patience(policy=policy, connections=1)
        self._pinned = pinned
        self._places = asyncio.Semaphore(capacity)
        self._spare: list[mmap] = []
        self._done: deque[Piece] = deque()
        self._ready = asyncio.Event()
        self._ended = False
        self._received = 0
        self._digest = blake2b()
        self._piece: Piece | None = None
        self._lent: dict[int, mmap] = {}

    def stop(self) -> None:
        """End the hand-over; the task that runs `run` is cancelled by its owner."""
        self._ended = True
        self._ready.set()

    async def run(self) -> None:
        """Read the object to its verified end. Raises Failure."""
        loop = asyncio.get_running_loop()
        self._meter.most_connections = 1
        began = loop.time()
        while (broke := await self._attempt()) is not None:
            delay = self._patience.broke(
                loop.time(),
                began=began,
                crowded=broke.crowded,
                retry_after=broke.retry_after,
                chance=random.random(),  # noqa: S311
            )
            self._meter.retries = self._patience.retries
            self._meter.note(f"begun anew, as the server serves no ranges: {broke.reason}")
            if self._patience.exhausted(loop.time() + delay):
                raise Failure(
                    "stalled",
                    "the server brings no more bytes, and it serves no ranges to go on with",
                    last_reason=broke.reason,
                    attempts=self._patience.retries,
                    received=self._received,
                )
            await asyncio.sleep(delay)
            began = loop.time()
        if self._piece is not None:
            self._hand_over(self._piece)
        self._ended = True
        self._ready.set()

    async def _attempt(self) -> Interrupted | None:
        """Read once from the beginning; return why it broke off, or None at the true end."""
        loop = asyncio.get_running_loop()
        skip, again, clock = self._received, blake2b(), self._meter.clock("fetch")
        grown = arrived = 0
        try:
            async with asyncio.timeout(self._patient) as watchdog, aclosing(self._source.fetch(0, None)) as chunks:  # type: ignore[type-var]
                while True:
                    with clock.working():
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        break
                    if self._source.facts.served_length is None:  # else what is fetched is counted where it is fetched
                        self._meter.fetched += len(chunk)
                    self._meter.tick()
                    grown += len(chunk)
                    if grown >= self._policy.stall_bytes:
                        grown = 0
                        watchdog.reschedule(loop.time() + self._patient if self._patient else None)
                    if arrived < skip:
                        old, chunk = chunk[: skip - arrived], chunk[skip - arrived :]
                        arrived += len(old)
                        again.update(old)
                        if arrived == skip and again.digest() != self._digest.digest():
                            raise Failure("source-changed", "the second answer began with other bytes than the first")
                    if chunk:
                        arrived += len(chunk)
                        due, paused = watchdog.when(), loop.time()
                        watchdog.reschedule(None)  # a consumer that is busy is no fault of the server
                        await self._take(chunk)
                        watchdog.reschedule(due + loop.time() - paused if due else None)
                        self._patience.progressed(loop.time(), len(chunk))
        except TimeoutError:
            return Interrupted(f"stalled for {self._policy.stall_seconds:g} s")
        except Interrupted as interrupted:
            return interrupted
        if arrived < self._received:
            raise Failure("source-changed", "the second answer was shorter than the first", received=arrived)
        return None

    async def _take(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        view = memoryview(chunk)
        while view:
            if self._piece is None:
                await self._places.acquire()
                memory = self._spare.pop() if self._spare else mmap(-1, PIECE)
                self._piece = Piece(self._received // PIECE, memoryview(memory))
                self._lent[self._piece.index] = memory
            piece = self._piece
            step = min(len(view), PIECE - piece.filled)
            piece.view[piece.filled : piece.filled + step] = view[:step]
            piece.filled += step
            self._received += step
            view = view[step:]
            if piece.full:
                self._hand_over(piece)

    def _hand_over(self, piece: Piece) -> None:
        self._piece = None
        piece.view = piece.view[: piece.filled]
        self._pinned.check(piece.start, piece.view)
        self._done.append(piece)
        self._ready.set()

    async def next(self) -> Piece | None:
        """Return the next piece (release it soon), or None after the last."""
        while not self._done:
            if self._ended:
                return None
            self._ready.clear()
            await self._ready.wait()
        return self._done.popleft()

    def release(self, piece: Piece) -> None:
        """Give the piece's buffer back."""
        piece.view.release()
        self._spare.append(self._lent.pop(piece.index))
        self._places.release()
