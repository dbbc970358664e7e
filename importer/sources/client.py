"""One HTTP client for one source: its session, its redirects, its proxies; every error in our own words."""

import asyncio
import random
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

from importer.api.failure import Failure
from importer.api.request import Access
from importer.api.version import VERSION
from importer.sources import allowance, faults
from importer.sources.addresses import Kind, judge, literal, networks
from importer.sources.answers import REDIRECTS, Answer, Broken
from importer.sources.dial import CURRENT, Guard, Hop
from importer.sources.origin import keeps_secrets, next_hop, origin, redact, secrets_in
from importer.sources.proxies import Proxy, proxy_for
from machinery.service import tls

READ_BUFFER = 1 << 20
# What this client says itself: another value would turn its bookkeeping into a lie.
_OURS = {"accept-encoding", "connection", "content-length", "if-match", "if-range", "range", "te", "transfer-encoding"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPolicy:
    """How patient a client is. Seconds, save the counts."""

    sock_connect: float = 30.0
    sock_read: float = 30.0
    """Longest silence on an open connection."""
    answer: float = 90.0
    """Longest wait for an answer's headers, everything included: a server that drips them ends here."""
    head: float = 20.0
    """When a slow head is enough, if its least part has come."""
    head_limit: float = 120.0
    """When even the least part of the head is late."""
    probe_limit: float = 180.0
    """Longest time for all tries of a probe together."""
    probe_tries: int = 4
    backoff: float = 0.5
    longest_wait: float = 30.0
    """A Retry-After beyond this ends the probe."""

    def pause(self, attempt: int, retry_after: float | None) -> float:
        """Return how long to wait after failed attempt number `attempt` (from 1)."""
        jittered = self.backoff * 2.0 ** (attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311 # spreads load, guards nothing
        return max(retry_after or 0.0, min(jittered, self.longest_wait))


class Client:
    """Asks for URLs. Secrets of `access` go to the first origin only; every connected address is judged."""

    def __init__(self, access: Access, policy: HttpPolicy) -> None:
        """Prepare a session; needs a running loop. Raises Failure for settings that cannot be used."""
        self.policy = policy
        self.origin_kind: Kind | None = None
        """What the first origin's address was, once it is known."""
        self.proxied: set[str] = set()
        """Hosts that were asked through a proxy."""
        self.quickest: float | None = None
        """Fewest seconds from a request to the head of its answer."""
        self._access = access
        self._proxies: dict[str, Proxy | None] = {}
        self._tls: ssl.SSLContext | None = None
        if access.ca_file:
            self._context()  # a file that cannot be used is told even if it is not needed
        self._headers = _checked_headers(access)
        self._ours = {"User-Agent": f"slipstream/{VERSION}", "Accept-Encoding": "identity"}
        try:
            self.guard = Guard(networks(access.allow_addresses))
        except ValueError as error:
            raise Failure("usage", f"--allow-address: {error}") from None
        self._session = self._opened()

    def _opened(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            # One more than the pipeline uses, for finding the object again while the others are busy.
            limit=self._access.connections + 1,
            keepalive_timeout=60,
            socket_factory=self.guard.socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.policy.sock_connect, sock_read=self.policy.sock_read),
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            trust_env=False,
            max_line_size=32 << 10,
            max_field_size=32 << 10,
        )

    async def let_go(self) -> None:
        """Hang up every connection, to be called while no answer is read; what is asked for afterwards opens new ones."""
        before, self._session = self._session, self._opened()
        await before.close()

    async def follow(self, url: str, headers: Mapping[str, str]) -> tuple[aiohttp.ClientResponse, tuple[str, ...]]:
        """Ask for `url` and where it redirects to. Returns the first answer that is no redirect, and the trail of URLs."""
        trail: tuple[str, ...] = (url,)
        while True:
            response = await self.ask(trail, headers)
            if response.status not in REDIRECTS:
                return response, trail
            response.close()
            trail = (*trail, next_hop(trail, response.headers.get("Location")))

    async def ask(self, trail: tuple[str, ...], headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Ask for the last URL of a trail. Raises Failure or Broken; the caller closes the response."""
        allowance.ask()
        url = trail[-1]
        proxy = self.proxy(url)
        hop = Hop(came_from=self.origin_kind, proxied=proxy is not None)
        if proxy is not None:
            self._judge_unseen(url, hop)
        token = CURRENT.set(hop)
        try:
            began = time.monotonic()
            async with asyncio.timeout(self.policy.answer):
                response = await self._get(url, self.headers(trail, headers), proxy)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise await self._translated(error, url, hop) from error
        finally:
            CURRENT.reset(token)
        took = time.monotonic() - began
        self.quickest = took if self.quickest is None else min(took, self.quickest)
        if self.origin_kind is None:
            # Behind a proxy nobody knows: then the strictest, a public server, is assumed.
            self.origin_kind = hop.kind() or Kind.PUBLIC
        return response

    def headers(self, trail: tuple[str, ...], headers: Mapping[str, str]) -> dict[str, str]:
        """Return what a request for the last URL of a trail says: the user's own headers only to the first origin."""
        secret = self._headers if keeps_secrets(trail) else {}
        replaced = {name.lower() for name in secret}
        ours = {name: value for name, value in self._ours.items() if name.lower() not in replaced}
        return {**ours, **secret, **headers}

    def proxy(self, url: str) -> Proxy | None:
        """Return the proxy for a URL; asked for every range, so the environment is read once an origin."""
        place = "{}://{}:{}".format(*origin(url))
        if place not in self._proxies:
            self._proxies[place] = proxy_for(url, self._access.proxy)
        return self._proxies[place]

    def _context(self) -> ssl.SSLContext:
        """Return the TLS context, made when the first https URL is asked for: reading the authorities takes 20 ms."""
        if self._tls is None:
            self._tls = _context(self._access)
        return self._tls

    async def _get(self, url: str, headers: Mapping[str, str], proxy: Proxy | None) -> aiohttp.ClientResponse:
        tunnel: dict[str, str] = {}
        if proxy is not None and proxy.authorization:
            # In a tunnel the credentials belong to CONNECT; the far server must not see them.
            if url.startswith("https:"):
                tunnel["Proxy-Authorization"] = proxy.authorization
            else:
                headers = {**headers, "Proxy-Authorization": proxy.authorization}
        return await self._session.get(
            URL(url, encoded=True),  # as spelled: re-quoting breaks signed URLs
            headers=headers,
            proxy=proxy.url if proxy is not None else None,
            proxy_headers=tunnel or None,
            allow_redirects=False,
            ssl=self._context() if url.startswith("https:") or (proxy and proxy.url.startswith("https:")) else True,
        )

    def _judge_unseen(self, url: str, hop: Hop) -> None:
        """Judge what a URL itself tells of an address that a proxy will connect to."""
        host = origin(url).host
        self.proxied.add(host)
        local = host == "localhost" or host.endswith(".localhost")
        hop.named = address = literal("127.0.0.1" if local else host)
        reason = judge(address, came_from=hop.came_from, allowed=self.guard.allowed) if address is not None else None
        if reason is not None:
            raise Failure("address-refused", reason, address=address, url=redact(url))

    async def _translated(self, error: Exception, url: str, hop: Hop) -> Failure | Broken:
        found = faults.of_request(error, url, hop, self._access.ca_file)
        if isinstance(found, Failure) and isinstance(error, faults.CERTIFICATE_ERRORS) and not hop.proxied and hop.last:
            place = origin(url)
            told = await tls.peer_certificate(hop.last, place.port, place.host)
            found.evidence.update({f"certificate_{key}": value for key, value in told.items()})
        return found

    async def read(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the next bytes of a body, b"" at its end. Raises Broken."""
        try:
            data = await response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise faults.of_body(error, str(response.url)) from error
        allowance.took(len(data))
        return data

    def answer(self, response: aiohttp.ClientResponse) -> Answer:
        """Return a response as a value to judge."""
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(status=response.status, headers=headers, now=time.time(), url=redact(str(response.url)))

    def secrets(self, response: aiohttp.ClientResponse) -> tuple[str, ...]:
        """Return what must not be repeated though the server may echo it."""
        values = (part for value in self._headers.values() for part in (value, value.rpartition(" ")[2]))
        return (*(value for value in values if len(value) >= 4), *secrets_in(str(response.url)))

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()


def _checked_headers(access: Access) -> dict[str, str]:
    for name, value in access.headers:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise Failure("usage", "a header's name holds a character that no header may have")
        if name.lower() in _OURS:
            raise Failure("usage", f"the header {name} is Slipstream's own to set")
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
            raise Failure("usage", f"the value of the header {name} holds control characters")
    return dict(access.headers)


def _context(access: Access) -> ssl.SSLContext:
    try:
        return tls.client_context(access.ca_file, access.insecure)
    except OSError as error:
        problem = error.strerror or "it holds no certificate in PEM format"
        raise Failure("usage", "the file of --ca-file cannot be used", ca_file=access.ca_file, problem=problem) from None
