"""A directory of the OCI image layout: documents and layers are files named by their digests."""

import asyncio
import os

from importer.api.failure import Failure
from importer.api.request import RegistryAccess
from importer.sources import manifest
from importer.sources.layers import Blob, Layers, notes_on, resolve
from importer.sources.manifest import Descriptor, Document, Index
from importer.sources.protocol import Source
from importer.sources.reference import Layout, is_digest
from importer.sources.span import SpanSource


async def open_layout(name: Layout, settings: RegistryAccess) -> Layers:
    """Resolve an image of a layout. Raises Failure; "not-found" with the names that there are."""
    store = _Store(name)
    await store.check()
    first, digest = await store.first()
    found = await resolve(first, digest, store.read, settings)
    return Layers(
        shown=name.shown,
        digest=found.digest or None,
        platform=found.config.platform,
        blobs=found.blobs,
        notes=notes_on(found),
        store=store,
    )


class _Store:
    def __init__(self, name: Layout) -> None:
        self._name = name

    async def check(self) -> None:
        """Refuse what is no layout."""
        marker = manifest.layout_version(await self._file("oci-layout", manifest.MOST_BYTES))
        if not marker.startswith("1."):
            raise Failure("unsupported", "the image layout is of a version that is not read here", version=marker)

    async def first(self) -> tuple[Document, str]:
        """Return the document that the name leads to: of the index, those entries that bear it. The digest may be ""."""
        pointer = self._name.pointer
        index = manifest.parse(await self._file("index.json", manifest.MOST_BYTES))
        if not isinstance(index, Index):
            raise Failure("corrupt", "index.json is no index", directory=self._name.directory)
        if pointer is None:
            return await self._only(index.entries)
        named = tuple(one for one in index.entries if pointer in (one.digest, one.name))
        if not named and is_digest(pointer):
            size = manifest.MOST_BYTES
            return manifest.parse(manifest.verified(await self._blob(pointer, size), pointer)), pointer
        if not named:
            there = ", ".join(sorted({one.name for one in index.entries if one.name})[:20]) or "none that has a name"
            raise Failure(
                "not-found",
                "the layout has no image of this name",
                directory=self._name.directory,
                wanted=pointer,
                there_are=there,
            )
        return await self._only(named)

    async def _only(self, entries: tuple[Descriptor, ...]) -> tuple[Document, str]:
        if len(entries) == 1:
            return manifest.parse(await self.read(entries[0])), entries[0].digest
        names = sorted({one.name for one in entries})
        if len(names) > 1:
            hint = "say which, as in oci-layout:DIRECTORY:NAME"
            shown = ", ".join(name or "(no name)" for name in names[:20])
            raise Failure("usage", "the layout has several images", hint=hint, directory=self._name.directory, there_are=shown)
        return Index(entries=entries), ""

    async def read(self, wanted: Descriptor) -> bytes:
        """Return a document, verified."""
        if wanted.size > manifest.MOST_BYTES:
            raise Failure("unsafe", "a manifest is longer than the limit", bytes=wanted.size, limit=manifest.MOST_BYTES)
        return manifest.verified(await self._blob(wanted.digest, wanted.size), wanted.digest, wanted.size)

    async def open(self, blob: Blob) -> Source:
        """Return a layer's file."""
        assert blob.digest is not None
        path = os.path.join(self._name.directory, _place(blob.digest))
        size = await asyncio.to_thread(_size, path)
        if size != blob.size:
            code = "truncated" if size < blob.size else "corrupt"
            raise Failure(code, "a layer is not as long as its manifest says", path=path, bytes=size, promised=blob.size)
        return await SpanSource.open(path, 0, size, url=f"{self._name.shown} layer {blob.digest}", name=blob.digest)

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _blob(self, digest: str, most: int) -> bytes:
        return await self._file(_place(digest), most)

    async def _file(self, name: str, most: int) -> bytes:
        return await asyncio.to_thread(_content, os.path.join(self._name.directory, name), most)


def _place(digest: str) -> str:
    algorithm, _, digits = digest.partition(":")  # is_digest was asked before: no path can hide in it
    return f"blobs/{algorithm}/{digits}"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise _missing(path, error) from None


def _content(path: str, most: int) -> bytes:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
            data = file.read(most + 1) or b""
    except OSError as error:
        raise _missing(path, error) from None
    if len(data) > most:
        raise Failure("unsafe", "a file of the layout is longer than it may be", path=path, limit=most)
    return data


def _missing(path: str, error: OSError) -> Failure:
    if isinstance(error, PermissionError):
        return Failure("permission", "a file of the image layout may not be read", path=path)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        hint = "give the directory that holds oci-layout and index.json; a partial copy lacks files"
        return Failure("not-found", "a file of the image layout is missing", hint=hint, path=path)
    return Failure("io", f"a file of the image layout cannot be read: {error.strerror}", path=path)
