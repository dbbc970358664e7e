"""An HTTP server that can be told to misbehave: raw asyncio in a thread of its own, on the loopback.

A behaviour is a coroutine function of one request and one connection; fakes.behaviours has them. Everything that
was asked is recorded, for tests to look at afterwards.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

REASONS = {200: "OK", 206: "Partial Content", 302: "Found", 403: "Forbidden", 404: "Not Found", 503: "Service Unavailable"}

TLS_HELLO = b"\x16"
"""What a client begins with that takes this for a server with TLS."""


class HangUp(Exception):
    """Raised by a behaviour to close the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it came."""

    number: int
    """From 0, over all connections."""
    connection: int
    """From 0."""
    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def range(self) -> tuple[int, int] | None:
        """First and last byte asked for (both included), None without a Range."""
        text = self.headers.get("range")
        if text is None:
            return None
        first, _, last = text.removeprefix("bytes=").partition("-")
        return int(first), int(last) if last else 1 << 62


class Wire:
    """One connection, from the server's side."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def head(self, status: int, headers: Iterable[tuple[str, object]] = ()) -> None:
        """Send a status line and headers."""
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{name}: {value}" for name, value in headers)]
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def answer(self, status: int, body: bytes = b"", *headers: tuple[str, object]) -> None:
        """Send a whole answer."""
        await self.head(status, (("Content-Length", len(body)), *headers))
        await self.send(body)

    async def send(self, data: bytes | memoryview) -> None:
        """Send bytes, waiting for the peer to take them."""
        view = memoryview(data)
        for at in range(0, len(view), 1 << 18):
            self._writer.write(bytes(view[at : at + (1 << 18)]))
            await self._writer.drain()

    def reset(self) -> None:
        """End the connection with a RST."""
        peer: socket.socket = self._writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        raise HangUp


Behaviour: TypeAlias = Callable[[Request, Wire], Awaitable[None]]


@dataclass
class BadServer:
    """Serves every path by one behaviour, which may be changed while it runs."""

    behave: Behaviour
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    port: int = 0

    def url(self, path: str = "disk.img", host: str = "127.0.0.1") -> str:
        """Return the URL of a path."""
        return f"http://{host}:{self.port}/{path}"

    def methods(self) -> set[str]:
        """Return the methods that were used."""
        return {request.method for request in self.requests}

    def __enter__(self) -> "BadServer":
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="bad server")
        self._thread.start()
        assert self._started.wait(10), "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the server did not end"

    async def _main(self) -> None:
        self._loop, self._over, tasks = asyncio.get_running_loop(), asyncio.Event(), set[asyncio.Task[None]]()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._over.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection, self.connections = self.connections, self.connections + 1
        self.open_now += 1
        wire = Wire(writer)
        try:
            while (request := await self._read(reader, connection)) is not None:
                self.requests.append(request)
                await self.behave(request, wire)
        except (HangUp, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_now -= 1
            with contextlib.suppress(OSError):
                writer.close()

    async def _read(self, reader: asyncio.StreamReader, connection: int) -> Request | None:
        try:
            start = await reader.readexactly(1)
            if start == TLS_HELLO:
                return None
            text = (start + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = text.rstrip().split("\r\n")
        method, path, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        return Request(number=len(self.requests), connection=connection, method=method, path=path, headers=headers)
