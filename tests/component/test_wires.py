"""Ranges over wires of our own: the same promises as over aiohttp, one connection for many requests, no copies."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from importer.api.failure import Failure
from importer.api.request import Access
from importer.sources.addresses import Kind
from importer.sources.client import HttpPolicy
from importer.sources.http import HttpSource
from importer.sources.protocol import Interrupted
from importer.sources.wire import SCRATCH, Wire

DATA = hashlib.shake_128(b"wire").digest(3 << 20)
QUICK = HttpPolicy(sock_read=0.4, sock_connect=2, answer=1.5, head=0.3, head_limit=1, probe_tries=2, backoff=0.01)
START, END = 1 << 20, (1 << 20) + 200_000
TOLD = f'Content-Range: bytes {START}-{END - 1}/{len(DATA)}\r\nContent-Length: {END - START}\r\nETag: "v1"\r\n'
HEAD = f"HTTP/1.1 206 Partial Content\r\n{TOLD}\r\n".encode()
BODY = DATA[START:END]


class Peer:
    """A server that answers the probe well, and each later connection as `lines` says, by its number."""

    def __init__(self, answer: Callable[["Peer", asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.answer = answer
        self.heads: list[str] = []
        self.connections = self.open_now = 0
        self.port = 0
        self.ended, self.parted = asyncio.Event(), asyncio.Event()
        """A wire ended; a connection that only carried the probe did."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/a%20b/disk.img?sig=%2F+~"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_now += 1
        carried = False
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                if "Range: bytes=0-1048575\r\n" in head:
                    told = f'Content-Range: bytes 0-1048575/{len(DATA)}\r\nContent-Length: 1048576\r\nETag: "v1"\r\n\r\n'
                    writer.write(b"HTTP/1.1 206 Partial Content\r\n" + told.encode() + DATA[: 1 << 20])
                else:
                    carried = True
                    self.heads.append(head)
                    await self.answer(self, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open_now -= 1
            (self.ended if carried else self.parted).set()
            writer.close()


class Basin:
    """Remembers what was poured, and where."""

    def __init__(self, start: int = START, end: int = END) -> None:
        self.memory = bytearray(end - start)
        self.start, self.got = start, 0

    def place(self, at: int) -> memoryview:
        assert at == self.start + self.got, "bytes out of their order"
        return memoryview(self.memory)[self.got :]

    def filled(self, at: int, count: int) -> None:
        assert at == self.start + self.got, "bytes out of their order"
        self.got += count


@asynccontextmanager
async def peer(
    answer: Callable[[Peer, asyncio.StreamWriter], Awaitable[None]], access: Access | None = None
) -> AsyncIterator[tuple[Peer, HttpSource]]:
    it = Peer(answer)
    listener = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.port = listener.sockets[0].getsockname()[1]
    source = await HttpSource.open(it.url, access or Access(), QUICK)
    it.connections = 0
    try:
        yield it, source
    finally:
        await source.close()
        listener.close()


async def good(_: Peer, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + BODY)


def sends(*parts: bytes, then: str = "stay") -> Callable[[Peer, asyncio.StreamWriter], Awaitable[None]]:
    async def answer(_: Peer, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)  # so that the parts come one by one; nothing depends on it
        if then == "close":
            writer.close()
        if then == "abort":
            writer.transport.abort()

    return answer


async def poured(source: HttpSource) -> bytes:
    basin = Basin()
    await source.pour(START, END, basin)
    assert basin.got == END - START
    return bytes(basin.memory)


async def test_one_wire_carries_many_ranges_and_says_what_aiohttp_would_say() -> None:
    access = Access(headers=(("X-Key", "hush"), ("user-agent", "mine")))
    async with peer(good, access) as (server, source):
        for _ in range(5):
            assert await poured(source) == BODY
        assert server.connections == 1
        lines = server.heads[0].split("\r\n")
        assert lines[0] == "GET /a%20b/disk.img?sig=%2F+~ HTTP/1.1"
        assert f"Host: 127.0.0.1:{server.port}" in lines
        assert {"Accept-Encoding: identity", "X-Key: hush", "user-agent: mine", 'If-Range: "v1"'} <= set(lines)
        assert f"Range: bytes={START}-{END - 1}" in lines
        assert len([line for line in lines if line.lower().startswith("user-agent")]) == 1


@pytest.mark.parametrize("cut", [1, 5, 20, len(HEAD) - 3, len(HEAD) - 1, len(HEAD), len(HEAD) + 1, len(HEAD) + 150_000])
async def test_the_head_may_come_in_any_pieces(cut: int) -> None:
    whole = HEAD + BODY
    async with peer(sends(whole[:cut], whole[cut:])) as (server, source):
        assert await poured(source) == BODY
        assert await poured(source) == BODY
        assert server.connections == 1


async def test_no_connection_of_the_probe_stays_open_beside_the_wires() -> None:
    async with peer(good) as (server, source):
        assert server.open_now == 1
        assert await poured(source) == BODY
        await asyncio.wait_for(server.parted.wait(), 5)
        assert server.open_now == 1


async def test_a_server_that_hangs_up_between_requests_is_no_trouble() -> None:
    async with peer(sends(HEAD + BODY, then="close")) as (server, source):
        for _ in range(4):
            assert await poured(source) == BODY
        assert len(server.heads) == 4


async def test_a_hang_up_that_crosses_the_next_request_is_no_trouble() -> None:
    async def hang_up_on_second(server: Peer, writer: asyncio.StreamWriter) -> None:
        if len(server.heads) == 2:
            writer.transport.abort()
        else:
            await good(server, writer)

    async with peer(hang_up_on_second) as (server, source):
        assert await poured(source) == BODY
        assert await poured(source) == BODY
        assert (server.connections, len(server.heads)) == (2, 3)


async def test_a_fresh_connection_that_is_cut_is_trouble() -> None:
    async with peer(sends(then="abort")) as (server, source):
        with pytest.raises(Interrupted) as caught:
            await poured(source)
        assert caught.value.crowded
        assert len(server.heads) == 1


async def test_the_server_may_say_that_it_closes() -> None:
    closing = HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with peer(sends(closing + BODY)) as (server, source):
        assert await poured(source) == BODY
        await asyncio.wait_for(server.ended.wait(), 5)
        assert await poured(source) == BODY
        assert server.connections == 2


@pytest.mark.parametrize("late", [True, False])
async def test_bytes_that_nobody_asked_for_are_no_answer(late: bool) -> None:
    evil = HEAD + bytes(END - START)
    parts = (HEAD + BODY, evil) if late else (HEAD + BODY + evil,)
    async with peer(sends(*parts)) as (server, source):
        assert await poured(source) == BODY
        await asyncio.wait_for(server.ended.wait(), 5)
        assert await poured(source) == BODY
        assert server.connections == 2


@pytest.mark.parametrize(
    ("parts", "then", "reason", "got"),
    [
        ((HEAD, BODY[:500]), "close", "the answer ended early", 500),
        ((HEAD, BODY[:500]), "stay", "no bytes in time", 500),
        ((HEAD + BODY[:500],), "close", "the answer ended early", 500),
        ((HEAD,), "stay", "no bytes in time", 0),
        ((b"HTTP/1.1 206 Partial",), "stay", "no answer in time", 0),
        ((b"HTTP/1.1 206 Partial",), "close", "connection lost", 0),
        ((b"SSH-2.0-OpenSSH\r\n",), "stay", "the answer is not HTTP", 0),
        ((b"HTTP/1.1 abc\r\n\r\n",), "stay", "the answer is not HTTP", 0),
        ((HEAD.replace(b"ETag", b"E Tag\0"),), "stay", "the answer is not HTTP", 0),
        ((HEAD.replace(b"Content-Length: 200000", b"Content-Length: 200000\r\nContent-Length: 5"),), "stay", "not HTTP", 0),
        ((b"HTTP/1.1 206 Partial\r\nX: " + b"x" * SCRATCH,), "stay", "the answer is not HTTP", 0),
    ],
)
async def test_what_goes_wrong_on_a_wire_is_told_in_the_same_words(
    parts: tuple[bytes, ...], then: str, reason: str, got: int
) -> None:
    basin = Basin()
    async with peer(sends(*parts, then=then)) as (server, source):
        with pytest.raises(Interrupted, match=reason):
            await source.pour(START, END, basin)
        assert basin.memory[: basin.got] == BODY[:got]
        await asyncio.wait_for(server.ended.wait(), 5)


async def test_a_head_that_drips_is_given_up() -> None:
    async def drips(_: Peer, writer: asyncio.StreamWriter) -> None:
        for byte in HEAD:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    loop = asyncio.get_running_loop()
    async with peer(drips) as (_, source):
        began = loop.time()
        with pytest.raises(Interrupted, match="no answer in time"):
            await poured(source)
        assert loop.time() - began < 3 * QUICK.answer


CHUNKED = HEAD.replace(f"Content-Length: {END - START}".encode(), b"Transfer-Encoding: chunked")


@pytest.mark.parametrize(
    "whole",
    [
        CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + HEAD + BODY,
        HEAD.replace(f"Content-Length: {END - START}".encode(), b"Connection: close") + BODY,
    ],
    ids=["chunked", "early-hints", "until-closed"],
)
async def test_what_is_unusual_is_left_to_aiohttp(whole: bytes) -> None:
    async with peer(sends(whole, then="close")) as (server, source):
        assert await poured(source) == BODY
        assert len(server.heads) == 2
        assert await poured(source) == BODY
        assert len(server.heads) == 3, "and is not tried again"


async def test_a_basin_that_refuses_ends_the_attempt_and_the_wire() -> None:
    class Picky(Basin):
        def filled(self, at: int, count: int) -> None:
            super().filled(at, count)
            if self.got > 100_000:
                raise Failure("source-changed", "other bytes")

    async with peer(sends(HEAD, BODY[:90_000], BODY[90_000:])) as (server, source):
        with pytest.raises(Failure) as caught:
            await source.pour(START, END, Picky())
        assert caught.value.code == "source-changed"
        await asyncio.wait_for(server.ended.wait(), 5)


async def test_after_a_cancelled_pour_nothing_more_is_put_into_the_basin() -> None:
    more, halfway = asyncio.Event(), asyncio.Event()

    async def slow(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + BODY[:500])
        await writer.drain()
        await more.wait()
        writer.write(BODY[500:])

    class Told(Basin):
        def filled(self, at: int, count: int) -> None:
            super().filled(at, count)
            if self.got == 500:
                halfway.set()

    basin = Told()
    async with peer(slow) as (server, source):
        pouring = asyncio.create_task(source.pour(START, END, basin))
        await asyncio.wait_for(halfway.wait(), 5)
        pouring.cancel()
        more.set()
        with pytest.raises(asyncio.CancelledError):
            await pouring
        await asyncio.wait_for(server.ended.wait(), 5)
        assert basin.got == 500


async def test_every_address_of_a_wire_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    async with peer(good) as (server, source):
        source._client.origin_kind = Kind.PUBLIC  # as if the first origin were a public server
        with pytest.raises(Failure) as caught:
            await poured(source)
        assert caught.value.code == "address-refused"
        assert caught.value.evidence["address"] == "127.0.0.1"
        assert not server.heads


async def test_nobody_listening_any_more_is_told() -> None:
    async with peer(good) as (_, source):
        source._trail = ("http://127.0.0.1:1/disk.img",)
        with pytest.raises(Interrupted, match="connection refused"):
            await poured(source)
        source._trail = ("http://no-such-host.invalid/disk.img",)
        with pytest.raises(Interrupted, match="name not resolved"):
            await poured(source)


async def test_a_fast_connection_that_turns_slow_is_heard_byte_by_byte() -> None:
    """A fast one wakes for 256 KiB; what a slow one sends afterwards must not wait in the kernel for as much."""
    length, slow = 24 << 20, 1000
    told = f'Content-Range: bytes 0-{length - 1}/{length}\r\nContent-Length: {length}\r\nETag: "v1"\r\n\r\n'
    heard = asyncio.Event()
    first = bytes(length - (1 << 20) - slow)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 206 Partial Content\r\n" + told.encode() + first)
        await writer.drain()
        writer.write(bytes(slow))
        await heard.wait()
        writer.write(bytes(1 << 20))
        await writer.drain()
        writer.close()

    class Listening(Basin):
        def filled(self, at: int, count: int) -> None:
            super().filled(at, count)
            if self.got == len(first) + slow:
                heard.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(20):
        loop = asyncio.get_running_loop()
        port = server.sockets[0].getsockname()[1]
        _, wire = await loop.create_connection(lambda: Wire(10), "127.0.0.1", port)
        basin = Listening(0, length)
        await wire.ask(b"GET / HTTP/1.1\r\n\r\n")
        await wire.pour(0, length, basin)
        wire.close()
    assert basin.got == length
