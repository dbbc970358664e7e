"""HTTP servers of a few lines each, and how the tests read their objects."""

import asyncio
import hashlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from importer.api.failure import Failure
from importer.api.request import Access
from importer.sources.client import HttpPolicy
from importer.sources.http import HttpSource

DATA = hashlib.shake_128(b"disk").digest(3 << 20)
QUICK = HttpPolicy(sock_read=0.5, sock_connect=2, answer=2, head=0.3, head_limit=1, probe_tries=3, backoff=0.01, longest_wait=1)
OPEN = Access()
ASKED = (1 << 20, (1 << 20) + 1000)
"""A span beyond the head, and its bytes."""
BODY = DATA[ASKED[0] : ASKED[1]]


@dataclass
class Request:
    path: str
    headers: dict[str, str]

    @property
    def span(self) -> tuple[int, int] | None:
        text = self.headers.get("range", "")
        if not text:
            return None
        first, last = text.removeprefix("bytes=").split("-")
        return int(first), int(last) + 1


Reply = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    reply: Reply
    port: int = 0
    seen: list[Request] = field(default_factory=list)
    connections: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """A client went away."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/images/disk.img"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split(" ")
                assert method == "GET"
                headers = {}
                while (field_line := (await reader.readline()).decode().strip()) != "":
                    name, _, value = field_line.partition(":")
                    headers[name.lower()] = value.strip()
                self.seen.append(Request(path, headers))
                await self.reply(self.seen[-1], writer)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.ended.set()
            writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Hang up with a reset: a plain abort() sends a FIN like any close."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def serving(reply: Reply, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(reply)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def send(writer: asyncio.StreamWriter, status: int, body: bytes = b"", /, **headers: str) -> None:
    lines = [f"HTTP/1.1 {status} Text"]
    if "Content_Length" not in headers and "Transfer_Encoding" not in headers:
        headers["Content_Length"] = str(len(body))
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value != "none"]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def part(writer: asyncio.StreamWriter, request: Request, data: bytes = DATA, /, **headers: str) -> None:
    """Answer as a good server does."""
    if request.span is None:
        send(writer, 200, data, **headers)
        return
    start, end = request.span
    end = min(end, len(data))
    send(writer, 206, data[start:end], **{"Content_Range": f"bytes {start}-{end - 1}/{len(data)}", **headers})


async def good(request: Request, writer: asyncio.StreamWriter) -> None:
    part(writer, request, ETag='"v1"')


async def plain(request: Request, writer: asyncio.StreamWriter) -> None:
    send(writer, 200, DATA)


async def collect(source: HttpSource, start: int, end: int | None, into: bytearray | None = None) -> bytes:
    got = bytearray() if into is None else into
    async for piece in source.fetch(start, end):
        got += piece
    return bytes(got)


class Memory:
    """A basin of one place."""

    def __init__(self, start: int, into: bytearray) -> None:
        self.start, self.into = start, into
        self.room = bytearray(64 << 10)

    def place(self, at: int) -> memoryview:
        assert at == self.start + len(self.into)
        return memoryview(self.room)

    def filled(self, at: int, count: int) -> None:
        assert at == self.start + len(self.into)
        self.into += self.room[:count]


async def pour(source: HttpSource, start: int, end: int, into: bytearray | None = None) -> bytes:
    got = bytearray() if into is None else into
    await source.pour(start, end, Memory(start, got))
    return bytes(got)


EITHER_WAY = pytest.mark.parametrize("bring", [collect, pour])
Bring = Callable[..., Awaitable[bytes]]


@asynccontextmanager
async def opened(url: str, access: Access = OPEN, policy: HttpPolicy = QUICK) -> AsyncIterator[HttpSource]:
    source = await HttpSource.open(url, access, policy)
    try:
        yield source
    finally:
        await source.close()


async def failing(url: str, access: Access = OPEN, policy: HttpPolicy = QUICK) -> Failure:
    with pytest.raises(Failure) as caught:
        await HttpSource.open(url, access, policy)
    return caught.value
