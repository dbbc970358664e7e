"""The least that turns a container image into its disk: for tests of the sources, without the pipeline."""

import hashlib
import zlib
from contextlib import aclosing

import zstandard

from importer.api.failure import Failure
from importer.api.request import Access
from importer.disk.tar import Hidden, LayerScan, missing
from importer.sources.client import HttpPolicy
from importer.sources.images import open_image
from importer.sources.layers import Layers
from importer.sources.manifest import compression_of
from importer.sources.protocol import Interrupted, Source

QUICK = HttpPolicy(sock_read=2, sock_connect=2, answer=5, head=1, head_limit=3, probe_tries=3, backoff=0.01, longest_wait=3)


async def whole(source: Source) -> bytes:
    """Read a source by ranges, as the pipeline does: an attempt that breaks off is made again."""
    data, tries = b"", 0
    length = source.facts.length
    while length is None or len(data) < length:
        end = None if length is None or not source.facts.ranges else min(length, len(data) + (1 << 20))
        try:
            async with aclosing(source.fetch(len(data) if source.facts.ranges else 0, end)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    data += piece
            if end is None:
                break
        except Interrupted as error:
            tries += 1
            if tries > 5:
                raise AssertionError(error.reason) from error
            if not source.facts.ranges:
                data = b""
    await source.settle()
    return data


def decoded(data: bytes) -> bytes:
    """Decode a layer by what it begins with."""
    match compression_of(data):
        case "gzip":
            return zlib.decompress(data, 31)
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        case _:
            return data


def _verify(promised: str | None, data: bytes) -> None:
    if promised is not None:
        algorithm, _, digits = promised.partition(":")
        if hashlib.new(algorithm, data).hexdigest() != digits:
            raise Failure("checksum-mismatch", "the layer is not what its digest says")


async def disk_in(layers: Layers) -> tuple[str, bytes]:
    """Return the disk's path and bytes; every digest on the way is verified."""
    above, found, members = Hidden(), tuple[str, ...](), 0
    for blob in layers.blobs:
        source = await layers.open(blob)
        try:
            data = await whole(source)
        finally:
            await source.close()
        _verify(blob.digest, data)
        tar, scan = decoded(data), LayerScan(above)
        _verify(blob.diff_id, tar)
        for at in range(0, len(tar), 65_536):
            scan.feed(memoryview(tar)[at : at + 65_536])
        scan.end()
        if scan.disk is not None:
            return scan.disk.name, tar[scan.disk.offset : scan.disk.offset + scan.disk.size]
        above, found, members = scan.hidden, (*found, *scan.found()), members + scan.members
    raise missing(found, members)


async def disk_of(source: str, access: Access | None = None, policy: HttpPolicy = QUICK) -> tuple[str, bytes]:
    """Resolve an image and return its disk's path and bytes."""
    layers = await open_image(source, access or Access(), policy)
    try:
        return await disk_in(layers)
    finally:
        await layers.close()
