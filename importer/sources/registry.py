"""One repository of one registry: documents by digest or tag, and whatever log-in it asks for.

Credentials belong to one origin, scheme, host and port. They go to the token service that this origin itself names, and
nowhere else: to no redirect's target, to no other mirror, to no URL that a manifest holds.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import aiohttp

from importer.api.failure import Failure
from importer.api.request import Access
from importer.sources import manifest, registry_auth
from importer.sources.answers import REDIRECTS, Broken, printable, refusal
from importer.sources.client import Client, HttpPolicy
from importer.sources.manifest import Descriptor
from importer.sources.origin import keeps_secrets, next_hop, normalise, redact, secrets_in
from importer.sources.reference import Reference, server
from importer.sources.registry_auth import Challenge, Login

T = TypeVar("T")
_MOST_TOKEN_ANSWER = 1 << 20
_EXCERPT = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What there is to log in to one registry with."""

    login: Login | None = field(default=None, repr=False)
    helper: str | None = None
    """A program that would know more, but is not run."""


class Registry:
    """Asks one repository. Raises Failure for all that does not work; closed by its owner."""

    def __init__(self, base: str, reference: Reference, access: Access, known: Known, policy: HttpPolicy) -> None:
        """Ask at `base`, scheme://host[:port], with the headers of `access`, which name no Authorization."""
        self.base = base
        self.reference = reference
        self.policy = policy
        self._access = replace(access, connections=1)
        self._known = known
        self._client = Client(self._access, policy)
        self._offer: Challenge | None = None
        """What the registry asked for last."""
        self._authorization = f"Bearer {known.login.token}" if known.login is not None and known.login.token else ""
        self._renew_at = math.inf
        self._logging_in = asyncio.Lock()

    # -- what is there

    async def by_pointer(self) -> tuple[bytes, str, str]:
        """Return the document that the reference leads to, its digest, and its Content-Type (which proves nothing)."""
        pointer = self.reference.pointer
        data, content_type, told = await self._document(f"manifests/{pointer}", manifest.ACCEPT)
        digest = self.reference.digest or manifest.digest_of(data)
        manifest.verified(data, digest)
        if told.startswith("sha256:"):
            manifest.verified(data, told)
        return data, digest, content_type

    async def document(self, wanted: Descriptor) -> bytes:
        """Return a manifest or a configuration, verified."""
        if wanted.size > manifest.MOST_BYTES:
            raise Failure("unsafe", "a manifest is longer than the limit", bytes=wanted.size, limit=manifest.MOST_BYTES)
        nested = wanted.media_type in (*manifest.INDEX_TYPES, *manifest.MANIFEST_TYPES)
        path = f"{'manifests' if nested else 'blobs'}/{wanted.digest}"
        data, _, _ = await self._document(path, manifest.ACCEPT if nested else "*/*")
        return manifest.verified(data, wanted.digest, wanted.size)

    def blob_url(self, digest: str) -> str:
        """Return where a blob is, whatever URLs a manifest may name."""
        return self._url(f"blobs/{digest}")

    def _url(self, path: str) -> str:
        return f"{self.base}/v2/{self.reference.repository}/{path}"

    # -- who may read it

    @property
    def due(self) -> bool:
        """True once the token should be replaced, well before it expires."""
        return time.monotonic() >= self._renew_at

    def access(self) -> Access:
        """Return what a source needs to read blobs: our headers, and the present Authorization."""
        given = (("Authorization", self._authorization),) if self._authorization else ()
        return replace(self._access, headers=(*self._access.headers, *given))

    async def renew(self, refused: Access, url: str) -> None:
        """Log in anew after `url` was denied with what `access()` had returned, or before it expires. Raises Failure."""
        async with self._logging_in:
            if refused.headers != self.access().headers:
                return  # another did meanwhile
            if self._offer is not None:
                self._authorization = await self._proof(self._offer)
            else:
                await self._patiently(lambda: self._looked_for_offer(url))

    async def _looked_for_offer(self, url: str) -> None:
        response, trail = await self._follow(url, {"Range": "bytes=0-0"})
        try:
            if response.status == 401 and keeps_secrets(trail):
                await self._log_in(response)
        finally:
            response.close()

    async def _log_in(self, response: aiohttp.ClientResponse) -> None:
        offer = registry_auth.best(registry_auth.challenges(response.headers.getall("WWW-Authenticate", [])))
        if offer is None:
            raise self._denied("the registry denies access and offers no way to log in that is known here")
        self._offer = offer
        self._authorization = await self._proof(offer)

    async def _proof(self, offer: Challenge) -> str:
        """Return the value of Authorization that answers an offer."""
        login = self._known.login
        if login is not None and login.token:
            raise self._denied("the registry refuses the token")
        if offer.scheme == "basic":
            if login is None:
                raise self._denied("the registry asks for user name and password")
            if login.basic == self._authorization:
                raise self._denied("the registry refuses user name or password")
            return login.basic
        url = registry_auth.token_url(offer, self.reference.repository, self.base + "/", login=login is not None)
        token = registry_auth.token(await self._patiently(lambda: self._from_token_service(url, login)))
        self._renew_at = time.monotonic() + token.life * 2 / 3
        return f"Bearer {token.text}"

    async def _from_token_service(self, url: str, login: Login | None) -> bytes:
        given = (("Authorization", login.basic),) if login is not None else ()
        client = Client(replace(self._access, headers=given), self.policy)
        client.origin_kind = self._client.origin_kind  # a public registry may not send us to an address inside
        try:
            response, trail = await client.follow(url, {"Accept": "application/json"})
            try:
                if response.status in (401, 403) and keeps_secrets(trail):
                    raise self._denied("the registry's token service denies access", realm=redact(url))
                if response.status != 200:
                    raise refusal(client.answer(response), await self._excerpt(client, response))
                return await _body(client, response, _MOST_TOKEN_ANSWER)
            finally:
                response.close()
        finally:
            await client.close()

    def _denied(self, cause: str, **evidence: str) -> Failure:
        user = {"user": self._known.login.user} if self._known.login is not None and self._known.login.user else {}
        evidence = {"image": self.reference.shown, "registry": self.base} | user | evidence
        if self._known.login is None and self._known.helper is not None:
            hint = f"{self._known.helper} is not run: write its credentials to a file and give that with --auth-file"
            return Failure("credentials", f"{cause}, and its credentials are kept by a helper program", hint=hint, **evidence)
        hint = (
            registry_auth.LOG_IN if self._known.login is None else "check the credentials, and whether they may pull this image"
        )
        return Failure("denied", cause, hint=hint, **evidence)

    # -- asking

    async def _document(self, path: str, accept: str) -> tuple[bytes, str, str]:
        """Return a body, its Content-Type, and the digest that the registry tells of it."""
        return await self._patiently(lambda: self._asked(self._url(path), {"Accept": accept}))

    async def _asked(self, url: str, headers: dict[str, str]) -> tuple[bytes, str, str]:
        response, trail = await self._follow(url, headers)
        if response.status == 401 and keeps_secrets(trail):
            try:
                await self._log_in(response)
            finally:
                response.close()
            response, trail = await self._follow(url, headers)
        try:
            if response.status != 200:
                raise await self._refused(response, trail)
            answer = self._client.answer(response)
            data = await _body(self._client, response, manifest.MOST_BYTES)
            return data, answer.header("content-type"), answer.header("docker-content-digest")
        finally:
            response.close()

    async def _follow(self, url: str, headers: dict[str, str]) -> tuple[aiohttp.ClientResponse, tuple[str, ...]]:
        """Ask for a URL and where it redirects to, with our Authorization only while the registry itself is asked."""
        trail: tuple[str, ...] = (normalise(url),)
        while True:
            ours = {"Authorization": self._authorization} if self._authorization and keeps_secrets(trail) else {}
            response = await self._client.ask(trail, {**headers, **ours})
            if response.status not in REDIRECTS:
                return response, trail
            response.close()
            trail = (*trail, next_hop(trail, response.headers.get("Location")))

    async def _refused(self, response: aiohttp.ClientResponse, trail: tuple[str, ...]) -> Failure | Broken:
        found = refusal(self._client.answer(response), await self._excerpt(self._client, response))
        if isinstance(found, Broken):
            return found
        if found.code == "denied" and keeps_secrets(trail):
            return self._denied(found.cause, **found.evidence)
        hint = "check repository and tag; a private repository may also answer like this" if found.code == "not-found" else None
        return Failure(found.code, found.cause, hint=hint, image=self.reference.shown, **found.evidence)

    async def _excerpt(self, client: Client, response: aiohttp.ClientResponse) -> str:
        """Return what a registry says of an error, for a person to read."""
        data = b""
        try:
            async with asyncio.timeout(min(5.0, self.policy.sock_read)):
                while len(data) < _EXCERPT and (piece := await client.read(response)):
                    data += piece
        except (Broken, TimeoutError):
            pass
        login = self._known.login
        held = (self._authorization.partition(" ")[2], *(login.secrets if login is not None else ()))
        secrets = (*(one for one in held if one), *client.secrets(response), *secrets_in(str(response.url)))
        return printable(manifest.complaint(data).encode("utf-8", "replace") or data, secrets)

    async def _patiently(self, once: Callable[[], Awaitable[T]]) -> T:
        """Do something a few times while the server is merely busy. Raises Failure."""
        attempt, last = 0, Failure("stalled", "the registry does not answer", registry=self.base)
        try:
            async with asyncio.timeout(self.policy.probe_limit):
                while True:
                    attempt += 1
                    try:
                        return await once()
                    except Broken as error:
                        last = error.failure
                        pause = self.policy.pause(attempt, error.retry_after)
                        if error.hopeless or attempt >= self.policy.probe_tries or pause > self.policy.longest_wait:
                            raise last from error
                        await asyncio.sleep(pause)
        except TimeoutError:
            raise last from None
        finally:
            last.evidence.setdefault("tries", str(attempt))

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


async def _body(client: Client, response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return a whole body of at most `limit` bytes. Raises Broken, or Failure("unsafe") for a longer one."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("", "identity"):
        raise Failure("protocol", "the registry encodes its answer though it was asked not to", content_encoding=encoding[:40])
    data, told = bytearray(), response.content_length
    while len(data) <= limit and (told is None or told <= limit) and (piece := await client.read(response)):
        data += piece
    if len(data) > limit or (told is not None and told > limit):
        found = f"more than {limit}" if told is None else told
        raise Failure("unsafe", "a manifest is longer than the limit", bytes=found, limit=limit, url=redact(str(response.url)))
    return bytes(data)


def base_url(scheme: str, reference: Reference) -> str:
    """Return scheme://host[:port] of the server that holds an image. Raises Failure("usage")."""
    try:
        return normalise(f"{scheme}://{server(reference.host)}/").rstrip("/")
    except ValueError as error:
        raise Failure("usage", f"the registry's host cannot be asked: {error}", image=reference.shown) from None
