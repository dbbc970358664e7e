"""Images whose compressed clusters are broken or lie where none can lie: only the native reader sees it, most when it decodes."""

import random
import struct
import zlib

from hostile.hostile_file import HostileFile
from hostile.qcow2_builder import COPIED, Qcow2, extension, packed
from hostile.vmdk_builder import DATA, GRAIN, GRAIN_BYTES, SECTOR, packed_grain
from hostile.vmdk_builder import packed as stream_optimized

CLUSTER = 65536
END = struct.pack(">II", 0, 0)
NOISE = random.Random(3).randbytes(GRAIN_BYTES)


def deflated(content: bytes) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -12)
    return squeeze.compress(content) + squeeze.flush()


def compressed(*streams: bytes, zstd: bool = False, at: int | None = None) -> bytes:
    """Compressed clusters one after another, each told as long as it is, perhaps elsewhere."""
    image = Qcow2(incompatible=8, header_length=112, compression=b"\1") if zstd else Qcow2()
    for stream in streams:
        host = image.host(0) + len(image.data)
        image.l2.append(packed(host if at is None else at, (host + len(stream) - 1) // 512 - host // 512))
        image.data += stream
    return image.build()


def compressed_in_the_header() -> bytes:
    """A stream that is right in all but its place: a header extension that nobody reads."""
    stream = deflated(b"x" * CLUSTER)
    image = Qcow2(extensions=extension(0x12345678, stream) + END)
    image.l2 = [packed(112, (112 + len(stream) - 1) // 512)]
    return image.build()


def compressed_in_plain_data() -> bytes:
    """The second cluster of the disk is decoded from what is the first one's data, within its own cluster."""
    image = Qcow2()
    image.l2 = [image.host(0) | COPIED, packed(image.host(0) + 1024, 0)]
    image.data = (b"x" * 1024 + deflated(b"x" * CLUSTER)).ljust(CLUSTER, b"x")
    return image.build()


def compressed_that_overlap() -> bytes:
    """Two entries tell of 30 sectors each that begin 10 sectors apart; both begin with a whole cluster."""
    image, stream = Qcow2(), deflated(b"x" * CLUSTER)
    image.l2 = [packed(image.host(0), 29), packed(image.host(0) + 5120, 29)]
    image.data = stream.ljust(5120, b"\0") + stream.ljust(CLUSTER - 5120, b"\0")
    return image.build()


def zstd_frame(descriptor: int, *fields: bytes) -> bytes:
    """A frame header with these fields and one RLE block of a cluster, the last."""
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + b"".join(fields) + (CLUSTER << 3 | 3).to_bytes(3, "little") + b"r"


def flipped(stream: bytes, at: int) -> bytes:
    return stream[:at] + bytes([stream[at] ^ 0xFF]) + stream[at + 1 :]


SIXTEEN_KIB_OF_ZLIB = deflated(bytes(range(256)) * 64)
GIB_10 = (10 << 30).to_bytes(8, "little")


def odd_grain(grain: bytes) -> bytes:
    """Three honest grains, and a second one among them that is not."""
    honest = packed_grain(0, b"d" * GRAIN_BYTES)
    grains = [honest, grain + bytes(-len(grain) % SECTOR), honest, honest]
    image, at = stream_optimized(4), DATA
    for index, one in enumerate(grains):
        image.table[index] = at
        at += len(one) // SECTOR
    image.data = b"".join(grains)
    return image.build()


def marked(stream: bytes, size: int | None = None) -> bytes:
    return struct.pack("<QI", GRAIN, len(stream) if size is None else size) + stream


def hundreds_in_one_grain() -> bytes:
    """Entries a sector apart, all in the data of the first grain."""
    image = stream_optimized(1, NOISE)
    image.table = [DATA + index for index in range(len(image.data) // SECTOR)]
    return image.build()


FILES: tuple[HostileFile, ...] = (
    # -- compressed clusters
    HostileFile("qcow2-compressed-junk", "corrupt", lambda: compressed(b"\xff" * 3000)),
    HostileFile("qcow2-compressed-zeroes", "corrupt", lambda: compressed(bytes(3000))),
    HostileFile("qcow2-compressed-short", "corrupt", lambda: compressed(SIXTEEN_KIB_OF_ZLIB)),
    HostileFile("qcow2-compressed-flipped", "corrupt", lambda: compressed(flipped(deflated(bytes(range(256)) * 256), 2))),
    HostileFile("qcow2-compressed-that-overlap", "corrupt", compressed_that_overlap),
    HostileFile("qcow2-compressed-in-the-header", "corrupt", compressed_in_the_header),
    HostileFile("qcow2-compressed-in-plain-data", "corrupt", compressed_in_plain_data),
    HostileFile("qcow2-compressed-in-the-l2-table", "corrupt", lambda: compressed(deflated(b"x" * CLUSTER), at=4 * CLUSTER)),
    HostileFile("qcow2-zstd-junk", "corrupt", lambda: compressed(b"\xff" * 3000, zstd=True)),
    HostileFile("qcow2-zstd-is-zlib", "corrupt", lambda: compressed(deflated(b"x" * CLUSTER), zstd=True)),
    HostileFile("qcow2-zstd-claims-10-gib", "corrupt", lambda: compressed(zstd_frame(0xE0, GIB_10), zstd=True)),
    HostileFile("qcow2-zstd-window-of-2-gib", "corrupt", lambda: compressed(zstd_frame(0, b"\xa8"), zstd=True)),
    HostileFile("qcow2-zstd-two-short-frames", "corrupt", lambda: compressed(zstd_frame(0, b"\x38")[:-4] * 2, zstd=True)),
    HostileFile("vmdk-grain-marker-of-0", "corrupt", lambda: odd_grain(packed_grain(GRAIN, b"d" * GRAIN_BYTES, size=0))),
    HostileFile(
        "vmdk-grain-marker-of-4-gib", "corrupt", lambda: odd_grain(marked(zlib.compress(bytes(GRAIN_BYTES)), 0xFFFFFFFF))
    ),
    HostileFile("vmdk-grain-marker-into-the-next", "corrupt", lambda: odd_grain(marked(zlib.compress(bytes(GRAIN_BYTES)), 513))),
    HostileFile("vmdk-grain-of-junk", "corrupt", lambda: odd_grain(marked(b"\xff" * 300))),
    HostileFile("vmdk-grain-cut-within", "corrupt", lambda: odd_grain(marked(zlib.compress(NOISE)[:3000]))),
    HostileFile("vmdk-grain-too-short", "corrupt", lambda: odd_grain(marked(zlib.compress(bytes(GRAIN_BYTES - 1))))),
    HostileFile("vmdk-grain-too-long", "corrupt", lambda: odd_grain(marked(zlib.compress(bytes(GRAIN_BYTES + 1))))),
    HostileFile("vmdk-grain-of-4-mib-of-zeroes", "corrupt", lambda: odd_grain(marked(zlib.compress(bytes(4 << 20))))),
    HostileFile(
        "vmdk-grain-with-a-wrong-checksum", "corrupt", lambda: odd_grain(marked(zlib.compress(bytes(GRAIN_BYTES))[:-1] + b"!"))
    ),
    HostileFile("vmdk-grain-is-a-raw-deflate", "corrupt", lambda: odd_grain(marked(zlib.compress(bytes(GRAIN_BYTES))[2:]))),
    HostileFile("vmdk-hundreds-in-one-grain", "corrupt", hundreds_in_one_grain),
)
