"""The zstd frame tracker: boundaries, windows and refusals, on frames made by libzstd and by hand."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk.zstd_frames import MAGIC, ZstdFrames, content_size

TEXT = bytes(range(256)) * 3000 + bytes(400_000)
SKIPPABLE = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
ENDS = {"fine", "corrupt", "truncated", "unsupported", "decoder-memory"}
EMPTY = zstandard.ZstdCompressor().compress(b"")


def compress(data: bytes, *, checksum: bool = True, size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=checksum, write_content_size=size).compress(data)


def header(descriptor: int, rest: bytes) -> bytes:
    return MAGIC + bytes((descriptor,)) + rest


def tracked(data: bytes, cuts: tuple[int, ...] = (), memory: int = 1 << 31) -> ZstdFrames:
    frames = ZstdFrames(memory=memory)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(places):
        frames.feed(data[start:end])
    return frames


def outcome(call: Callable[[], object]) -> str:
    """Return the code of the Failure that `call` ends in, or "fine"."""
    try:
        call()
    except Failure as failure:
        return failure.code
    return "fine"


def whole(data: bytes) -> ZstdFrames:
    frames = tracked(data)
    frames.end()
    return frames


@pytest.fixture(params=[True, False], ids=["checked", "unchecked"])
def frame(request):
    return compress(TEXT, checksum=request.param)


def test_a_whole_frame_ends_at_a_boundary_and_tells_its_size(frame):
    frames = tracked(frame)
    frames.end()
    assert frames.at_boundary
    assert (frames.frames, frames.content_size, frames.position) == (1, len(TEXT), len(frame))


def test_every_cut_inside_a_frame_is_truncated(frame):
    for cut in range(len(frame)):
        frames = tracked(frame[:cut])
        assert frames.at_boundary == (cut == 0)
        with pytest.raises(Failure) as caught:
            frames.end()
        assert caught.value.code == "truncated"


@given(cuts=st.lists(st.integers(0, 1 << 20)).map(tuple))
@settings(deadline=None)
def test_the_size_of_the_pieces_does_not_matter(cuts):
    data = SKIPPABLE + compress(TEXT) + EMPTY + SKIPPABLE + compress(TEXT[:1000], checksum=False) + SKIPPABLE
    frames = tracked(data, cuts)
    frames.end()
    assert (frames.frames, frames.skippable, frames.content_size) == (3, 3, len(TEXT) + 1000)


def test_a_frame_fed_byte_by_byte_ends_at_a_boundary():
    data = SKIPPABLE + compress(TEXT) + compress(TEXT)
    tracked(data, tuple(range(len(data)))).end()


def test_a_frame_without_its_size_makes_the_total_unknown():
    assert tracked(compress(TEXT) + compress(TEXT, size=False)).content_size is None


def test_an_empty_object_is_truncated():
    with pytest.raises(Failure) as caught:
        ZstdFrames().end()
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("garbage", [b"x", b"\0", b"\0\0\0\0", b"\x28\xb5\x2f\xfe", b"\x5a\x2a\x4d\x19", b"\x1f\x8b"])
def test_garbage_after_a_frame_is_corrupt_however_short(frame, garbage):
    with pytest.raises(Failure) as caught:
        tracked(frame + garbage)
    assert caught.value.code == "corrupt"


@pytest.mark.parametrize(
    ("data", "window"),
    [
        (header(0x00, b"\x00"), 1 << 10),
        (header(0x00, b"\x57"), (1 << 20) // 8 * 15),
        (header(0x04, b"\x88"), 1 << 27),
        (header(0x20, b"\x07"), 7),
        (header(0x60, b"\x00\x01"), 512),
        (header(0xE0, (1 << 40).to_bytes(8, "little")), 1 << 40),
        (header(0x01, b"\x88\x00"), 1 << 27),
    ],
)
def test_the_window_is_told_and_refused_from_the_header_alone(data, window):
    if window <= 1 << 31:
        frames = tracked(data, memory=window)
        assert frames.latest is not None
        assert frames.latest.window == window
    with pytest.raises(Failure) as caught:
        tracked(data, memory=window - 1)
    assert caught.value.code == "decoder-memory"
    assert caught.value.evidence["needed"] == str(window)


def test_a_later_frame_with_a_larger_window_is_refused_too():
    with pytest.raises(Failure) as caught:
        tracked(EMPTY + SKIPPABLE + header(0x00, b"\x88"), memory=8 << 20)
    assert caught.value.code == "decoder-memory"


@pytest.mark.parametrize("data", [header(0x01, b"\x00\x09"), header(0x23, b"\x01\0\0\0\x07"), header(0x08, b"\x00")])
def test_dictionaries_and_reserved_bits_are_unsupported(data):
    with pytest.raises(Failure) as caught:
        tracked(data)
    assert caught.value.code == "unsupported"


def test_a_block_of_the_reserved_type_is_corrupt():
    with pytest.raises(Failure) as caught:
        tracked(header(0x00, b"\x00") + b"\x07\0\0")
    assert caught.value.code == "corrupt"


def test_the_content_size_is_read_from_the_head_of_a_frame_only():
    assert content_size(compress(TEXT)[:18]) == len(TEXT)
    assert content_size(compress(TEXT[:300])) == 300
    assert content_size(EMPTY) == 0
    assert content_size(compress(TEXT, size=False)) is None
    assert content_size(SKIPPABLE + compress(TEXT)) is None
    assert content_size(compress(TEXT)[:6]) is None
    assert content_size(b"") is None


@given(data=st.binary(max_size=300), lead=st.sampled_from([b"", MAGIC, SKIPPABLE, compress(b"abc"), compress(TEXT)[:50]]))
def test_arbitrary_bytes_end_in_a_failure_or_a_boundary(data, lead):
    assert outcome(lambda: whole(lead + data)) in ENDS
    assert outcome(lambda: content_size(lead + data)) in {"fine", "unsupported"}


@given(flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 7)), min_size=1, max_size=3))
def test_a_frame_with_flipped_bits_never_breaks_the_tracker(flips):
    data = bytearray(compress(TEXT))
    for place, bit in flips:
        data[place % len(data)] ^= 1 << bit
    assert outcome(lambda: whole(bytes(data))) in ENDS
