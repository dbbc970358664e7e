"""Where the blocks of an xz object lie, and what the decoder of each needs. Pure.

The index at the end of each stream names the sizes of its blocks, so that blocks can be fetched by
range and decoded side by side. liblzma (as Python wraps it) decodes whole streams only: `stream_header`
and `stream_tail` make one around a single block. The format: tukaani.org/xz/xz-file-format.txt.
"""

import zlib
from dataclasses import dataclass

from importer.api.failure import Failure
from importer.disk.reads import Reads, Span

HEADER_MAGIC = b"\xfd7zXZ\0"
FOOTER_MAGIC = b"YZ"
HEADER_SIZE = FOOTER_SIZE = 12
LARGEST_BLOCK_HEADER = 1024
"""Bytes."""
CHECK_SIZES = {0: 0, 1: 4, 4: 8, 10: 32}
"""Bytes of the checks that can be verified: none, CRC32, CRC64, SHA-256. By the check's number."""

TAIL = 64 << 10
"""Bytes read at once at an object's end: footer and index of most objects."""
MAX_BLOCKS = 1 << 17
"""Blocks of one object; more (a block a 200 bytes of memory) are read in sequence instead."""
MAX_STREAMS = 1024
MAX_INDEX = 4 << 20
MAX_PADDING = 1 << 20

_LZMA2 = 0x21
_SMALLEST_UNPADDED = 5
_VLI_BYTES = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class XzBlock:
    """One block: bytes start..end (with its padding) of the object decode to `uncompressed_size` at `uncompressed_offset`."""

    start: int
    end: int
    unpadded_size: int
    """Bytes of header, data and check; the padding makes it a multiple of four."""
    uncompressed_offset: int
    uncompressed_size: int
    check: int
    """Number of the integrity check, a key of CHECK_SIZES."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stream:
    start: int
    flags: bytes
    records: tuple[tuple[int, int], ...]
    """Unpadded and uncompressed size of each block."""


def _corrupt(cause: str, **evidence: object) -> Failure:
    return Failure("corrupt", cause, hint=None, **evidence)


def _sealed(body: bytes, crc: bytes, what: str) -> None:
    if zlib.crc32(body) != int.from_bytes(crc, "little"):
        raise _corrupt(f"the checksum of an xz {what} is wrong")


def _padded(size: int) -> int:
    return size + 3 & ~3


def number(data: bytes, at: int, stop: int) -> tuple[int, int]:
    """Return the variable-length number at `at` and the place after it; it must end before `stop`."""
    value = 0
    for count in range(_VLI_BYTES):
        if at >= stop:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << 7 * count
        if not byte & 0x80:
            if not byte and count:
                break
            return value, at
    raise _corrupt("an xz number is malformed")


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def check_of(flags: bytes) -> int:
    """Return the check's number in two bytes of stream flags. Raises Failure("unsupported") for one that cannot be verified."""
    if flags[0] or flags[1] not in CHECK_SIZES:
        raise Failure("unsupported", "an xz stream uses a check that cannot be verified", flags=flags.hex())
    return flags[1]


def parse_stream_header(header: bytes) -> bytes:
    """Return the two bytes of stream flags of a 12-byte stream header."""
    if header[:6] != HEADER_MAGIC:
        raise _corrupt("an xz stream does not begin with a stream header")
    _sealed(header[6:8], header[8:12], "stream header")
    check_of(header[6:8])
    return header[6:8]


def stream_header(check: int) -> bytes:
    """Return the header of a stream whose blocks carry the check of this number."""
    flags = bytes((0, check))
    return HEADER_MAGIC + flags + zlib.crc32(flags).to_bytes(4, "little")


def stream_tail(block: XzBlock) -> bytes:
    """Return index and footer of a stream that holds only `block`."""
    index = b"\0\x01" + _encoded(block.unpadded_size) + _encoded(block.uncompressed_size)
    index += bytes(-len(index) % 4)
    index += zlib.crc32(index).to_bytes(4, "little")
    body = (len(index) // 4 - 1).to_bytes(4, "little") + bytes((0, block.check))
    return index + zlib.crc32(body).to_bytes(4, "little") + body + FOOTER_MAGIC


def block_dictionary(header: bytes) -> int:
    """Return the LZMA2 dictionary size, in bytes, that a block header asks for; bytes after the header are ignored."""
    size = (header[0] + 1) * 4 if header else 0
    if not size or not header[0] or len(header) < size:
        raise _corrupt("an xz block header is cut or missing")
    _sealed(header[: size - 4], header[size - 4 : size], "block header")
    flags, at, stop = header[1], 2, size - 4
    if flags & 0x3C:
        raise Failure("unsupported", "an xz block header sets reserved bits", flags=hex(flags))
    for present in (flags & 0x40, flags & 0x80):
        if present:
            _, at = number(header, at, stop)
    for _ in range((flags & 3) + 1):
        kind, at = number(header, at, stop)
        length, at = number(header, at, stop)
        if at + length > stop:
            raise _corrupt("an xz filter's properties reach past the block header")
        properties, at = header[at : at + length], at + length
        if kind == _LZMA2:
            return _dictionary(properties)
    raise Failure("unsupported", "an xz block is not compressed by LZMA2")


def _dictionary(properties: bytes) -> int:
    if len(properties) != 1 or properties[0] > 40:
        raise _corrupt("an xz block's dictionary size is malformed", properties=properties.hex())
    bits = properties[0]
    return (1 << 32) - 1 if bits == 40 else (2 | bits & 1) << (bits // 2 + 11)


def first_dictionary(head: bytes) -> int | None:
    """Return the dictionary size, in bytes, of the first block of the stream at the beginning of `head`.

    0 for a stream without blocks, None if `head` is too short to tell. Raises Failure for a bad header.
    """
    if len(head) <= HEADER_SIZE:
        return None
    parse_stream_header(head[:HEADER_SIZE])
    if not head[HEADER_SIZE]:
        return 0
    size = (head[HEADER_SIZE] + 1) * 4
    header = head[HEADER_SIZE : HEADER_SIZE + size]
    return block_dictionary(header) if len(header) == size else None


class _Backwards:
    """Reads an object from its end, a good piece at a time."""

    def __init__(self) -> None:
        self._start = self._end = 0
        self._data = b""

    def read(self, start: int, end: int) -> Reads[bytes]:
        """Return bytes start..end; what lies before them is likely to be asked for next and comes along."""
        if start < self._start or end > self._end:
            self._start, self._end = max(0, min(start, end - TAIL)), end
            (self._data,) = yield (Span(self._start, self._end),)
        return self._data[start - self._start : end - self._start]


def read_index(length: int) -> Reads[tuple[XzBlock, ...]]:
    """Return all blocks of an xz object of `length` bytes, in order, over all its streams.

    Raises Failure: "truncated" if no footer stands at the end, "corrupt" where parts contradict each other,
    "unsupported" for an object that can be read in sequence only (absurdly many blocks, streams, padding).
    The sizes are the index's claims; only decoding a block proves its own.
    """
    if length < HEADER_SIZE + FOOTER_SIZE + 8 or length % 4:
        raise Failure("truncated", "the length of the object is not that of a whole xz file", length=length)
    tail, end, blocks = _Backwards(), length, 0
    streams: list[_Stream] = []
    while end:
        end = yield from _before_padding(tail, end)
        if not end:
            raise _corrupt("the xz object begins with padding")
        stream = yield from _stream_before(tail, end, last=not streams, room=MAX_BLOCKS - blocks)
        streams.append(stream)
        blocks += len(stream.records)
        end = stream.start
        if len(streams) > MAX_STREAMS:
            raise Failure("unsupported", "the xz object has too many streams to be read in parallel", limit=MAX_STREAMS)
    streams.reverse()
    headers = yield tuple(Span(stream.start, stream.start + HEADER_SIZE) for stream in streams)
    for stream, header in zip(streams, headers, strict=True):
        if parse_stream_header(header) != stream.flags:
            raise _corrupt("header and footer of an xz stream disagree", offset=stream.start)
    return _blocks(streams)


def _before_padding(tail: _Backwards, end: int) -> Reads[int]:
    """Return where the stream before the padding at `end` ends; 0 if there is nothing but padding."""
    first, look = end, FOOTER_SIZE
    while end:
        chunk = yield from tail.read(max(0, end - look), end)
        look = TAIL
        rest = len(chunk.rstrip(b"\0"))
        end -= len(chunk) - rest
        if rest:
            break
        if first - end > MAX_PADDING:
            raise Failure("unsupported", "the xz object has too much padding to be read in parallel", limit=MAX_PADDING)
    if end % 4:
        raise _corrupt("the padding of an xz stream is not a multiple of four bytes", offset=end)
    return end


def _stream_before(tail: _Backwards, end: int, *, last: bool, room: int) -> Reads[_Stream]:
    if end < HEADER_SIZE + FOOTER_SIZE + 8:
        raise _corrupt("an xz stream is too short", end=end)
    footer = yield from tail.read(end - FOOTER_SIZE, end)
    if footer[10:] != FOOTER_MAGIC:
        raise Failure("truncated" if last else "corrupt", "no xz stream footer stands where a stream should end", offset=end)
    _sealed(footer[4:10], footer[:4], "stream footer")
    check_of(footer[8:10])
    size = (int.from_bytes(footer[4:8], "little") + 1) * 4
    start = end - FOOTER_SIZE - size
    if start < HEADER_SIZE:
        raise _corrupt("an xz index is larger than the object before it", index=size, end=end)
    if size > MAX_INDEX:
        raise Failure("unsupported", "an xz index is too large to be read in parallel", index=size, limit=MAX_INDEX)
    index = yield from tail.read(start, end - FOOTER_SIZE)
    records = _records(index, room)
    start -= sum(_padded(unpadded) for unpadded, _ in records) + HEADER_SIZE
    if start < 0:
        raise _corrupt("an xz index claims more bytes than the object has", missing=-start)
    return _Stream(start=start, flags=footer[8:10], records=records)


def _records(index: bytes, room: int) -> tuple[tuple[int, int], ...]:
    stop = len(index) - 4
    _sealed(index[:stop], index[stop:], "index")
    if index[0]:
        raise _corrupt("an xz index does not begin with its indicator")
    count, at = number(index, 1, stop)
    if count > stop // 2:
        raise _corrupt("an xz index claims more blocks than it can name", blocks=count)
    if count > room:
        raise Failure("unsupported", "the xz object has too many blocks to be read in parallel", limit=MAX_BLOCKS)
    records = []
    for _ in range(count):
        unpadded, at = number(index, at, stop)
        uncompressed, at = number(index, at, stop)
        if unpadded < _SMALLEST_UNPADDED:
            raise _corrupt("an xz index names a block smaller than any", unpadded=unpadded)
        records.append((unpadded, uncompressed))
    if stop - at > 3 or any(index[at:stop]):
        raise _corrupt("an xz index is longer than its records")
    return tuple(records)


def _blocks(streams: list[_Stream]) -> tuple[XzBlock, ...]:
    blocks, offset = [], 0
    for stream in streams:
        start, check = stream.start + HEADER_SIZE, check_of(stream.flags)
        for unpadded, uncompressed in stream.records:
            end = start + _padded(unpadded)
            block = XzBlock(
                start=start,
                end=end,
                unpadded_size=unpadded,
                uncompressed_offset=offset,
                uncompressed_size=uncompressed,
                check=check,
            )
            blocks.append(block)
            start, offset = end, offset + uncompressed
    return tuple(blocks)
