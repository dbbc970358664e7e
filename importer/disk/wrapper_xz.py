"""xz around an image: the whole object in sequence, or one block of it."""

import lzma

from importer.api.failure import Failure
from importer.disk.decoding import OUTPUT, Decoder, Feed, Intake, StepDecoder
from importer.disk.xz_index import (
    HEADER_MAGIC,
    HEADER_SIZE,
    LARGEST_BLOCK_HEADER,
    XzBlock,
    first_dictionary,
    stream_header,
    stream_tail,
)

_SLICE = 64 << 10
"""Bytes; liblzma's Python wrapper keeps a copy of what it could not use yet."""
_OVERHEAD = 1 << 20
"""Bytes that liblzma needs besides the dictionary, generously."""


class XzDecoder(StepDecoder):
    """Decodes the streams of an xz object one after the other, with padding between and after them."""

    def __init__(self, feed: Feed, *, memory: int) -> None:
        """Decode what `feed` yields with dictionaries of at most `memory` bytes."""
        self._intake = Intake(feed, largest=_SLICE)
        self._memory = memory
        self._stream: lzma.LZMADecompressor | None = None
        self._streams = 0
        self._ended = False

    def step(self, room: memoryview) -> int:
        """See StepDecoder."""
        while not self._ended:
            stream = self._stream
            if stream is None:
                self._begin()
                continue
            out = self._decompress(stream, min(len(room), OUTPUT))
            if stream.eof:
                self._intake.give_back(stream.unused_data)
                self._stream = None
            if out:
                room[: len(out)] = out
                return len(out)
        return 0

    def _decompress(self, stream: lzma.LZMADecompressor, limit: int) -> bytes:
        hungry = stream.needs_input
        data = self._intake.take() if hungry else b""
        try:
            out = stream.decompress(data, limit)
        except lzma.LZMAError as error:
            raise self._failure(error) from error
        if hungry and not data and not out and not stream.eof:
            raise Failure("truncated", "the xz data ends inside a stream", whole_streams=self._streams - 1)
        return out

    def _failure(self, error: lzma.LZMAError) -> Failure:
        text = str(error)
        if "Memory usage limit" in text:
            # Only a block after a stream's first gets here: the first was judged by `_begin`, which can name the size.
            return self._too_large("more, in a later block")
        if "unsupported options" in text:
            return Failure("unsupported", "the xz data uses an option that liblzma does not know", stream=self._streams)
        return Failure("corrupt", "the xz data is damaged", decoder=text, stream=self._streams)

    def _too_large(self, needed: object) -> Failure:
        cause = "an xz block needs a larger dictionary than allowed"
        return Failure("decoder-memory", cause, needed=needed, allowed=self._memory)

    def _begin(self) -> None:
        """Open the next stream, or find the end."""
        padding = self._intake.skip_zeroes() if self._streams else 0
        head = self._intake.peek(HEADER_SIZE + LARGEST_BLOCK_HEADER)
        if self._streams and not head and not padding % 4:
            self._ended = True
            return
        if len(head) < len(HEADER_MAGIC) and HEADER_MAGIC.startswith(head):
            raise Failure("truncated", "the xz data ends inside a stream header or padding", whole_streams=self._streams)
        if padding % 4 or not head.startswith(HEADER_MAGIC):
            raise Failure("corrupt", "bytes that are no xz stream stand where one should begin", whole_streams=self._streams)
        dictionary = first_dictionary(head)
        if dictionary is not None and dictionary > self._memory:
            raise self._too_large(dictionary)
        self._intake.restart()
        self._streams += 1
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=self._memory + _OVERHEAD)


class _BlockAsStream:
    """One block's bytes dressed as a stream of a single block, for a library that decodes and checks whole streams only."""

    def __init__(self, block: XzBlock, feed: Feed) -> None:
        self._header = stream_header(block.check)
        self._tail = stream_tail(block)
        self._left = block.end - block.start
        self._feed = feed

    def read(self, size: int, /) -> bytes:
        if self._header:
            header, self._header = self._header, b""
            return header
        if self._left:
            data = self._feed.read(min(size, self._left))
            self._left -= len(data)
            return data
        tail, self._tail = self._tail, b""
        return tail


class _Exactly(StepDecoder):
    """A decoder that must yield so many bytes and not one more."""

    def __init__(self, inner: StepDecoder, size: int) -> None:
        self._inner = inner
        self._left = size

    def step(self, room: memoryview) -> int:
        if not self._left:
            room = memoryview(bytearray(1))
        got = self._inner.step(room[: max(1, self._left)])
        if got > self._left or (self._left and not got):
            raise Failure("corrupt", "an xz block does not decode to the size that its index states", left=self._left)
        self._left -= got
        return got


def decode_block(block: XzBlock, feed: Feed, *, memory: int) -> Decoder:
    """Return a decoder of one block; `feed` yields the bytes block.start..block.end and nothing else.

    It fills exactly block.uncompressed_size bytes; only the short (or empty) read after them says that the
    block's check was verified.
    """
    return _Exactly(XzDecoder(_BlockAsStream(block, feed), memory=memory), block.uncompressed_size)
