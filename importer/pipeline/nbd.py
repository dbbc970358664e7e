"""A read-only NBD server for one client on a connected unix socket: how qemu-img reads our window.

qemu-img gets the other end of a socketpair, so there is no address, no other client and no path.
Requests and replies do not go through asyncio's streams: a compressed image asks for every cluster on
its own, and then what counts is how little is done per request. Replies are sent as they become
ready, in any order, straight from the export's buffers (sendmsg, no copy but the kernel's).
"""

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from importer.pipeline import nbd_wire as wire

Parts: TypeAlias = Sequence[memoryview | bytes]

NEGOTIATION_SECONDS = 60.0
MAX_OUTSTANDING = 32
"""Requests taken before the first is answered. qemu keeps at most 16."""
SEND_BUFFER = 4 << 20
_RECEIVE = 64 << 10
_IOVECS = 256
_SO_SNDBUFFORCE = 32  # asm-generic/socket.h; the socket module does not name it


class ReadFailed(Exception):
    """These bytes of the export cannot be had: the client is told EIO. The export remembers why."""


class Export(Protocol):
    """What is served."""

    @property
    def size(self) -> int:
        """Bytes the export claims to have; may be far more than the object behind it."""
        ...

    async def read(self, offset: int, length: int) -> Parts:
        """Return the bytes offset..offset+length in parts, in order. Many reads run at once. Raises ReadFailed."""
        ...

    def done(self, parts: Parts) -> None:
        """Take the parts of one read back: they have been sent, or never will be. Called once for each read."""
        ...


@runtime_checkable
class PromptExport(Export, Protocol):
    """An export that can tell at once whether it holds some bytes: spares a task for each such read."""

    def ready(self, offset: int, length: int) -> Parts | None:
        """Return what `read` would, if that takes no waiting, else None. Raises ReadFailed."""
        ...


async def serve(sock: socket.socket, export: Export) -> None:
    """Serve one client until it leaves or breaks the protocol; closes `sock`, cancels outstanding reads.

    Whatever the client does ends the session, never in an exception; an exception of the export other than
    ReadFailed ends the session and is raised.
    """
    with sock:
        sock.setblocking(False)
        _widen(sock)
        agreed = False
        with suppress(wire.Garbled, OSError, EOFError, TimeoutError):
            async with asyncio.timeout(NEGOTIATION_SECONDS):
                agreed = await _negotiate(sock, export.size)
        if agreed:
            await _Session(sock, export).run()


def _widen(sock: socket.socket) -> None:
    """Let a whole reply fit the socket: otherwise each one costs several turns of both processes."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)


async def _negotiate(sock: socket.socket, size: int) -> bool:
    """Go through the options; True if the client goes on to read."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, wire.greeting())
    no_zeroes = wire.parse_client_flags(await _exactly(sock, wire.CLIENT_FLAGS.size))
    following = wire.Next.OPTION
    while following is wire.Next.OPTION:
        code, length = wire.parse_option(await _exactly(sock, wire.OPTION.size))
        reply, following = wire.answer(code, await _exactly(sock, length), size=size, no_zeroes=no_zeroes)
        await loop.sock_sendall(sock, reply)
    return following is wire.Next.TRANSMISSION


async def _exactly(sock: socket.socket, count: int) -> bytes:
    """Receive `count` bytes and none beyond them. Raises EOFError."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        more = await loop.sock_recv(sock, count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


@dataclass(slots=True)
class _Outgoing:
    """One reply on its way: what is left of it, and the parts to hand back afterwards."""

    left: deque[memoryview]
    parts: Parts | None


class _Session:
    """The transmission phase: callbacks of the loop on one socket."""

    def __init__(self, sock: socket.socket, export: Export) -> None:
        self._sock = sock
        self._export = export
        self._prompt = export if isinstance(export, PromptExport) else None
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._buffer = bytearray(_RECEIVE)
        self._held = 0
        """Bytes at the beginning of the buffer that are not parsed yet."""
        self._skip = 0
        """Bytes of a refused write still to come."""
        self._reads: set[asyncio.Task[None]] = set()
        self._outbox: deque[_Outgoing] = deque()
        self._listening = False
        self._blocked = False
        """True while the socket is full and the loop watches for room."""

    async def run(self) -> None:
        """Serve until the session is over."""
        self._go_on()
        try:
            await self._over
        finally:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            for read in self._reads:
                read.cancel()
            await asyncio.gather(*self._reads, return_exceptions=True)
            for outgoing in self._outbox:
                if outgoing.parts is not None:
                    self._export.done(outgoing.parts)

    # -- requests

    def _go_on(self) -> None:
        """Act on the requests in the buffer, and listen for more while few enough are outstanding."""
        try:
            self._parse()
        except wire.Garbled:
            self._end()
        wanted = not (self._crowded() or self._over.done())
        if wanted and not self._listening:
            self._loop.add_reader(self._sock, self._receive)
        elif self._listening and not wanted:
            self._loop.remove_reader(self._sock)
        self._listening = wanted

    def _crowded(self) -> bool:
        return len(self._reads) + len(self._outbox) >= MAX_OUTSTANDING

    def _receive(self) -> None:
        """Take what has arrived."""
        try:
            count = self._sock.recv_into(memoryview(self._buffer)[self._held :])
        except BlockingIOError:
            return
        except OSError:
            count = 0
        self._held += count
        if not count:
            self._end()
        self._go_on()

    def _parse(self) -> None:
        """Begin all whole requests in the buffer, as far as there may be more outstanding."""
        at = 0
        while not (self._crowded() or self._over.done()):
            skipped = min(self._skip, self._held - at)
            self._skip -= skipped
            at += skipped
            if self._held - at < wire.REQUEST.size:
                break
            request = wire.parse_request(self._buffer, at)
            at += wire.REQUEST.size
            self._take(request)
        self._buffer[: self._held - at] = self._buffer[at : self._held]
        self._held -= at

    def _take(self, request: wire.Request) -> None:
        """Answer a request now, or begin its read."""
        if request.command == wire.Command.DISCONNECT:
            self._end()
            return
        if request.command == wire.Command.WRITE:
            self._skip = request.length
        error = wire.judge(request, self._export.size)
        if error or request.command != wire.Command.READ:
            self._send(request.cookie, error)
            return
        try:
            parts = self._prompt.ready(request.offset, request.length) if self._prompt else None
        except ReadFailed:
            self._send(request.cookie, wire.Errno.EIO)
        except Exception as fault:
            self._end(fault)
        else:
            if parts is not None:
                self._send_parts(request, parts)
            else:
                read = self._loop.create_task(self._read(request))
                self._reads.add(read)
                read.add_done_callback(self._finished)

    async def _read(self, request: wire.Request) -> None:
        """Serve one read that has to wait for its bytes."""
        try:
            parts = await self._export.read(request.offset, request.length)
        except ReadFailed:
            self._send(request.cookie, wire.Errno.EIO)
        except Exception as fault:
            self._end(fault)
        else:
            self._send_parts(request, parts)

    def _finished(self, read: asyncio.Task[None]) -> None:
        self._reads.discard(read)
        self._go_on()

    # -- replies

    def _send_parts(self, request: wire.Request, parts: Parts) -> None:
        """Send the bytes of a read."""
        views = [memoryview(part) for part in parts]
        if sum(view.nbytes for view in views) == request.length:
            self._send(request.cookie, wire.Errno.OK, views, parts)
        else:  # a client would take the next header for data
            self._export.done(parts)
            self._end(RuntimeError(f"the export did not return {request.length} bytes"))

    def _send(self, cookie: int, error: wire.Errno, views: Sequence[memoryview] = (), parts: Parts | None = None) -> None:
        """Send a reply, or as much of it as the socket takes; the rest follows when there is room."""
        left = deque([memoryview(wire.reply(cookie, error)), *(view for view in views if view.nbytes)])
        self._outbox.append(_Outgoing(left, parts))
        if not self._blocked:
            self._flush()

    def _flush(self) -> None:
        """Send from the outbox until it is empty or the socket is full."""
        try:
            while self._outbox and not self._over.done():
                first = self._outbox[0]
                _drop(first.left, self._sock.sendmsg([view for view, _ in zip(first.left, range(_IOVECS), strict=False)]))
                if not first.left:
                    self._outbox.popleft()
                    if first.parts is not None:
                        self._export.done(first.parts)
        except BlockingIOError:
            if not self._blocked:
                self._loop.add_writer(self._sock, self._writable)
                self._blocked = True
        except OSError:
            self._end()

    def _writable(self) -> None:
        """Go on sending."""
        self._flush()
        if self._blocked and not self._outbox:
            self._loop.remove_writer(self._sock)
            self._blocked = False
        self._go_on()

    def _end(self, fault: Exception | None = None) -> None:
        """End the session, by an exception if the export is at fault."""
        if self._over.done():
            return
        if fault is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(fault)


def _drop(views: deque[memoryview], count: int) -> None:
    """Drop the first `count` bytes."""
    while count:
        view = views.popleft()
        if view.nbytes > count:
            views.appendleft(view.cast("B")[count:])
            return
        count -= view.nbytes
