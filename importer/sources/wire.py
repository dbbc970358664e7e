"""A connection of our own for http://, whose bodies are received straight into the caller's memory.

aiohttp makes a bytes object of everything it receives, which somebody must then copy to its place; on a very fast
network that is a third of all the work. Heads are still parsed by aiohttp's parser, so that both paths mean the same.
"""

import asyncio
import socket
from typing import TypeAlias

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser, RawResponseMessage

from importer.sources.protocol import Basin, fill

SCRATCH = 64 << 10
"""Longest head of an answer."""
LONGEST_LINE = 32 << 10
WAKE = 256 << 10
"""Bytes to wait for before waking, on a fast connection: a fifth of the CPU time of receiving went into waking for less."""
STRETCH = 1 << 20
FAST = 0.02
"""Seconds for a stretch of so many bytes, up to which a connection is fast. A slow one must be heard byte by byte."""
HUSH = 1.0
"""Seconds of silence after which even a fast connection is heard byte by byte again."""
Head: TypeAlias = RawResponseMessage
_END = b"\r\n\r\n"


class NotHttp(Exception):
    """What came is no head of an HTTP answer."""


class Wire(asyncio.BufferedProtocol):
    """One kept-alive connection. One request at a time: `ask`, then `pour` the whole body or `close`.

    Raises TimeoutError after silence, EOFError when the peer ended, OSError when the connection broke; it is closed then.
    """

    def __init__(self, silence: float) -> None:
        """Be silent for at most `silence` seconds while something is awaited."""
        self.answered = False
        """True once a byte of an answer came to the latest request."""
        self._silence = silence
        self._scratch = memoryview(bytearray(SCRATCH))
        self._head = self._have = 0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._awaited: asyncio.Future[None] | None = None
        self._basin: Basin | None = None
        self._at = self._end = 0
        self._wake = 1
        """What the socket waits for now: SO_RCVLOWAT."""
        self._stretch = 0
        self._stretch_began = 0.0
        self._heard = 0.0
        self._listening: asyncio.TimerHandle | None = None
        self._lost: Exception | None = None

    @property
    def open(self) -> bool:
        """True while another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Hang up; more than once does no harm."""
        if self._transport is not None:
            self._transport.abort()

    async def ask(self, request: bytes) -> Head:
        """Send a request and return the head of its answer. Raises NotHttp besides the errors of a connection."""
        self.answered = False
        if self._transport is None or not self.open:
            raise EOFError
        try:
            self._transport.write(request)
            await self._until_settled()
            return _parsed(bytes(self._scratch[: self._head]), self._loop)
        except BaseException:
            self.close()
            raise

    async def pour(self, start: int, end: int, basin: Basin) -> None:
        """Receive the body, which is the bytes start..end, into a basin. Raises what the basin raises, too."""
        early = self._scratch[self._head : min(self._have, self._head + end - start)]
        surplus = self._have - self._head > end - start
        self._head = self._have = 0
        self._at, self._end = start, end
        try:
            fill(basin, start, early)
            self._at += len(early)
            if self._at < end:
                self._basin = basin
                self._stretch, self._stretch_began = self._at, self._loop.time()
                await self._until_settled()
        except BaseException:
            self._basin = None
            self.close()
            raise
        if surplus:  # more came than was announced: what follows would be no answer
            self.close()
        elif self._transport is not None:
            self._transport.resume_reading()  # to notice when the server hangs up

    async def _until_settled(self) -> None:
        if self._lost is not None:
            raise self._lost
        self._awaited = self._loop.create_future()
        self._heard = self._loop.time()
        self._listening = self._loop.call_later(self._silence, self._listen)
        assert self._transport is not None
        self._transport.resume_reading()
        try:
            await self._awaited
        finally:
            self._listening.cancel()
            self._awaited = None

    def _listen(self) -> None:
        """Give up after silence. One timer for many receptions: arming one for each would cost more than receiving."""
        quiet = self._loop.time() - self._heard
        if quiet >= self._silence:
            self._settle(TimeoutError())
            return
        if quiet >= HUSH:
            self._wake_at(1)  # less than would have woken us may be there already
        self._listening = self._loop.call_later(min(HUSH, self._silence - quiet), self._listen)

    def _settle(self, error: Exception | None = None) -> None:
        if self._awaited is not None and not self._awaited.done():
            if error is None:
                self._awaited.set_result(None)
            else:
                self._awaited.set_exception(error)
                self.close()

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to receive: the basin while a body is awaited, else the scratch."""
        if self._basin is None:
            return self._scratch[self._have :]
        return self._basin.place(self._at)[: self._end - self._at]

    def buffer_updated(self, nbytes: int) -> None:
        """Take note of what was received."""
        self._heard = self._loop.time()
        if self._basin is not None:
            self._poured(nbytes)
        elif self._awaited is not None and not self._awaited.done():
            self._have += nbytes
            self.answered = True
            self._look_for_end_of_head(nbytes)
        else:
            self.close()  # nothing was asked for

    def _poured(self, count: int) -> None:
        assert self._basin is not None
        at, self._at = self._at, self._at + count
        try:
            self._basin.filled(at, count)
        except Exception as error:
            self._basin = None
            self._settle(error)
            return
        self._pace()
        if self._at == self._end:
            self._basin = None
            self._settle()

    def _pace(self) -> None:
        """Wake seldom while much comes fast, and for each byte once less is left than would wake us."""
        wake = self._wake
        if self._at - self._stretch >= STRETCH:
            wake = WAKE if self._heard - self._stretch_began <= FAST else 1
            self._stretch, self._stretch_began = self._at, self._heard
        self._wake_at(wake if self._end - self._at >= WAKE else 1)

    def _wake_at(self, count: int) -> None:
        """Have the socket told to be ready once so many bytes are there."""
        if count != self._wake and self._transport is not None:
            self._wake = count
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def _look_for_end_of_head(self, count: int) -> None:
        begin = bytes(self._scratch[: min(5, self._have)])
        found = bytes(self._scratch[max(0, self._have - count - 3) : self._have]).find(_END)
        if not b"HTTP/".startswith(begin):
            self._settle(NotHttp("it does not begin with HTTP/"))
        elif found >= 0:
            self._head = max(0, self._have - count - 3) + found + len(_END)
            assert self._transport is not None
            self._transport.pause_reading()  # until it is known where the body belongs
            self._settle()
        elif self._have == SCRATCH:
            self._settle(NotHttp("its head is too long"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._lost = exc or EOFError()
        self._settle(self._lost)
        self._transport = None
        self._basin = None


def _parsed(head: bytes, loop: asyncio.AbstractEventLoop) -> Head:
    parser = HttpResponseParser(
        BaseProtocol(loop), loop, SCRATCH, max_line_size=LONGEST_LINE, max_field_size=LONGEST_LINE,
        response_with_body=False, auto_decompress=False,
    )  # fmt: skip
    try:
        messages = parser.feed_data(head)[0]
    except Exception as error:  # the parser's own, and what that is built on
        raise NotHttp(str(error)) from error
    if not messages:
        raise NotHttp("an empty head")
    return messages[0][0]


def request(target: str, headers: dict[str, str]) -> bytes:
    """Return a GET as it is sent; `target` is printable ASCII, and header values hold no control characters."""
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + _END
