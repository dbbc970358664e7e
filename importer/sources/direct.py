"""Ranges asked for over wires of our own: plain http:// without a proxy. Everything else is aiohttp's."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from importer.sources import faults, wire
from importer.sources.answers import Answer, content_length
from importer.sources.client import Client
from importer.sources.dial import Hop, connect
from importer.sources.origin import Origin, origin, redact
from importer.sources.protocol import Basin
from importer.sources.wire import Head, NotHttp, Wire


class Unusual(Exception):
    """An answer, or a URL, that is left to aiohttp: to be asked for again there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The head of an answer, and the wire on which its body follows."""

    answer: Answer
    url: str
    wire: Wire
    keeps: bool
    """The server will take another request on this wire."""

    def close(self) -> None:
        """Let the body go, and the wire with it."""
        self.wire.close()


class Direct:
    """Kept wires to the servers of one source."""

    def __init__(self, client: Client) -> None:
        """Ask with the headers, the guard and the patience of `client`."""
        self._client = client
        self._kept: dict[Origin, list[Wire]] = {}
        self._unusual: set[Origin] = set()
        self._begun = False

    def takes(self, url: str) -> bool:
        """Tell whether a URL can be asked for here."""
        return url.startswith("http:") and origin(url) not in self._unusual and self._client.proxy(url) is None

    async def ask(self, trail: tuple[str, ...], headers: Mapping[str, str]) -> Reply:
        """Ask for the last URL of a trail. Raises Failure, Broken or Unusual; the caller pours or closes the reply."""
        url = trail[-1]
        if not self.takes(url):
            raise Unusual
        if not self._begun:  # what looked at the object before would only stay open beside the wires
            self._begun = True
            await self._client.let_go()
        try:
            async with asyncio.timeout(self._client.policy.answer):
                found, head = await self._asked(url, _request(url, self._client.headers(trail, headers)))
        except (EOFError, OSError, NotHttp) as error:
            raise faults.of_wire(error, url) from error
        names = {name.lower(): value for name, value in head.headers.items()}
        answer = Answer(status=head.code, headers=names, now=time.time(), url=redact(url))
        if head.code < 200 or (head.code == 206 and content_length(answer) is None):
            found.close()
            self._unusual.add(origin(url))
            raise Unusual
        return Reply(answer=answer, url=url, wire=found, keeps=not head.should_close)

    async def pour(self, reply: Reply, start: int, end: int, basin: Basin) -> None:
        """Receive the reply's body, which is the bytes start..end. Raises Broken, and what the basin raises."""
        try:
            await reply.wire.pour(start, end, basin)
        except (EOFError, OSError) as error:
            raise faults.of_body(error, reply.url) from error
        if reply.keeps:
            self._kept.setdefault(origin(reply.url), []).append(reply.wire)
        else:
            reply.close()

    async def _asked(self, url: str, request: bytes) -> tuple[Wire, Head]:
        kept = self._kept.get(origin(url), [])
        while kept:
            found = kept.pop()
            try:
                return found, await found.ask(request)
            except TimeoutError:
                raise
            except (EOFError, OSError):
                if found.answered:
                    raise
                # The server hung up between two requests, which it may: no trouble of this attempt.
        found = await self._dialled(url)
        return found, await found.ask(request)

    async def _dialled(self, url: str) -> Wire:
        loop, place, policy = asyncio.get_running_loop(), origin(url), self._client.policy
        hop = Hop(came_from=self._client.origin_kind)
        try:
            async with asyncio.timeout(policy.sock_connect):
                sock = await connect(self._client.guard, hop, place.host, place.port)
        except OSError as error:
            raise faults.of_dial(error, url, hop) from error
        return (await loop.create_connection(lambda: Wire(policy.sock_read), sock=sock))[1]

    async def close(self) -> None:
        """Hang up every kept wire."""
        for wires in self._kept.values():
            for one in wires:
                one.close()
        self._kept.clear()
        await asyncio.sleep(0)  # they close on the loop's next turn


def _request(url: str, headers: Mapping[str, str]) -> bytes:
    parts = urlsplit(url)
    named = {"host": ("Host", parts.netloc), "accept": ("Accept", "*/*")}
    named.update((name.lower(), (name, value)) for name, value in headers.items())
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return wire.request(target, dict(named.values()))
