"""Where zstd frames begin and end, told from the compressed bytes alone. Pure.

libzstd's streaming readers return short data without an error when their input is cut. `ZstdFrames`
walks the same bytes beside the decoder, one step a block, and knows whether the input ended where a
frame ends; it also refuses what must be refused before a byte of it is decoded: windows beyond the
limit, dictionaries, and bytes that are no frame. The format is RFC 8878.
"""

from dataclasses import dataclass
from enum import Enum, auto

from importer.api.failure import Failure

MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE_TAIL = b"\x2a\x4d\x18"
WIDEST_WINDOW = 1 << 31
"""Bytes; libzstd decodes no larger window on any machine."""

_WINDOW_BYTES = 1
_DICTIONARY_BYTES = (0, 1, 2, 4)
_CONTENT_BYTES = (0, 2, 4, 8)
_CHECKSUM_BYTES = 4
_RLE_BLOCK, _RESERVED_BLOCK = 1, 3


class _Want(Enum):
    """What the next bytes mean."""

    MAGIC = auto()
    SKIPPABLE_SIZE = auto()
    DESCRIPTOR = auto()
    HEADER = auto()
    BLOCK = auto()


_SIZES = {_Want.MAGIC: 4, _Want.SKIPPABLE_SIZE: 4, _Want.DESCRIPTOR: 1, _Want.BLOCK: 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class ZstdFrame:
    """A frame header: the window a decoder must hold and the decoded size (None if not said), in bytes."""

    window: int
    content_size: int | None
    checksum: bool


class ZstdFrames:
    """Follows a zstd object as its bytes come by; raises Failure at the first that cannot stand.

    "decoder-memory" for a window of more than `memory` bytes, "unsupported" for a frame that needs a
    dictionary, "corrupt" for bytes that are no frame.
    """

    def __init__(self, *, memory: int = WIDEST_WINDOW) -> None:
        """Allow windows of at most `memory` bytes."""
        self.frames = 0
        """Frames with content whose header was seen."""
        self.skippable = 0
        self.position = 0
        """Compressed bytes fed so far."""
        self.latest: ZstdFrame | None = None
        """Header of the frame seen last."""
        self.content_size: int | None = 0
        """Sum of the decoded sizes that the frames seen so far state; None once one does not say."""
        self._memory = min(memory, WIDEST_WINDOW)
        self._want = _Want.MAGIC
        self._need = 4
        self._held = b""
        self._skip = 0
        self._descriptor = 0

    @property
    def at_boundary(self) -> bool:
        """True if every frame begun has ended (also before the first)."""
        return self._want is _Want.MAGIC and not self._skip and not self._held

    def feed(self, data: bytes | memoryview, *, one: bool = False) -> int:
        """Take the next compressed bytes, in pieces of any size; with `one` none beyond the end of a frame. Return how many."""
        at, size = 0, len(data)
        while at < size and not (one and at and self.at_boundary):
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
            elif self._want is _Want.BLOCK and not self._held and size - at >= 3:
                self._block(data[at] | data[at + 1] << 8 | data[at + 2] << 16)
                at += 3
            else:
                part = data[at : at + self._need - len(self._held)]
                self._held += part
                at += len(part)
                self._check_magic()
                if len(self._held) == self._need:
                    field, self._held = self._held, b""
                    self._take(field, self.position + at)
        self.position += at
        return at

    def end(self) -> None:
        """Say that the object ends here. Raises Failure("truncated") inside a frame and for an empty object."""
        if not self.at_boundary or not self.frames + self.skippable:
            raise Failure("truncated", "the zstd data ends inside a frame", length=self.position)

    def _check_magic(self) -> None:
        """Refuse the first byte that no frame can begin with, so that garbage is not mistaken for a cut frame."""
        if self._want is not _Want.MAGIC:
            return
        held = self._held
        skippable = held[0] & 0xF0 == 0x50 and SKIPPABLE_TAIL.startswith(held[1:])
        if not MAGIC.startswith(held) and not skippable:
            raise Failure("corrupt", "bytes that are no zstd frame stand where a frame should begin", after_frames=self.frames)

    def _expect(self, want: _Want, need: int | None = None) -> None:
        self._want = want
        self._need = _SIZES[want] if need is None else need

    def _take(self, field: bytes, position: int) -> None:
        match self._want:
            case _Want.MAGIC:
                self._expect(_Want.DESCRIPTOR if field == MAGIC else _Want.SKIPPABLE_SIZE)
            case _Want.SKIPPABLE_SIZE:
                self.skippable += 1
                self._skip = int.from_bytes(field, "little")
                self._expect(_Want.MAGIC)
            case _Want.DESCRIPTOR:
                self._descriptor = field[0]
                self._expect(_Want.HEADER, _header_size(field[0]))
            case _Want.HEADER:
                self._open(parse_header(self._descriptor, field), position)
            case _Want.BLOCK:
                self._block(int.from_bytes(field, "little"))

    def _open(self, frame: ZstdFrame, position: int) -> None:
        if frame.window > self._memory:
            raise Failure(
                "decoder-memory",
                "a zstd frame needs a larger window than allowed",
                needed=frame.window,
                allowed=self._memory,
                offset=position,
            )
        self.latest = frame
        self.frames += 1
        known, more = self.content_size, frame.content_size
        self.content_size = None if known is None or more is None else known + more
        self._expect(_Want.BLOCK)

    def _block(self, header: int) -> None:
        kind, size = header >> 1 & 3, header >> 3
        if kind == _RESERVED_BLOCK:
            raise Failure("corrupt", "a zstd block has the reserved type", frame=self.frames)
        self._skip = 1 if kind == _RLE_BLOCK else size
        if header & 1:
            assert self.latest is not None
            self._skip += _CHECKSUM_BYTES if self.latest.checksum else 0
            self._expect(_Want.MAGIC)


def _header_size(descriptor: int) -> int:
    """Return the bytes of a frame header after its descriptor: window, dictionary id, content size."""
    single = bool(descriptor & 0x20)
    content = 1 if single and not descriptor >> 6 else _CONTENT_BYTES[descriptor >> 6]
    return (0 if single else _WINDOW_BYTES) + _DICTIONARY_BYTES[descriptor & 3] + content


def parse_header(descriptor: int, rest: bytes) -> ZstdFrame:
    """Return what a frame header says; `rest` are the bytes after the descriptor, exactly as many as it announces."""
    if descriptor & 0x08:
        raise Failure("unsupported", "a zstd frame sets a reserved bit", descriptor=hex(descriptor))
    single = bool(descriptor & 0x20)
    at = 0 if single else _WINDOW_BYTES
    after = at + _DICTIONARY_BYTES[descriptor & 3]
    dictionary = int.from_bytes(rest[at:after], "little")
    if dictionary:
        raise Failure("unsupported", "a zstd frame needs a dictionary that is not part of it", dictionary=dictionary)
    content = int.from_bytes(rest[after:], "little") if len(rest) > after else None
    if content is not None and len(rest) - after == 2:
        content += 256
    if single:
        assert content is not None
        window = content
    else:
        base = 1 << (10 + (rest[0] >> 3))
        window = base + (base >> 3) * (rest[0] & 7)
    return ZstdFrame(window=window, content_size=content, checksum=bool(descriptor & 0x04))


def content_size(head: bytes) -> int | None:
    """Return the decoded size that the first frame states, or None if it does not say or `head` is too short.

    A hint: more frames may follow. None too if a skippable frame leads, as pzstd writes before each of its many frames.
    """
    if len(head) < 5 or not head.startswith(MAGIC):
        return None
    rest = head[5 : 5 + _header_size(head[4])]
    if len(rest) < _header_size(head[4]):
        return None
    return parse_header(head[4], rest).content_size
