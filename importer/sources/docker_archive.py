"""A file as `docker save` writes it: a tar of layers, in which manifest.json says what belongs together."""

import asyncio
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from importer.api.failure import Failure
from importer.api.request import RegistryAccess
from importer.sources import manifest, platform, reference
from importer.sources.layers import Blob, Layers, wanted_platform
from importer.sources.local import LocalSource
from importer.sources.protocol import Source
from importer.sources.reference import Archive
from importer.sources.span import SpanSource
from machinery.values.tar import BadTar, Kind, Member, TarScanner

MOST_MEMBERS = 20_000
_STEP = 4 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """One entry of manifest.json."""

    config: str
    names: tuple[str, ...]
    layers: tuple[str, ...]


async def open_archive(name: Archive, settings: RegistryAccess) -> Layers:
    """Resolve an image of an archive. Raises Failure; "not-found" with the names that there are."""
    file = await LocalSource.open(name.path)
    try:
        found = await asyncio.to_thread(_Reader(name, file.descriptor, file.head).layers, settings)
    finally:
        await file.close()
    return found


class _Store:
    def __init__(self, name: Archive) -> None:
        self._name = name

    async def open(self, blob: Blob) -> Source:
        """Return a layer's part of the file."""
        called = blob.digest or blob.diff_id or f"at byte {blob.offset}"
        return await SpanSource.open(
            self._name.path, blob.offset, blob.size, url=f"{self._name.shown} layer {called}", name=called
        )

    async def close(self) -> None:
        """Nothing is kept open."""


class _Reader:
    """Reads an archive's documents. Blocks: for a worker thread."""

    def __init__(self, name: Archive, descriptor: int, head: bytes) -> None:
        self._name = name
        self._descriptor = descriptor
        compression = manifest.compression_of(head)
        if compression:
            hint = f"decompress it first, with {'gunzip' if compression == 'gzip' else 'zstd -d'}"
            raise Failure("unsupported", f"the archive is compressed with {compression}", hint=hint, path=name.path)
        self._members = self._scanned()

    def layers(self, settings: RegistryAccess) -> Layers:
        """Choose the image and find its layers."""
        image = self._chosen()
        data = self._document(image.config)
        digits = re.fullmatch(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?", image.config)
        if digits is not None:
            manifest.verified(data, f"sha256:{digits[1]}")
        config = manifest.config(data)
        wanted = wanted_platform(settings)
        if settings.platform is not None and config.platform is not None:
            platform.choose((config.platform,), wanted)
        ids = config.diff_ids if len(config.diff_ids) == len(image.layers) else (None,) * len(image.layers)
        blobs = [self._blob(path, said) for path, said in zip(image.layers, ids, strict=True)]
        return Layers(
            shown=self._name.shown,
            digest=None,
            platform=config.platform,
            blobs=tuple(reversed(blobs)),
            notes=() if all(ids) else ("the archive tells no digests of its layers",),
            store=_Store(self._name),
        )

    def _blob(self, path: str, diff_id: str | None) -> Blob:
        member = self._member(path)
        compression = manifest.compression_of(os.pread(self._descriptor, 8, member.offset))
        named = re.fullmatch(r"blobs/(sha256)/([0-9a-f]{64})", path)
        digest = f"{named[1]}:{named[2]}" if named else None if compression else diff_id
        return Blob(digest=digest, size=member.size, compression=compression, diff_id=diff_id, offset=member.offset)

    def _scanned(self) -> Mapping[str, Member]:
        scanner, found = TarScanner(), dict[str, Member]()
        try:
            while not scanner.ended and (data := os.pread(self._descriptor, _STEP, scanner.position)):
                found.update((_clean(member.name), member) for member in scanner.feed(data))
                scanner.skip()
                if len(found) > MOST_MEMBERS:
                    raise Failure("unsafe", "the archive has more members than the limit", limit=MOST_MEMBERS)
            scanner.end()
        except BadTar as bad:
            evidence = {"path": self._name.path, **bad.evidence}
            raise Failure(bad.code, f"this is no whole archive of docker save: {bad.cause}", **evidence) from None
        except OSError as error:
            raise Failure("io", f"the archive cannot be read: {error.strerror}", path=self._name.path) from error
        return found

    def _member(self, name: str) -> Member:
        """Return a regular member; a link, by which old archives avoid doubles, is followed once."""
        member = self._members.get(_clean(name))
        if member is not None and member.kind in (Kind.SYMBOLIC_LINK, Kind.HARD_LINK):
            folder = os.path.dirname(_clean(name)) if member.kind is Kind.SYMBOLIC_LINK else ""
            member = self._members.get(os.path.normpath(os.path.join(folder, member.link)))
        if member is None or member.kind is not Kind.FILE:
            raise Failure("corrupt", "the archive lacks a file that it names", path=self._name.path, member=_shown(name))
        if member.offset + member.size > os.fstat(self._descriptor).st_size:
            raise Failure("truncated", "the archive ends before its data does", path=self._name.path, member=_shown(name))
        return member

    def _document(self, name: str) -> bytes:
        member = self._member(name)
        if member.size > manifest.MOST_BYTES:
            raise Failure("unsafe", "a manifest is longer than the limit", bytes=member.size, limit=manifest.MOST_BYTES)
        return os.pread(self._descriptor, member.size, member.offset)

    def _chosen(self) -> _Image:
        if "manifest.json" not in self._members:
            hint = "write it with docker save or skopeo copy docker-archive:"
            raise Failure(
                "not-found", "the file is no archive of docker save: it holds no manifest.json", hint=hint, path=self._name.path
            )
        images = _images(self._document("manifest.json"))
        pointer = self._name.pointer
        fitting = [one for one in images if pointer is None or any(_same(pointer, name) for name in one.names)]
        if len(fitting) == 1:
            return fitting[0]
        there = _shown(", ".join(name for one in images for name in one.names) or "none that has a name")
        if fitting:
            hint = "say which, as in docker-archive:FILE:NAME:TAG"
            raise Failure("usage", "the archive has several images", hint=hint, path=self._name.path, there_are=there)
        raise Failure("not-found", "the archive has no image of this name", path=self._name.path, wanted=pointer, there_are=there)


def _images(data: bytes) -> list[_Image]:
    """Read manifest.json. Raises Failure("corrupt")."""
    try:
        listed: Any = json.loads(data)
        images = [
            _Image(config=one["Config"], names=tuple(one.get("RepoTags") or ()), layers=tuple(one["Layers"])) for one in listed
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Failure("corrupt", "the archive's manifest.json is not what it should be") from None
    texts = (text for one in images for text in (one.config, *one.names, *one.layers))
    if not images or any(not one.layers for one in images) or not all(isinstance(text, str) for text in texts):
        raise Failure("corrupt", "the archive's manifest.json is not what it should be")
    if max(len(one.layers) for one in images) > manifest.MOST_LAYERS:
        raise Failure("unsafe", "the image has more layers than the limit", limit=manifest.MOST_LAYERS)
    return images


def _same(one: str, other: str) -> bool:
    try:
        return reference.in_registry(one) == reference.in_registry(other)
    except Failure:
        return one == other


def _clean(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _shown(text: str) -> str:
    plain = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(mark if mark.isprintable() else "?" for mark in plain)[:300]
