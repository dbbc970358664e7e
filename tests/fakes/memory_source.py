"""A source in memory that obeys importer.sources.protocol.Source and can break on purpose."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from random import Random

from importer.sources.protocol import Basin, Interrupted, RangesEnded, SourceFacts, fill

HEAD = 64 << 10


class MemorySource:
    """Serves `data`; with `breaks`, that share of attempts breaks off somewhere."""

    def __init__(
        self, data: bytes, *, ranges: bool = True, known: bool = True, breaks: float = 0.0, seed: int = 0, chunk: int = 100_000
    ) -> None:
        self.data = data
        self.fetched = 0
        self.attempts: list[tuple[int, int | None]] = []
        self.stalls: set[int] = set()
        self.ranges_end: int | None = None
        """The number of the attempt from which on no range is served."""
        self.served: Callable[[int], None] = lambda _total: None
        """Called with the bytes fetched so far after each chunk."""
        self.breaks = breaks
        self._random = Random(seed)
        self._chunk = chunk
        self.facts = SourceFacts(url="memory:", name="memory", length=len(data) if known else None, ranges=ranges)
        self.head = data[:HEAD]

    async def fetch(self, start: int, end: int | None) -> AsyncGenerator[bytes, None]:
        number = len(self.attempts)
        self.attempts.append((start, end))
        if self.ranges_end is not None and number >= self.ranges_end and (start, end) != (0, None):
            raise RangesEnded("the server no longer serves ranges")
        stop = len(self.data) if end is None else end
        limit = self._random.randrange(start, stop + 1) if self._random.random() < self.breaks else None
        at = start
        while at < stop:
            await asyncio.sleep(0)
            if number in self.stalls:
                await asyncio.Event().wait()
            step = min(stop, at + self._random.randint(1, self._chunk)) - at
            if limit is not None and at + step > limit:
                if limit > at:
                    yield self.data[at:limit]
                raise Interrupted("broken on purpose", crowded=self._random.random() < 0.3)
            self.fetched += step
            yield self.data[at : at + step]
            at += step
            self.served(self.fetched)

    async def pour(self, start: int, end: int, basin: Basin) -> None:
        async with aclosing(self.fetch(start, end)) as chunks:
            async for chunk in chunks:
                fill(basin, start, chunk)
                start += len(chunk)

    async def settle(self) -> None:
        return None

    async def close(self) -> None:
        return None
