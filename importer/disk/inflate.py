"""Compressed clusters become clusters (see native.Inflate): safe to call from many threads, which then run side by side.

What QEMU reads as a whole cluster is one here, and what it reports as an error is refused. libdeflate (PyPI deflate)
is twice as fast as zlib, but wants the stream to end with the cluster; where that is not so zlib decides, as in QEMU.
"""

import threading
import zlib

import deflate
import zstandard

from importer.api.failure import Failure
from importer.disk.vmdk_tables import MARKER

MOST_WINDOW = 8 << 20
"""Bytes of history that a zstd cluster may ask for; clusters are at most 2 MiB."""


def deflated(data: memoryview | bytearray, out: memoryview) -> int:
    """Inflate a raw deflate stream: qcow2's compression type zlib."""
    try:
        cluster: bytes | bytearray = deflate.deflate_decompress(data, len(out))
    except deflate.DeflateError:
        cluster, _ = _patiently(data, len(out), -zlib.MAX_WBITS)
    out[: len(cluster)] = cluster
    return len(cluster)


def grain(data: memoryview | bytearray, out: memoryview) -> int:
    """Inflate a grain of a streamOptimized VMDK: a marker that tells the length of the zlib stream behind it."""
    size = int.from_bytes(data[8:MARKER], "little")
    if not 0 < size <= len(data) - MARKER:
        raise Failure("corrupt", "a compressed grain has an absurd length", size=size, room=len(data) - MARKER)
    stream = data[MARKER : MARKER + size]
    try:
        cluster: bytes | bytearray = deflate.zlib_decompress(stream, len(out))
    except deflate.DeflateError:
        cluster, ended = _patiently(stream, len(out), zlib.MAX_WBITS)
        if not ended:
            raise Failure("corrupt", "a compressed grain is cut, or holds more than a grain", size=size) from None
    out[: len(cluster)] = cluster
    return len(cluster)


def _patiently(data: memoryview | bytearray, size: int, window: int) -> tuple[bytes, bool]:
    """Return up to `size` bytes of a stream, and whether it ends with them."""
    stream = zlib.decompressobj(window)
    try:
        return stream.decompress(data, size), stream.eof
    except zlib.error as error:
        raise Failure("corrupt", "a compressed cluster cannot be decoded", problem=str(error)) from None


class Zstd:
    """Decodes zstd frames: qcow2's compression type zstd. A decompressor a thread: they keep state."""

    def __init__(self) -> None:
        self._own = threading.local()

    def __call__(self, data: memoryview | bytearray, out: memoryview) -> int:
        """Decode one frame."""
        if not hasattr(self._own, "decompressor"):
            self._own.decompressor = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW)
        try:
            with self._own.decompressor.stream_reader(data) as reader:
                return int(reader.readinto(out))
        except zstandard.ZstdError as error:
            raise Failure("corrupt", "a compressed cluster cannot be decoded", problem=str(error)) from None
