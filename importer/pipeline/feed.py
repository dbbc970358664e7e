"""From the event loop's pieces to a decoder's thread: a blocking reader whose buffers go straight back."""

import threading
import time
from collections import deque
from collections.abc import Callable


class Feed:
    """Bytes in order for one decoder (see disk.wrappers.Feed). The loop pushes, one thread reads."""

    def __init__(self) -> None:
        """Begin empty and open."""
        self.waited = 0.0
        """Seconds the reader waited for bytes."""
        self._parts: deque[tuple[memoryview, Callable[[], object]]] = deque()
        self._news = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self._current: memoryview | None = None
        self._done: Callable[[], object] = _nothing

    def push(self, view: memoryview, done: Callable[[], object]) -> None:
        """Hand over bytes; `done` is called, in the reader's thread, once they have been read."""
        with self._news:
            self._parts.append((view, done))
            self._news.notify()

    def close(self) -> None:
        """Say that nothing follows."""
        with self._news:
            self._closed = True
            self._news.notify()

    def fail(self, error: BaseException) -> None:
        """Make the reader raise `error` at once."""
        with self._news:
            self._error = error
            self._news.notify()

    def read(self, size: int, /) -> bytes:
        """Return at least one byte, at most `size`; b"" at the end. Blocks; raises what `fail` was given."""
        if self._error:
            raise self._error
        if self._current is None and not self._advance():
            return b""
        assert self._current is not None
        part = bytes(self._current[:size])
        self._current = self._current[size:]
        if not self._current:
            self._current = None
            self._done()
        return part

    def _advance(self) -> bool:
        with self._news:
            while not (self._parts or self._closed or self._error):
                began = time.monotonic()
                self._news.wait()
                self.waited += time.monotonic() - began
            if self._error:
                raise self._error
            if not self._parts:
                return False
            self._current, self._done = self._parts.popleft()
            return True


def _nothing() -> None:
    return None
