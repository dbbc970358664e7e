"""An object behind http or https: probed by one ranged GET, then read by ranges of one version of it.

Retries, watchdogs and the number of connections are the pipeline's business: each `fetch` is one attempt.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, TypeVar

import aiohttp

from importer.api.failure import Failure
from importer.api.request import Access
from importer.sources.answers import (
    REDIRECTS,
    STALE_ROUTE,
    Answer,
    Broken,
    opening,
    part_end,
    same_whole,
    version,
)  # fmt: skip
from importer.sources.client import Client, HttpPolicy
from importer.sources.direct import Direct, Unusual
from importer.sources.origin import normalise, object_name, origin, redact
from importer.sources.probe import LEAST_HEAD, Probed, probe
from importer.sources.protocol import Basin, Interrupted, RangesEnded, SourceFacts, fill

REFUSED = 3
"""After so many refusals of a range in a row nobody asks for one any more."""
LOOKS = 3
"""How often one attempt looks for the object again."""
_SHORT = "the server gave a shorter range than was asked for"


class _Answered(Protocol):
    """The head of an answer whose body is still to come, over aiohttp or a wire of ours."""

    @property
    def answer(self) -> Answer: ...

    def close(self) -> None: ...


R = TypeVar("R", bound=_Answered)
_Ask: TypeAlias = Callable[[tuple[str, ...], Mapping[str, str]], Awaitable[R]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    answer: Answer
    response: aiohttp.ClientResponse

    def close(self) -> None:
        self.response.close()


class HttpSource:
    """One version of one HTTP object. Never serves bytes of two versions: a change is Failure("source-changed")."""

    def __init__(self, client: Client, url: str, probed: Probed, facts: SourceFacts) -> None:
        """Take over a client and what its probe found; use `open` instead."""
        self._client = client
        self._direct = Direct(client)
        self._url = url
        self._version = probed.version
        self._trail = probed.trail
        self._head = probed.head
        self._facts = facts
        self._rest: Probed | None = probed if probed.rest is not None else None
        self._looking = asyncio.Lock()
        self._condition = probed.version.if_range()
        """What goes into If-Range, None if nothing can or the server stumbles over it."""
        self._refused = 0
        """How many unconditional ranges were answered with the whole object, one after the other."""
        self._ended = False
        """True once ranges were refused for good."""
        self._unproven = False
        """True once a range came of which nothing told the version."""
        self._fresh: Callable[[], Awaitable[str]] | None = None
        """Makes a new first URL, where URLs expire."""

    @classmethod
    async def open(
        cls, url: str, access: Access, policy: HttpPolicy | None = None, *, fresh: Callable[[], Awaitable[str]] | None = None
    ) -> "HttpSource":
        """Probe `url`; `fresh` makes another for the same object once it is refused. Raises Failure with the evidence."""
        try:
            plain = normalise(url)
        except ValueError as error:
            raise Failure("usage", f"the URL cannot be asked for: {error}", url=redact(url)) from None
        client = Client(access, policy or HttpPolicy())
        try:
            probed = await probe(client, plain)
            source = cls(client, plain, probed, _facts(client, plain, probed, access))
            source._fresh = fresh
            await source._in_time(source._lengthen_head())
        except BaseException:
            await client.close()
            raise
        return source

    @property
    def facts(self) -> SourceFacts:
        """What the probe's answer told."""
        return replace(self._facts, latency=self._client.quickest)

    @property
    def head(self) -> bytes:
        """The first MiB or all of a smaller object; less from a slow server, but never less than 64 KiB of it."""
        return self._head

    async def fetch(self, start: int, end: int | None) -> AsyncIterator[bytes]:
        """Yield the bytes start..end in one attempt; see Source.fetch."""
        if not self._facts.ranges or (self._ended and start == 0 and end is None):
            if start or end not in (None, self._facts.length):
                raise Failure("internal", "a range was asked of a source that has none", start=start, end=end)
            pieces = self._whole()
        else:
            stop = self._length() if end is None else end
            self._check(start, stop)
            pieces = self._part(start, stop)
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece
        except RangesEnded as ended:
            raise ended.failure() from None

    async def pour(self, start: int, end: int, basin: Basin) -> None:
        """Bring the bytes start..end into a basin in one attempt; see Source.pour."""
        self._check(start, end)
        if start < end and self._direct.takes(self._trail[-1]):
            with suppress(Unusual):
                await self._pour_directly(start, end, basin)
                return
        at = start
        async with aclosing(self._part(start, end)) as pieces:
            async for piece in pieces:
                fill(basin, at, piece)
                at += len(piece)

    def _check(self, start: int, end: int) -> None:
        if not 0 <= start <= end <= self._length():
            raise Failure("internal", "a range outside the object was asked for", start=start, end=end)

    def _length(self) -> int:
        assert self._version.length is not None  # a source with ranges has told its length
        return self._version.length

    async def _part(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        if start == stop:
            return
        reply, last = await self._ask_part(start, stop, self._ask)
        response = reply.response
        got = 0
        try:
            while piece := await self._client.read(response):
                got += len(piece)
                if got > last - start:
                    raise Failure("protocol", "the server sent more bytes than were asked for", url=self._facts.url)
                yield piece
        finally:
            response.close()  # a connection at the end of its body has gone back to the pool already
        if got < last - start:
            raise Interrupted("the answer ended early")
        if last < stop:
            raise Interrupted(_SHORT)

    async def _pour_directly(self, start: int, stop: int, basin: Basin) -> None:
        """Receive a range over a wire of our own. Raises Unusual, before the first byte, for what aiohttp should ask for."""
        reply, last = await self._ask_part(start, stop, self._direct.ask)
        await self._direct.pour(reply, start, last, basin)
        if last < stop:
            raise Interrupted(_SHORT)

    async def _ask(self, trail: tuple[str, ...], headers: Mapping[str, str]) -> "_Reply":
        response = await self._client.ask(trail, headers)
        return _Reply(response=response, answer=self._client.answer(response))

    async def _ask_part(self, start: int, stop: int, ask: "_Ask[R]") -> tuple[R, int]:
        """Ask for a range; return the answer and where its body ends."""
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if self._condition is not None:
            headers["If-Range"] = self._condition
        trail = self._trail
        reply = await ask(trail, headers)
        for _ in range(LOOKS):  # a URL may be good for a few requests only, and the others take them
            if not self._is_stale(reply.answer.status, trail):
                break
            reply.close()
            await self._look_again(trail)
            trail = self._trail
            reply = await ask(trail, headers)
        try:
            return reply, self._judged(reply.answer, start, stop, "If-Range" in headers)
        except BaseException:
            reply.close()
            raise

    def _judged(self, answer: Answer, start: int, stop: int, conditional: bool) -> int:
        if answer.status == 200:
            # Some servers answer every If-Range with the whole; from now on each range must show its validator instead.
            self._condition = None
            self._refused += not conditional
        try:
            last = part_end(answer, start=start, end=stop, known=self._version)
        except Interrupted as refused:
            if answer.status == 200 and self._refused >= REFUSED:
                self._ended = True
                raise RangesEnded(refused.reason) from None
            raise
        self._refused = 0
        if not conditional and not self._version.proves(version(answer, self._version.length)):
            if self._version.if_range() is not None:
                raise Failure("protocol", "a range came without telling of which version it is", url=answer.url)
            self._unproven = True
        return last

    def _is_stale(self, status: int, trail: tuple[str, ...]) -> bool:
        if self._fresh is not None and status == 400:  # S3 says so of an expired token
            return True
        return status in STALE_ROUTE and (self._fresh is not None or len(trail) > 1 or status in REDIRECTS)

    async def renew(self) -> None:
        """Find the same version by a fresh first URL, before the one in use expires. Raises Failure or Interrupted."""
        await self._look_again(self._trail)

    async def _first_url(self) -> str:
        if self._fresh is not None:
            self._url = await self._fresh()
        return self._url

    async def _look_again(self, stale: tuple[str, ...]) -> None:
        """Find the object from its first URL: a signed URL expired or a mirror moved. Only the very same version will do."""
        async with self._looking:
            if self._trail is not stale:
                return  # another fetch found it meanwhile
            response, trail = await self._client.follow(await self._first_url(), {"Range": "bytes=0-0"})
            try:
                answer = self._client.answer(response)
                found = opening(answer, asked=1)
                now = version(answer, found.length)
            finally:
                response.close()
            if not found.ranges:
                raise Interrupted("ranges are no longer served")
            if not self._version.proves(now):
                raise Failure(
                    "source-changed",
                    "the first URL now leads elsewhere, and nothing proves it to be the same object",
                    url=self._facts.url,
                    now_at=redact(trail[-1]),
                    before=self._version.validators(),
                    now=now.validators(),
                )
            self._trail = trail

    async def _whole(self) -> AsyncGenerator[bytes, None]:
        """Read the object from its first byte, on the probe's own answer the first time."""
        kept, self._rest = self._rest, None
        if kept is not None:
            assert kept.rest is not None
            response, early = kept.rest, [kept.head, kept.surplus]
        elif self._version.length is not None and len(self._head) == self._version.length:
            if self._head:
                yield self._head
            return
        else:
            response, early = await self._ask_whole(), []
        got = 0
        try:
            for piece in early:
                got += len(piece)
                if piece:
                    yield piece
            connection = response.connection
            protocol = connection.protocol if connection is not None else None
            while piece := await self._client.read(response):
                if kept is None:
                    self._compare(got, piece)
                got += len(piece)
                yield piece
            # Without a length only the end of the connection ends the body, and a reset is no such end.
            if protocol is not None and isinstance(protocol.exception(), ConnectionResetError | aiohttp.ClientOSError):
                raise Interrupted("connection lost")
        finally:
            response.close()
        if self._version.length is not None and got != self._version.length:
            raise Interrupted("the answer ended early")

    async def _ask_whole(self) -> aiohttp.ClientResponse:
        response, trail = await self._client.follow(await self._first_url(), {})
        try:
            same_whole(self._client.answer(response), self._version)
        except BaseException:
            response.close()
            raise
        self._trail = trail
        return response

    async def _lengthen_head(self) -> None:
        """Ask for more where a server gave less than the least head, as some cap the size of a range."""
        length, tries = self._version.length, self._client.policy.probe_tries
        while self._facts.ranges and length is not None and len(self._head) < min(LEAST_HEAD, length):
            before = len(self._head)
            try:
                async for piece in self.fetch(before, min(LEAST_HEAD, length)):
                    self._head += piece
            except Interrupted as error:
                tries -= len(self._head) == before
                if tries <= 0:
                    raise _lasting(error, self._facts.url) from error
                await asyncio.sleep(0 if len(self._head) > before else self._client.policy.pause(1, error.retry_after))

    async def _in_time(self, work: Coroutine[Any, Any, None]) -> None:
        """Bound what no watchdog of the pipeline sees: a server that drips would hold it for ever."""
        try:
            async with asyncio.timeout(self._client.policy.head_limit):
                await work
        except TimeoutError:
            raise Failure("stalled", "the server sends its first bytes too slowly", url=self._facts.url) from None

    async def settle(self) -> None:
        """Compare the head once more where a range told no validator; else every answer was checked already."""
        if self._unproven and not self._ended and self._head:
            await self._in_time(self._compare_head())

    async def _compare_head(self) -> None:
        attempt = 0
        while True:
            attempt += 1
            try:
                place = 0
                async with aclosing(self._part(0, len(self._head))) as pieces:
                    async for piece in pieces:
                        self._compare(place, piece)
                        place += len(piece)
                return
            except Interrupted as error:
                if attempt >= self._client.policy.probe_tries:
                    raise _lasting(error, self._facts.url) from error
                await asyncio.sleep(self._client.policy.pause(attempt, error.retry_after))

    def _compare(self, place: int, piece: bytes) -> None:
        """Compare bytes that came again with those of the head."""
        before = self._head[place : place + len(piece)]
        if piece[: len(before)] != before:
            raise Failure("source-changed", "the object's first bytes changed while it was read", url=self._facts.url)

    async def close(self) -> None:
        """Close every connection; more than once does no harm."""
        if self._rest is not None and self._rest.rest is not None:
            self._rest.rest.close()
            self._rest = None
        await self._direct.close()
        await self._client.close()


def _lasting(error: Interrupted, url: str) -> Failure:
    return error.failure if isinstance(error, Broken) else Failure("protocol", error.reason, url=url)


def _facts(client: Client, url: str, probed: Probed, access: Access) -> SourceFacts:
    notes = []
    if len(probed.trail) > 1:
        notes.append(f"served by {redact(probed.trail[-1])} after {len(probed.trail) - 1} redirect(s)")
    hosts = sorted(origin(one).host for one in probed.trail if origin(one).host in client.proxied)
    notes.extend(f"the address of {host} was not checked: it was asked through a proxy" for host in dict.fromkeys(hosts))
    if access.insecure and any(one.startswith("https:") for one in probed.trail):
        notes.append("the server's certificate was not verified (--insecure)")
    if probed.why_sequential:
        notes.append(f"read over one connection: {probed.why_sequential}")
    if not probed.version.validators():
        notes.append("the server gives neither ETag nor Last-Modified: a change of the object may go unnoticed")
    return SourceFacts(
        url=redact(url),
        name=object_name(url),
        length=probed.version.length,
        ranges=probed.ranges,
        validators=probed.version.validators(),
        content_type=probed.content_type[:200],
        notes=tuple(notes),
    )
