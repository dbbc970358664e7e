"""A container image as the pipeline sees it: layers to open, uppermost first, wherever they lie."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from importer.api.failure import Failure
from importer.api.request import RegistryAccess
from importer.sources import manifest, platform
from importer.sources.manifest import Config, Descriptor, Document, Index, Manifest
from importer.sources.platform import Platform
from importer.sources.protocol import Source

Read: TypeAlias = Callable[[Descriptor], Awaitable[bytes]]
"""Brings a document and verifies it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """One layer: a tar, perhaps compressed. Size in bytes as it is served, None if nobody tells."""

    digest: str | None
    """sha256:HEX or sha512:HEX of the bytes as they are served; None: only `diff_id` can be verified."""
    size: int
    compression: str
    """"", gzip or zstd, as the manifest says; manifest.compression_of tells it from the first bytes."""
    diff_id: str | None = None
    """Digest of the decoded tar, where the image's configuration tells it."""
    offset: int = 0
    """Where it begins in the archive it lies in."""


class Store(Protocol):
    """What opens the blobs of one image."""

    async def open(self, blob: Blob) -> Source:
        """Return the blob as a source, which the caller closes. Raises Failure."""
        ...

    async def close(self) -> None:
        """Let go of connections and descriptors."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """One resolved image. Close it after the sources of its blobs."""

    shown: str
    """As it was asked for, fit for receipts."""
    digest: str | None
    """Of the manifest that was chosen: the same digest is the same image, for ever."""
    platform: Platform | None
    blobs: tuple[Blob, ...]
    """Uppermost first."""
    notes: tuple[str, ...]
    store: Store

    async def open(self, blob: Blob) -> Source:
        """Return a blob as a source; its digest is the reader's to verify. Raises Failure."""
        return await self.store.open(blob)

    async def close(self) -> None:
        """Let go of what the blobs are read through."""
        await self.store.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The manifest that was chosen, and what the image says about itself."""

    manifest: Manifest
    digest: str
    config: Config

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """The layers, uppermost first."""
        layers, ids = self.manifest.layers, self.config.diff_ids
        known: tuple[str | None, ...] = ids if len(ids) == len(layers) else (None,) * len(layers)
        pairs = zip(layers, known, strict=True)
        found = [Blob(digest=one.digest, size=one.size, compression=one.compression, diff_id=said) for one, said in pairs]
        return tuple(reversed(found))


def wanted_platform(settings: RegistryAccess) -> Platform:
    """Return the platform to choose: the one that was asked for, else this machine's. Raises Failure("usage")."""
    if settings.platform is None:
        return platform.of_machine(os.uname().machine)
    try:
        return platform.parse(settings.platform)
    except ValueError as error:
        raise Failure("usage", f"--platform: {error}") from None


async def resolve(first: Document, digest: str, read: Read, settings: RegistryAccess) -> Resolved:
    """Follow indexes to the manifest for the platform, and read its configuration. Raises Failure."""
    wanted, document = wanted_platform(settings), first
    for _ in range(manifest.MOST_DEPTH + 1):
        if not isinstance(document, Index):
            break
        entry = document.chosen(wanted)
        digest, document = entry.digest, manifest.parse(await read(entry))
    else:
        raise Failure("unsafe", "the image's indexes lead to indexes without end", limit=manifest.MOST_DEPTH)
    assert isinstance(document, Manifest)
    config = manifest.config(await read(document.config))
    if settings.platform is not None and config.platform is not None:
        platform.choose((config.platform,), wanted)
    return Resolved(manifest=document, digest=digest, config=config)


def notes_on(found: Resolved) -> tuple[str, ...]:
    """Return sentences worth telling about a resolved image."""
    here = platform.of_machine(os.uname().machine)
    made_for = found.config.platform
    if made_for is None or made_for.suits(here):
        return ()
    return (f"the image is made for {made_for}, this machine is {here}",)
