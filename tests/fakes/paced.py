"""Serves one object slowly enough for an import to be caught in the middle, counts what it sends, and cuts connections."""

import asyncio
import random
import time

from fakes.badhttp import HangUp, Request, Wire
from fakes.behaviours import ETAG, span_of

STEP = 64 << 10


class Paced:
    """A behaviour for fakes.badhttp: all connections together get `rate` bytes a second."""

    def __init__(self, data: bytes, *, rate: int, cuts: float = 0.0, seed: int = 0) -> None:
        """Serve `data`; each 64 KiB are the last of their connection with a chance of `cuts`."""
        self.data = data
        self.rate = rate
        self.cuts = cuts
        self.etag = ETAG
        self.sent = 0
        self.cut = 0
        """Connections that were cut."""
        self._chance = random.Random(seed)
        self._free = 0.0

    async def __call__(self, request: Request, wire: Wire) -> None:
        span = span_of(request, len(self.data))
        start, end = span or (0, len(self.data))
        headers: list[tuple[str, object]] = [("Accept-Ranges", "bytes"), ("ETag", self.etag), ("Content-Length", end - start)]
        if span:
            headers.append(("Content-Range", f"bytes {start}-{end - 1}/{len(self.data)}"))
        await wire.head(206 if span else 200, headers)
        for at in range(start, end, STEP):
            part = self.data[at : min(end, at + STEP)]
            self._free = max(self._free, time.monotonic()) + len(part) / self.rate
            await asyncio.sleep(max(0.0, self._free - time.monotonic()))
            if self._chance.random() < self.cuts:
                self.cut += 1
                self.sent += len(part) // 2
                await wire.send(part[: len(part) // 2])
                wire.reset()
                raise HangUp
            self.sent += len(part)
            await wire.send(part)
