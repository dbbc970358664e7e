"""HttpSource against servers that change, lie or break off once ranges are asked for."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest
from http_objects import (
    ASKED,
    BODY,
    DATA,
    EITHER_WAY,
    Bring,
    Reply,
    Request,
    collect,
    failing,
    good,
    opened,
    part,
    pour,
    reset,
    send,
    serving,
)

from importer.api.failure import Failure
from importer.sources.client import HttpPolicy
from importer.sources.http import REFUSED
from importer.sources.protocol import Interrupted, RangesEnded

pytestmark = pytest.mark.usefixtures("no_proxy")


def second(lie: Callable[[Request, asyncio.StreamWriter], None]) -> Reply:
    """A server that is good for the probe and lies afterwards."""

    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.span is not None and request.span[0] == 0:
            part(writer, request, ETag='"v1"', Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")
        else:
            lie(request, writer)

    return reply


RANGE = f"bytes {ASKED[0]}-{ASKED[1] - 1}/{len(DATA)}"


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
