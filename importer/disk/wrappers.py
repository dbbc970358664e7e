"""Compression around a whole image: one door to the decoders of gzip, xz and zstd.

Only what carries the proof of its own end counts as decoded: see Decoder.readinto.
"""

from collections.abc import Iterator

from importer.api.failure import Failure
from importer.disk.decoding import Decoder, Feed, StepDecoder
from importer.disk.image import Wrapper
from importer.disk.reads import Reads, Span
from importer.disk.wrapper_gzip import GzipDecoder
from importer.disk.wrapper_xz import XzDecoder, decode_block
from importer.disk.wrapper_zstd import ZstdDecoder
from importer.disk.xz_index import XzBlock, read_index
from importer.disk.zstd_frames import content_size

__all__ = ["Decoder", "Feed", "decode_block", "decode_head", "decoded_size_hint", "open_decoder"]


def open_decoder(wrapper: Wrapper, feed: Feed, *, memory: int) -> Decoder:
    """Return a decoder of all that `feed` yields, in sequence, with windows or dictionaries of at most `memory` bytes."""
    return _open(wrapper, feed, memory)


def _open(wrapper: Wrapper, feed: Feed, memory: int) -> StepDecoder:
    match wrapper:
        case Wrapper.GZIP:
            return GzipDecoder(feed)
        case Wrapper.XZ:
            return XzDecoder(feed, memory=memory)
        case Wrapper.ZSTD:
            return ZstdDecoder(feed, memory=memory)


class _Bytes:
    """A feed of bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self, size: int, /) -> bytes:
        part = self._data[self._at : self._at + size]
        self._at += len(part)
        return part


def decode_head(wrapper: Wrapper, head: bytes, want: int, *, memory: int) -> bytes:
    """Return up to `want` decoded bytes of an object that begins with `head`.

    `head` may be cut anywhere: fewer bytes come back then. Raises Failure as open_decoder's decoder does, save "truncated".
    """
    return b"".join(_pieces(_open(wrapper, _Bytes(head), memory), want))


def _pieces(decoder: StepDecoder, want: int) -> Iterator[bytes]:
    buffer = memoryview(bytearray(min(want, 64 << 10)))
    while want:
        try:
            got = decoder.step(buffer[:want])
        except Failure as failure:
            if failure.code != "truncated":
                raise
            return
        if not got:
            return
        yield bytes(buffer[:got])
        want -= got


def decoded_size_hint(wrapper: Wrapper, head: bytes, tail: bytes, length: int) -> int | None:
    """Return how many bytes an object of `length` bytes claims to decode to, or None if these ends of it do not tell.

    xz: the total of the index, if `tail` (xz_index.TAIL bytes or more) reaches it. zstd: what the first frame
    states; more may follow. gzip cannot tell. Raises Failure for an xz index that contradicts itself.
    """
    match wrapper:
        case Wrapper.GZIP:
            return None
        case Wrapper.ZSTD:
            return content_size(head)
        case Wrapper.XZ:
            blocks = _index_within(head, tail, length)
            return None if blocks is None else sum(block.uncompressed_size for block in blocks)


def _index_within(head: bytes, tail: bytes, length: int) -> tuple[XzBlock, ...] | None:
    reads: Reads[tuple[XzBlock, ...]] = read_index(length)
    try:
        wanted = next(reads)
        while True:
            parts = [_part(span, head, tail, length) for span in wanted]
            known = tuple(part for part in parts if part is not None)
            if len(known) < len(parts):
                return None
            wanted = reads.send(known)
    except StopIteration as end:
        blocks: tuple[XzBlock, ...] = end.value
        return blocks
    except Failure as failure:
        if failure.code == "unsupported":
            return None
        raise


def _part(span: Span, head: bytes, tail: bytes, length: int) -> bytes | None:
    if span.end <= len(head):
        return head[span.start : span.end]
    before = length - len(tail)
    return tail[span.start - before : span.end - before] if span.start >= before else None
