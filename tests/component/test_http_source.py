"""HttpSource against servers good and bad: what the probe finds out, and what is refused."""

import asyncio

import pytest
from http_objects import (
    DATA,
    EITHER_WAY,
    OPEN,
    Bring,
    Request,
    collect,
    failing,
    good,
    opened,
    part,
    plain,
    reset,
    send,
    serving,
)

from importer.api.failure import Failure
from importer.api.request import Access
from importer.api.version import VERSION
from importer.sources.client import HttpPolicy
from importer.sources.protocol import Interrupted
from importer.sources.schemes import open_source

pytestmark = pytest.mark.usefixtures("no_proxy")


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
