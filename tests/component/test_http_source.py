"""HttpSource against servers of a few lines each, good and bad, on the loopback."""

import asyncio
import base64
import hashlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from importer.api.failure import Failure
from importer.api.request import Access
from importer.api.version import VERSION
from importer.sources.addresses import Kind
from importer.sources.client import HttpPolicy
from importer.sources.http import REFUSED, HttpSource
from importer.sources.protocol import Interrupted, RangesEnded
from importer.sources.schemes import open_source

DATA = hashlib.shake_128(b"disk").digest(3 << 20)
QUICK = HttpPolicy(sock_read=0.5, sock_connect=2, answer=2, head=0.3, head_limit=1, probe_tries=3, backoff=0.01, longest_wait=1)
OPEN = Access()


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


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


# -- probing and reading


async def test_one_ranged_get_tells_everything_and_its_connection_is_kept() -> None:
    async with serving(good) as server, opened(server.url) as source:
        assert source.facts.length == len(DATA)
        assert source.facts.ranges
        assert source.facts.name == "disk.img"
        assert source.facts.validators == {"etag": '"v1"'}
        assert source.head == DATA[: 1 << 20]
        assert await collect(source, 1 << 20, None) == DATA[1 << 20 :]
        assert await collect(source, 5, 5) == b""
        await source.settle()
        assert [request.headers["range"] for request in server.seen] == ["bytes=0-1048575", "bytes=1048576-3145727"]
        assert server.seen[0].headers["accept-encoding"] == "identity"
        assert server.seen[0].headers["user-agent"] == f"slipstream/{VERSION}"
        assert server.seen[1].headers["if-range"] == '"v1"'
        assert server.connections == 1


@EITHER_WAY
async def test_parallel_ranges_give_the_object(bring: Bring) -> None:
    async with serving(good) as server, opened(server.url) as source:
        step = 512 << 10
        parts = await asyncio.gather(*(bring(source, at, min(at + step, len(DATA))) for at in range(0, len(DATA), step)))
        assert b"".join(parts) == DATA


async def test_a_small_object_is_all_head() -> None:
    async def small(request: Request, writer: asyncio.StreamWriter) -> None:
        part(writer, request, b"tiny")

    async with serving(small) as server, opened(server.url) as source:
        assert (source.head, source.facts.length) == (b"tiny", 4)


async def test_an_empty_object_is_known_by_its_416() -> None:
    async def empty(request: Request, writer: asyncio.StreamWriter) -> None:
        send(writer, 416, Content_Range="bytes */0")

    async with serving(empty) as server, opened(server.url) as source:
        assert (source.head, source.facts.length) == (b"", 0)
        assert await collect(source, 0, None) == b""


async def test_without_ranges_the_probe_itself_is_read_on_and_then_asked_anew() -> None:
    async with serving(plain) as server, opened(server.url) as source:
        assert not source.facts.ranges
        assert source.head == DATA[: 1 << 20]
        assert await collect(source, 0, None) == DATA
        assert len(server.seen) == 1
        assert await collect(source, 0, None) == DATA
        assert len(server.seen) == 2


async def test_a_chunked_object_has_no_length_but_an_end() -> None:
    async def chunked(request: Request, writer: asyncio.StreamWriter) -> None:
        send(writer, 200, Transfer_Encoding="chunked")
        for at in range(0, len(DATA), 100_000):
            piece = DATA[at : at + 100_000]
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with serving(chunked) as server, opened(server.url) as source:
        assert source.facts.length is None
        assert await collect(source, 0, None) == DATA


async def test_a_chunked_object_cut_short_is_interrupted() -> None:
    async def cut(request: Request, writer: asyncio.StreamWriter) -> None:
        send(writer, 200, Transfer_Encoding="chunked")
        writer.write(f"{len(DATA):x}\r\n".encode() + DATA + b"\r\n")
        writer.close()

    async with serving(cut) as server, opened(server.url) as source:
        with pytest.raises(Interrupted):
            await collect(source, 0, None)


async def test_a_reset_is_no_end_of_an_object_without_length() -> None:
    async def torn(request: Request, writer: asyncio.StreamWriter) -> None:
        send(writer, 200, Content_Length="none", Connection="close")
        writer.write(DATA)
        await writer.drain()
        await asyncio.sleep(0.2)
        reset(writer)

    async def closed(request: Request, writer: asyncio.StreamWriter) -> None:
        send(writer, 200, Content_Length="none", Connection="close")
        writer.write(DATA)
        writer.close()

    async with serving(torn) as server, opened(server.url) as source:
        with pytest.raises(Interrupted):
            await collect(source, 0, None)
    async with serving(closed) as server, opened(server.url) as source:
        assert await collect(source, 0, None) == DATA


async def test_an_encoded_answer_is_asked_for_again_without_a_range() -> None:
    async def encoded(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.span:
            part(writer, request, Content_Encoding="gzip")
        else:
            send(writer, 200, DATA)

    async def always(request: Request, writer: asyncio.StreamWriter) -> None:
        part(writer, request, Content_Encoding="gzip")

    async with serving(encoded) as server, opened(server.url) as source:
        assert not source.facts.ranges
        assert await collect(source, 0, None) == DATA
        assert any("gzip" in note for note in source.facts.notes)
    async with serving(always) as server:
        assert (await failing(server.url)).code == "protocol"


async def test_a_server_that_caps_the_size_of_ranges_still_gives_a_head() -> None:
    async def capped(request: Request, writer: asyncio.StreamWriter) -> None:
        assert request.span
        start, end = request.span
        end = min(end, start + 10_000)
        send(writer, 206, DATA[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(DATA)}", ETag='"v1"')

    async with serving(capped) as server, opened(server.url) as source:
        assert source.head == DATA[: 64 << 10]
        with pytest.raises(Interrupted):
            await collect(source, 0, 20_000)


async def test_a_slow_head_is_enough_once_its_least_part_is_there() -> None:
    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        send(writer, 206, DATA[:100_000], Content_Range=f"bytes 0-1048575/{len(DATA)}", Content_Length="1048576")
        await asyncio.sleep(1)

    async with serving(slow) as server, opened(server.url) as source:
        assert source.head == DATA[:100_000]


# -- refusals


@pytest.mark.parametrize(
    ("status", "code", "requests"),
    [
        (204, "http-status", 1),
        (401, "denied", 1),
        (403, "denied", 1),
        (404, "not-found", 1),
        (407, "denied", 1),
        (410, "not-found", 1),
        (418, "http-status", 1),
        (429, "overloaded", 3),
        (500, "http-status", 3),
        (503, "overloaded", 3),
    ],
)
async def test_a_status_becomes_a_named_failure(status: int, code: str, requests: int) -> None:
    async def refuse(request: Request, writer: asyncio.StreamWriter) -> None:
        send(writer, status, b"" if status == 204 else b"no\x1b[31m such thing for s3cret-token, sorry")

    async with serving(refuse) as server:
        failure = await failing(server.url + "?sig=hush-hush", Access(headers=(("Authorization", "Bearer s3cret-token"),)))
        assert failure.code == code
        assert len(server.seen) == requests
        assert "s3cret" not in failure.render()
        assert "hush" not in failure.render()
        assert "\x1b" not in failure.render()


async def test_retry_after_is_honoured_and_a_long_one_ends_the_probe() -> None:
    loop = asyncio.get_running_loop()
    asked: list[float] = []

    async def busy_once(request: Request, writer: asyncio.StreamWriter) -> None:
        asked.append(loop.time())
        if len(asked) == 1:
            send(writer, 503, Retry_After="1")
        else:
            await good(request, writer)

    async def busy(request: Request, writer: asyncio.StreamWriter) -> None:
        send(writer, 429, Retry_After="3600")

    async with serving(busy_once) as server, opened(server.url):
        assert asked[1] - asked[0] >= 0.95
    async with serving(busy) as server:
        failure = await failing(server.url)
        assert (failure.code, len(server.seen)) == ("overloaded", 1)


async def test_nobody_listening_and_no_such_name_are_unreachable() -> None:
    async with serving(good) as server:
        pass
    failure = await failing(server.url)
    assert (failure.code, failure.evidence["port"]) == ("unreachable", str(server.port))
    failure = await failing("http://no-such-host.invalid/x")
    assert (failure.code, failure.evidence["host"]) == ("unreachable", "no-such-host.invalid")


async def test_silence_is_a_stall_and_rubbish_a_protocol_error() -> None:
    async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    async def rubbish(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    async def drip(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(100):
            writer.write(b"X: y\r\n")
            await asyncio.sleep(0.1)

    quick = HttpPolicy(sock_read=0.2, answer=0.5, probe_tries=2, backoff=0.01)
    async with serving(silent) as server:
        assert (await failing(server.url, policy=quick)).code == "stalled"
    async with serving(drip) as server:
        assert (await failing(server.url, policy=quick)).code == "stalled"
    async with serving(rubbish) as server:
        assert (await failing(server.url, policy=quick)).code == "protocol"


async def test_a_server_that_hangs_up_is_tried_again() -> None:
    async def hang_up(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with serving(hang_up) as server:
        assert (await failing(server.url)).code == "unreachable"
        assert len(server.seen) >= 3


# -- changes and lies on ranges


def second(lie: Callable[[Request, asyncio.StreamWriter], None]) -> Reply:
    """A server that is good for the probe and lies afterwards."""

    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.span is not None and request.span[0] == 0:
            part(writer, request, ETag='"v1"', Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")
        else:
            lie(request, writer)

    return reply


ASKED = (1 << 20, (1 << 20) + 1000)
RANGE = f"bytes {ASKED[0]}-{ASKED[1] - 1}/{len(DATA)}"
BODY = DATA[ASKED[0] : ASKED[1]]


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (lambda r, w: send(w, 206, BODY, Content_Range=RANGE, ETag='"v2"'), "source-changed"),
        (lambda r, w: send(w, 206, BODY, Content_Range=RANGE, Last_Modified="Tue, 02 Jan 2024 00:00:00 GMT"), "source-changed"),
        (lambda r, w: send(w, 206, BODY, Content_Range=RANGE.replace("/", "/1")), "source-changed"),
        (lambda r, w: send(w, 416, Content_Range="bytes */10"), "source-changed"),
        (lambda r, w: send(w, 200, DATA + b"x"), "source-changed"),
        (lambda r, w: send(w, 200, DATA, ETag='"v2"'), "source-changed"),
        (lambda r, w: send(w, 206, BODY), "protocol"),
        (lambda r, w: send(w, 206, BODY, Content_Range=RANGE.replace("bytes 1", "bytes 2")), "protocol"),
        (lambda r, w: send(w, 206, BODY, Content_Range=f"bytes 0-999/{len(DATA)}"), "protocol"),
        (lambda r, w: send(w, 206, BODY + b"x", Content_Range=RANGE), "protocol"),
        (lambda r, w: send(w, 206, BODY, Content_Range=RANGE, Content_Encoding="br"), "protocol"),
        (
            lambda r, w: send(
                w, 206, b"408\r\n" + BODY + bytes(32) + b"\r\n0\r\n\r\n", Content_Range=RANGE, Transfer_Encoding="chunked"
            ),
            "protocol",
        ),
        (lambda r, w: send(w, 404), "not-found"),
        (lambda r, w: send(w, 403), "denied"),
    ],
)
@EITHER_WAY
async def test_a_lie_about_a_range_is_a_named_failure(
    bring: Bring, lie: Callable[[Request, asyncio.StreamWriter], None], code: str
) -> None:
    async with serving(second(lie)) as server, opened(server.url) as source:
        with pytest.raises(Failure) as caught:
            await bring(source, *ASKED)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("lie", "crowded", "after", "good_bytes"),
    [
        (lambda r, w: send(w, 200, DATA, ETag='"v1"'), False, None, 0),
        (lambda r, w: send(w, 503, Retry_After="7"), True, 7.0, 0),
        (lambda r, w: send(w, 429), True, None, 0),
        (lambda r, w: send(w, 500), False, None, 0),
        (lambda r, w: reset(w), True, None, 0),
        (lambda r, w: (send(w, 206, BODY[:500], Content_Range=RANGE, Content_Length="1000"), w.close()), False, None, 500),
        (lambda r, w: send(w, 206, BODY[:500], Content_Range=RANGE, Content_Length="1000"), False, None, 500),  # stalls
        (lambda r, w: send(w, 206, BODY[:500], Content_Range=f"bytes {ASKED[0]}-{ASKED[0] + 499}/{len(DATA)}"), False, None, 500),
    ],
)
@EITHER_WAY
async def test_a_broken_range_is_interrupted_after_its_good_bytes(
    bring: Bring, lie: Callable[[Request, asyncio.StreamWriter], None], crowded: bool, after: float | None, good_bytes: int
) -> None:
    async with serving(second(lie)) as server, opened(server.url) as source:
        got = bytearray()
        with pytest.raises(Interrupted) as caught:
            await bring(source, *ASKED, into=got)
        assert (caught.value.crowded, caught.value.retry_after, got) == (crowded, after, BODY[:good_bytes])


@EITHER_WAY
async def test_a_weak_etag_never_goes_into_if_range(bring: Bring) -> None:
    async def weak(request: Request, writer: asyncio.StreamWriter) -> None:
        part(writer, request, ETag='W/"v1"', Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")

    async with serving(weak) as server, opened(server.url) as source:
        assert await bring(source, *ASKED) == BODY
        assert "if-range" not in server.seen[-1].headers
        assert source.facts.validators["etag"] == 'W/"v1"'


@EITHER_WAY
async def test_a_server_that_stumbles_over_if_range_is_read_without_it(bring: Bring) -> None:
    etag = {"ETag": '"v1"'}

    async def stumbling(request: Request, writer: asyncio.StreamWriter) -> None:
        if "if-range" in request.headers:
            send(writer, 200, DATA, ETag='"v1"')
        else:
            part(writer, request, **({"ETag": '"v1"'} if request.span == (0, 1 << 20) else etag))

    async with serving(stumbling) as server, opened(server.url) as source:
        with pytest.raises(Interrupted):
            await bring(source, *ASKED)
        assert await bring(source, *ASKED) == BODY
        etag.clear()
        with pytest.raises(Failure) as caught:
            await bring(source, *ASKED)
        assert caught.value.code == "protocol"


async def test_settling_notices_another_head_where_no_validator_tells() -> None:
    now = DATA

    async def changing(request: Request, writer: asyncio.StreamWriter) -> None:
        part(writer, request, now)

    async with serving(changing) as server, opened(server.url) as source:
        await collect(source, *ASKED)
        await source.settle()
        now = b"!" + DATA[1:]
        with pytest.raises(Failure) as caught:
            await source.settle()
        assert caught.value.code == "source-changed"


async def test_settling_compares_the_head_where_ranges_tell_no_version() -> None:
    now = DATA

    async def forgetful(request: Request, writer: asyncio.StreamWriter) -> None:
        first = request.span == (0, 1 << 20) and len(server.seen) == 1
        part(writer, request, now, **({"ETag": 'W/"weak"'} if first else {}))

    async with serving(forgetful) as server, opened(server.url) as source:
        assert await pour(source, *ASKED) == BODY
        await source.settle()
        now = b"!" + DATA[1:]
        with pytest.raises(Failure) as caught:
            await source.settle()
        assert caught.value.code == "source-changed"


@EITHER_WAY
async def test_a_server_that_stops_serving_ranges_is_told_as_such_and_can_be_read_as_a_whole(bring: Bring) -> None:
    now = DATA

    async def stopping(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(server.seen) <= 2:
            await good(request, writer)
        else:
            send(writer, 200, now, ETag='"v1"')

    async with serving(stopping) as server, opened(server.url) as source:
        assert await bring(source, *ASKED) == BODY
        for _ in range(REFUSED):
            with pytest.raises(Interrupted, match="no longer serves ranges"):
                await bring(source, *ASKED)
        with pytest.raises(RangesEnded if bring is pour else Failure, match=r"serv(es|ing) ranges"):
            await bring(source, *ASKED)
        assert await collect(source, 0, None) == DATA
        await source.settle()
        now = b"!" + DATA[1:]
        with pytest.raises(Failure) as caught:
            await collect(source, 0, None)
        assert caught.value.code == "source-changed"


async def test_all_tries_of_a_probe_together_are_bounded() -> None:
    async def drip(request: Request, writer: asyncio.StreamWriter) -> None:
        send(writer, 206, Content_Range=f"bytes 0-1048575/{len(DATA)}", Content_Length="1048576")
        for byte in DATA:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    loop = asyncio.get_running_loop()
    patient = HttpPolicy(head_limit=0.4, probe_limit=0.6, probe_tries=50, backoff=0.01)
    async with serving(drip) as server:
        began = loop.time()
        failure = await failing(server.url, policy=patient)
        assert (failure.code, failure.evidence["tries"]) == ("stalled", "2")
        assert loop.time() - began < 5


async def test_cancelling_a_fetch_closes_its_connection() -> None:
    halfway = asyncio.Event()

    async def endless(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.span == (0, 1 << 20):
            await good(request, writer)
            return
        send(writer, 206, BODY[:500], Content_Range=RANGE, Content_Length="1000", ETag='"v1"')
        await writer.drain()
        halfway.set()

    patient = HttpPolicy()
    async with serving(endless) as server, opened(server.url, policy=patient) as source:
        reading = asyncio.create_task(collect(source, *ASKED))
        await asyncio.wait_for(halfway.wait(), 5)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(server.ended.wait(), 5)
        server.ended.clear()
        async with aclosing(source.fetch(*ASKED)) as pieces:  # left early
            async for _ in pieces:
                break
        await asyncio.wait_for(server.ended.wait(), 5)


# -- redirects


def redirecting(location: Callable[[Request], str | None], then: Reply = good) -> Reply:
    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        target = location(request)
        if target is None:
            await then(request, writer)
        else:
            send(writer, 302, Location=target)

    return reply


@EITHER_WAY
async def test_ranges_go_to_where_the_probe_ended_and_secrets_stay_with_the_first_origin(bring: Bring) -> None:
    access = Access(headers=(("Authorization", "Bearer s3cret"), ("X-Custom", "1")))
    signed = redirecting(lambda r: mirror.url + "?sig=a%2Fb%3D")
    async with serving(good) as mirror, serving(signed) as first, opened(first.url, access) as source:
        assert await bring(source, *ASKED) == BODY
        assert len(first.seen) == 1
        assert first.seen[0].headers["authorization"] == "Bearer s3cret"
        assert [request.path for request in mirror.seen] == ["/images/disk.img?sig=a%2Fb%3D"] * 2
        assert not any("authorization" in request.headers or "x-custom" in request.headers for request in mirror.seen)
        assert source.facts.name == "disk.img"
        assert any("sig=***" in note for note in source.facts.notes)
    moved = redirecting(lambda r: "/moved" if r.path == "/images/disk.img" else None)
    async with serving(moved) as first, opened(first.url, access):
        assert all(request.headers["x-custom"] == "1" for request in first.seen)


@pytest.mark.parametrize(
    ("location", "code", "requests"),
    [
        (lambda r: r.path, "redirects", 1),
        (lambda r: "/b" if r.path == "/a" else "/a", "redirects", 3),
        (lambda r: r.path + "x", "redirects", 6),
        (lambda r: "file:///etc/passwd", "redirects", 1),
        (lambda r: "http://user:pw@127.0.0.1/", "redirects", 1),
        (lambda r: "http://169.254.169.254/latest/meta-data", "address-refused", 1),
        (lambda r: "http://[::ffff:169.254.169.254]/latest", "address-refused", 1),
        (lambda r: "http://2852039166/latest", "address-refused", 1),
        (lambda r: "http://0.0.0.0/", "address-refused", 1),
    ],
)
async def test_bad_redirects_are_refused(location: Callable[[Request], str], code: str, requests: int) -> None:
    async with serving(redirecting(location)) as server:
        failure = await failing(server.url)
        assert (failure.code, len(server.seen)) == (code, requests)
        assert "pw" not in failure.render().replace("passwd", "")


async def test_a_redirect_from_a_public_server_to_the_loopback_is_refused_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    # No public server is at hand: the guard is told that the loopback, which it connects to first, is one.
    from importer.sources import dial

    monkeypatch.setattr(dial, "classify", lambda address: Kind.PUBLIC)
    async with serving(good) as inside, serving(redirecting(lambda r: inside.url)) as outside:
        failure = await failing(outside.url)
        assert failure.code == "address-refused"
        assert failure.evidence["address"] == "127.0.0.1"
        assert not inside.seen
        async with opened(outside.url, Access(allow_addresses=("127.0.0.0/8",))) as source:
            assert source.facts.length == len(DATA)


@EITHER_WAY
async def test_an_expired_final_url_is_found_again_if_it_is_the_same_object(bring: Bring) -> None:
    turn = 1
    etag = '"v1"'

    async def signed(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == f"/signed?turn={turn}":
            part(writer, request, ETag=etag)
        else:
            send(writer, 403)

    reply = redirecting(lambda r: f"/signed?turn={turn}" if r.path == "/images/disk.img" else None, signed)
    async with serving(reply) as server, opened(server.url) as source:
        assert await bring(source, *ASKED) == BODY
        turn = 2
        results = await asyncio.gather(*(bring(source, *ASKED) for _ in range(3)))
        assert results == [BODY] * 3
        assert [request.path for request in server.seen].count("/images/disk.img") == 2
        turn, etag = 3, '"v2"'
        with pytest.raises(Failure) as caught:
            await bring(source, *ASKED)
        assert caught.value.code == "source-changed"


# -- proxies


async def test_a_proxy_is_used_and_its_unchecked_hop_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(good) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:hush%21@127.0.0.1:{proxy.port}")
        async with opened("http://images.example/disk.img") as source:
            assert proxy.seen[0].path == "http://images.example/disk.img"
            expected = base64.b64encode(b"me:hush!").decode()
            assert proxy.seen[0].headers["proxy-authorization"] == f"Basic {expected}"
            assert any("images.example was not checked" in note for note in source.facts.notes)
            assert "hush" not in repr(source.facts)
        assert (await failing("http://169.254.169.254/x")).code == "address-refused"
        async with opened("http://127.0.0.1:9/disk.img") as source:
            assert await collect(source, *ASKED) == BODY
            assert await pour(source, *ASKED) == BODY
            assert proxy.seen[-1].path == "http://127.0.0.1:9/disk.img"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with serving(good) as server, opened(server.url) as source:
            assert not any("proxy" in note for note in source.facts.notes)
    failure = await failing("http://images.example/", Access(proxy="http://me:hush@127.0.0.1:1"))
    assert failure.code == "secret-in-argv"
    assert "hush" not in failure.render()
    assert (await failing("http://images.example/", Access(proxy="socks5://127.0.0.1:1"))).code == "usage"
    failure = await failing("https://images.example/", Access(proxy=f"127.0.0.1:{proxy.port}"))
    assert (failure.code, failure.evidence["proxy"]) == ("unreachable", f"127.0.0.1:{proxy.port}")


# -- settings


@pytest.mark.parametrize(
    "access",
    [
        Access(headers=(("Range", "bytes=0-1"),)),
        Access(headers=(("X", "a\r\nHost: b"),)),
        Access(headers=(("X Y", "a"),)),
        Access(ca_file="/nonexistent.pem"),
        Access(allow_addresses=("nonsense",)),
    ],
)
async def test_settings_that_cannot_be_used_are_refused(access: Access) -> None:
    assert (await failing("http://127.0.0.1:1/", access)).code == "usage"


async def test_the_scheme_table_opens_http_and_refuses_secrets_and_strangers() -> None:
    async with serving(good) as server:
        source = await open_source(server.url, OPEN)
        assert source.facts.length == len(DATA)
        await source.close()
    for url, code in [("http://me:hush@host/x", "secret-in-argv"), ("ftp://host/key", "usage"), ("http:///x", "usage")]:
        with pytest.raises(Failure) as caught:
            await open_source(url, OPEN)
        assert caught.value.code == code
        assert "hush" not in caught.value.render()
