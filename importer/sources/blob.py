"""A layer in a registry: an HttpSource whose Authorization is renewed, as tokens live for minutes and images load for longer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from importer.api.failure import Failure
from importer.api.request import Access
from importer.sources.http import HttpSource
from importer.sources.layers import Blob
from importer.sources.protocol import Basin, Interrupted, SourceFacts
from importer.sources.registry import Registry


class BlobSource:
    """One blob. Its name is its digest, so that every server and every token leads to the same bytes or to a lie."""

    def __init__(self, registry: Registry, blob: Blob, access: Access, connections: int, http: HttpSource) -> None:
        """Take over an opened source; use `open` instead."""
        self._registry = registry
        self._blob = blob
        self._access = access
        """What the present source was opened with."""
        self._connections = connections
        self._http = http
        self._retired: HttpSource | None = None
        """The one before, on which others may still read."""
        self._served = True
        """True once something came since the last renewal."""
        self._renewing = asyncio.Lock()
        note = f"a layer of {registry.reference.shown}, from {registry.base}"
        self._facts = replace(http.facts, url=f"{registry.reference.shown} layer {blob.digest}", name=blob.digest or "")
        self._facts = replace(self._facts, notes=(note, *http.facts.notes))

    @classmethod
    async def open(cls, registry: Registry, blob: Blob, connections: int) -> "BlobSource":
        """Find and probe a blob. Raises Failure; "truncated" or "corrupt" if it has not the length that was promised."""
        if registry.due:
            await registry.renew(registry.access(), _url(registry, blob))
        access = registry.access()
        try:
            http = await _opened(registry, blob, access, connections)
        except Failure as failure:
            if failure.code != "denied":
                raise
            await registry.renew(access, _url(registry, blob))
            access = registry.access()
            http = await _opened(registry, blob, access, connections)
        return cls(registry, blob, access, connections, http)

    @property
    def facts(self) -> SourceFacts:
        """What the probe's answer told, under the layer's own name."""
        return self._facts

    @property
    def head(self) -> bytes:
        """The first bytes; see HttpSource.head."""
        return self._http.head

    async def fetch(self, start: int, end: int | None) -> AsyncIterator[bytes]:
        """Yield the bytes start..end in one attempt; see Source.fetch."""
        http = await self._current()
        try:
            async with aclosing(http.fetch(start, end)) as pieces:  # type: ignore[type-var] # an async generator
                async for piece in pieces:
                    self._served = True
                    yield piece
        except Failure as failure:
            raise await self._told(failure, http) from None

    async def pour(self, start: int, end: int, basin: Basin) -> None:
        """Bring the bytes start..end into a basin in one attempt; see Source.pour."""
        http = await self._current()
        try:
            await http.pour(start, end, basin)
            self._served = True
        except Failure as failure:
            raise await self._told(failure, http) from None

    async def settle(self) -> None:
        """Check once more that the object did not change; see Source.settle."""
        await self._http.settle()

    async def close(self) -> None:
        """Close every connection, but not the registry's own."""
        for one in (self._http, self._retired):
            if one is not None:
                await one.close()

    async def _current(self) -> HttpSource:
        if self._registry.due and self._facts.ranges:
            await self._renew(self._http)
        return self._http

    async def _told(self, failure: Failure, http: HttpSource) -> Failure | Interrupted:
        """Return what a failure amounts to: a token that expired is no reason to give up, unless nothing comes of a new one."""
        if failure.code != "denied" or (http is self._http and not self._served):
            return failure
        await self._renew(http)
        return Interrupted("the registry wanted a new token")

    async def _renew(self, stale: HttpSource) -> None:
        """Open the blob anew with a new token; the source before serves on until the next time."""
        async with self._renewing:
            if self._http is not stale:
                return
            await self._registry.renew(self._access, _url(self._registry, self._blob))
            access = self._registry.access()
            fresh = await _opened(self._registry, self._blob, access, self._connections)
            same = min(len(fresh.head), len(stale.head))
            if fresh.head[:same] != stale.head[:same] or fresh.facts.ranges != stale.facts.ranges:
                await fresh.close()
                raise Failure("source-changed", "the layer is another one after a new token was fetched", url=self._facts.url)
            before, self._retired = self._retired, stale
            self._http, self._access, self._served = fresh, access, False
            if before is not None:
                await before.close()


def _url(registry: Registry, blob: Blob) -> str:
    assert blob.digest is not None  # every layer of a registry has one
    return registry.blob_url(blob.digest)


async def _opened(registry: Registry, blob: Blob, access: Access, connections: int) -> HttpSource:
    http = await HttpSource.open(_url(registry, blob), replace(access, connections=connections), registry.policy)
    length = http.facts.length
    if length is not None and length != blob.size:
        await http.close()
        code, how = ("truncated", "shorter") if length < blob.size else ("corrupt", "longer")
        raise Failure(
            code, f"a layer is {how} than its manifest says", layer=blob.digest, bytes=length, promised=blob.size,
            hint="push the image again: its registry does not hold it as it was made",
        )  # fmt: skip
    return http
