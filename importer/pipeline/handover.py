"""From a thread to the event loop: bytes a bounded way ahead of who takes them (the other way round: pipeline.feed)."""

import asyncio
import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """Nobody takes anything any more."""


class Handover(Generic[T]):
    """One thread gives, the loop takes."""

    def __init__(self, depth: int) -> None:
        """Hold up to `depth` parts."""
        self._parts: deque[T] = deque()
        self._room = threading.Semaphore(depth)
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None
        self._closed = False

    def give(self, part: T) -> None:
        """Hand over one part; blocks while there is no room. Raises Closed."""
        self._room.acquire()
        if self._closed:
            self._room.release()
            raise Closed
        self._parts.append(part)
        self._loop.call_soon_threadsafe(self._news.set)

    def end(self, error: BaseException | None = None) -> None:
        """Say that nothing follows, or why; called on the loop. Parts that were given before are still taken."""
        self._ended, self._error = True, error
        self._news.set()

    async def take(self) -> T | None:
        """Return the next part, None after the last. Raises what `end` was given."""
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        self._room.release()
        return self._parts.popleft()

    def close(self) -> None:
        """Take nothing more: whoever gives is told."""
        self._closed = True
        self._room.release()
