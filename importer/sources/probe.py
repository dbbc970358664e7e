"""The first look at an HTTP object: one ranged GET that tells length, ranges and validators and brings the head."""

import asyncio
import contextlib
import time
from dataclasses import dataclass

import aiohttp

from importer.api.failure import Failure
from importer.sources.answers import Broken, Opening, Version, opening, printable, refusal, version
from importer.sources.client import Client
from importer.sources.origin import redact

HEAD = 1 << 20
LEAST_HEAD = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """An object as the first successful answer showed it."""

    trail: tuple[str, ...]
    """The URLs from the first to the one that answered."""
    version: Version
    ranges: bool
    head: bytes
    content_type: str
    rest: aiohttp.ClientResponse | None = None
    """The open answer of a server without ranges; its body goes on after `head` and `surplus`."""
    surplus: bytes = b""
    why_sequential: str = ""


async def probe(client: Client, url: str) -> Probed:
    """Probe a normalised URL, a few times if the server is merely busy. Raises Failure."""
    attempt, last = 0, Failure("stalled", "the server does not answer", url=redact(url))
    try:
        async with asyncio.timeout(client.policy.probe_limit):
            while True:
                attempt += 1
                try:
                    return await _once(client, url)
                except Broken as error:
                    last = error.failure
                    pause = client.policy.pause(attempt, error.retry_after)
                    if error.hopeless or attempt >= client.policy.probe_tries or pause > client.policy.longest_wait:
                        raise last from error
                    await asyncio.sleep(pause)
    except TimeoutError:
        raise last from None
    finally:
        last.evidence.setdefault("tries", str(attempt))


async def _once(client: Client, url: str) -> Probed:
    # A server may serve no ranges, yet answer a plain request: asked at once, it costs no retry.
    first = await _ask(client, url, HEAD, "")
    if isinstance(first, Probed):
        return first
    second = await _ask(client, url, None, first)
    if isinstance(second, Probed):
        return second
    raise Failure("protocol", second, url=redact(url))


async def _ask(client: Client, url: str, asked: int | None, why: str) -> Probed | str:
    """Probe once; a string says why to repeat it without a Range."""
    response, trail = await client.follow(url, {"Range": f"bytes=0-{asked - 1}"} if asked else {})
    keep = False
    try:
        answer = client.answer(response)
        found = await _judged(client, response, asked)
        if found.again:
            return found.again
        # The body of a 416 is an error page; the object behind it is empty.
        head, surplus, ended = (b"", b"", True) if answer.status == 416 else await _head(client, response, found)
        keep = not found.ranges and not ended
        length = len(head) if found.length is None and ended else found.length
        return Probed(
            trail=trail,
            version=version(answer, length),
            ranges=found.ranges,
            head=head,
            surplus=surplus,
            content_type=answer.header("content-type"),
            rest=response if keep else None,
            why_sequential="" if found.ranges else why or "the server serves no ranges",
        )
    finally:
        if not keep:
            response.close()


async def _judged(client: Client, response: aiohttp.ClientResponse, asked: int | None) -> Opening:
    answer = client.answer(response)
    try:
        return opening(answer, asked=asked)
    except Failure as failure:
        if failure.code != "http-status":
            raise
    except Broken as broken:
        if broken.failure.code != "http-status":
            raise
    raise refusal(answer, await _excerpt(client, response))


async def _excerpt(client: Client, response: aiohttp.ClientResponse) -> str:
    """Return the first printable text of an error page, for a person to read."""
    data = b""
    with contextlib.suppress(Broken, TimeoutError):
        async with asyncio.timeout(min(5.0, client.policy.sock_read)):
            while len(data) < 4096 and (chunk := await client.read(response)):
                data += chunk[:4096]
    return printable(data, client.secrets(response))


async def _head(client: Client, response: aiohttp.ClientResponse, found: Opening) -> tuple[bytes, bytes, bool]:
    """Read the head. Returns it, bytes read beyond it, and whether the body has ended."""
    data = bytearray()
    began = time.monotonic()
    ended = False
    try:
        while len(data) < HEAD and not ended:
            enough = found.ranges and len(data) >= LEAST_HEAD
            left = (client.policy.head if enough else client.policy.head_limit) - (time.monotonic() - began)
            async with asyncio.timeout(left):
                chunk = await client.read(response)
            data += chunk
            ended = not chunk
    except (TimeoutError, Broken) as error:
        if not (found.ranges and len(data) >= LEAST_HEAD):
            if isinstance(error, Broken):
                raise
            failure = Failure(
                "stalled", "the server sends its first bytes too slowly", url=redact(str(response.url)), got=len(data)
            )
            raise Broken("no bytes in time", failure) from error
        return bytes(data), b"", True
    if found.size == len(data) and not ended:
        ended = not await client.read(response)
    _check_size(len(data), ended, found)
    return bytes(data[:HEAD]), bytes(data[HEAD:]), ended and len(data) <= HEAD


def _check_size(got: int, ended: bool, found: Opening) -> None:
    if found.size is None:
        return
    if ended and got < found.size:
        raise Broken("the answer ended early", Failure("protocol", "the server ends its answers early", got=got, size=found.size))
    if got > found.size or (got == found.size and not ended):
        raise Failure("protocol", "the server sends more bytes than it announced", got=got, size=found.size)
