"""Every stream ends in a whole cluster or in Failure, whatever is wrong with it, and takes no more memory than a cluster."""

import random
import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk import inflate
from importer.disk.native import Inflate

CLUSTER = 65536
TEXT = (b"".join(b"%06d all the king's horses\n" % number for number in range(3000)))[:CLUSTER]
NOISE = random.Random(5).randbytes(CLUSTER)
MIXED = TEXT[:30_000] + bytes(20_000) + NOISE[: CLUSTER - 50_000]
CONTENTS = {"text": TEXT, "noise": NOISE, "mixed": MIXED, "zeroes": bytes(CLUSTER)}


def raw_deflate(content: bytes, window: int = -12) -> bytes:
    squeeze = zlib.compressobj(6, zlib.DEFLATED, window)
    return squeeze.compress(content) + squeeze.flush()


def as_grain(content: bytes, size: int | None = None) -> bytes:
    stream = zlib.compress(content)
    return struct.pack("<QI", 77, len(stream) if size is None else size) + stream


def zstd_frame(content: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(content)  # type: ignore[arg-type]


PACKERS = {"deflated": raw_deflate, "grain": as_grain, "zstd": zstd_frame}
INFLATERS: dict[str, Inflate] = {"deflated": inflate.deflated, "grain": inflate.grain, "zstd": inflate.Zstd()}
EVERY = pytest.mark.parametrize("kind", PACKERS)


def inflated(kind: str, data: bytes, size: int = CLUSTER) -> bytes:
    out = bytearray(size)
    count = INFLATERS[kind](memoryview(data), memoryview(out))
    assert 0 <= count <= size
    assert not any(out[count:]), "wrote past what it says it holds"
    return bytes(out[:count])


def attempted(kind: str, data: bytes, size: int = CLUSTER) -> bytes | None:
    """Return what it holds, None if it is refused."""
    try:
        return inflated(kind, data, size)
    except Failure as failure:
        if failure.code != "corrupt":
            raise
        return None


@EVERY
@pytest.mark.parametrize("name", CONTENTS)
def test_a_whole_stream_is_a_whole_cluster(kind: str, name: str) -> None:
    assert inflated(kind, PACKERS[kind](CONTENTS[name])) == CONTENTS[name]


@EVERY
def test_a_copied_cluster_is_decoded_like_a_viewed_one(kind: str) -> None:
    out = bytearray(CLUSTER)
    assert INFLATERS[kind](bytearray(PACKERS[kind](MIXED)), memoryview(out)) == CLUSTER
    assert out == MIXED


@EVERY
@given(rest=st.binary(max_size=700))
def test_what_follows_in_the_last_sector_does_no_harm(kind: str, rest: bytes) -> None:
    assert inflated(kind, PACKERS[kind](TEXT) + rest) == TEXT


@EVERY
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_cut_stream_never_passes_for_a_whole_cluster(kind: str, data: st.DataObject) -> None:
    content = CONTENTS[data.draw(st.sampled_from(sorted(CONTENTS)))]
    packed = PACKERS[kind](content)
    cut = data.draw(st.integers(0, len(packed) - 1))
    got = attempted(kind, packed[:cut])
    if got is not None:
        assert got == content[: len(got)]
        # The stream's own end mark may be gone while all of the cluster is there: QEMU takes that too.
        assert len(got) < CLUSTER or len(packed) - cut < 8


@EVERY
def test_every_single_cut_of_a_small_cluster(kind: str) -> None:
    content = TEXT[:600]
    packed = PACKERS[kind](content)
    for cut in range(len(packed)):
        got = attempted(kind, packed[:cut], 600)
        if got is not None:
            assert got == content[: len(got)]
            assert len(got) < 600 or len(packed) - cut < 8


@EVERY
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_flipped_bits_end_in_a_failure_or_in_at_most_a_cluster(kind: str, data: st.DataObject) -> None:
    packed = bytearray(PACKERS[kind](MIXED))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    attempted(kind, bytes(packed))


@EVERY
@settings(deadline=None)
@given(junk=st.binary(max_size=3000))
def test_junk_ends_in_a_failure_or_in_at_most_a_cluster(kind: str, junk: bytes) -> None:
    attempted(kind, junk)


def test_a_grain_with_a_checksum_that_is_wrong_is_refused() -> None:
    packed = bytearray(as_grain(TEXT))
    packed[-1] ^= 1
    with pytest.raises(Failure):
        inflated("grain", bytes(packed))


@pytest.mark.parametrize("kind", ["deflated", "zstd"])
def test_of_a_stream_longer_than_the_cluster_the_cluster_is_taken(kind: str) -> None:
    """As in QEMU, whose buffer ends there."""
    assert inflated(kind, PACKERS[kind](TEXT + NOISE)) == TEXT


def test_a_grain_longer_than_a_grain_is_refused() -> None:
    """As in QEMU, which asks zlib for the end of the stream."""
    with pytest.raises(Failure) as caught:
        inflated("grain", as_grain(TEXT + b"x"))
    assert caught.value.code == "corrupt"


@pytest.mark.parametrize("size", [0, 1, 12, 600, 1 << 20, 1 << 31, (1 << 32) - 1])
def test_a_grain_whose_marker_lies_is_refused(size: int) -> None:
    with pytest.raises(Failure) as caught:
        inflated("grain", as_grain(TEXT, size))
    assert caught.value.code == "corrupt"


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\0" * 12, b"\0" * 12 + b"\x78"])
def test_a_grain_that_is_all_marker_is_refused(data: bytes) -> None:
    with pytest.raises(Failure):
        inflated("grain", data)


def peak_of(kind: str, data: bytes) -> int:
    inflated(kind, PACKERS[kind](TEXT))  # what a decoder keeps for itself is there before
    tracemalloc.start()
    try:
        attempted(kind, data)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak


@EVERY
def test_a_bomb_takes_no_more_memory_than_a_cluster(kind: str) -> None:
    assert peak_of(kind, PACKERS[kind](bytes(64 << 20))) <= 5 * CLUSTER


def zstd_header(*, content: int | None, window: int | None = None) -> bytes:
    """Return a frame header that claims `content` bytes; without a `window` descriptor they are the window too."""
    descriptor = (3 << 6 if content is not None else 0) | (1 << 5 if window is None else 0)
    size = content.to_bytes(8, "little") if content is not None else b""
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + (b"" if window is None else bytes([window])) + size


@pytest.mark.parametrize(
    "header",
    [
        zstd_header(content=10 << 30),
        zstd_header(content=(1 << 64) - 1),
        zstd_header(content=None, window=(31 - 10) << 3),
        zstd_header(content=None, window=0xFF),
        zstd_header(content=10 << 30, window=(24 - 10) << 3),
    ],
    ids=["10-gib", "16-eib", "window-2-gib", "window-max", "window-16-mib"],
)
def test_a_frame_that_claims_a_huge_window_is_refused_before_memory_is_taken(header: bytes) -> None:
    block = (CLUSTER << 3 | 2 | 1).to_bytes(3, "little") + b"r"  # one RLE block, the last
    before = high_water()
    with pytest.raises(Failure) as caught:
        inflated("zstd", header + block)
    assert caught.value.code == "corrupt"
    assert high_water() - before < 64 << 20


def test_a_frame_that_claims_10_gib_in_a_small_window_takes_a_small_window() -> None:
    header = zstd_header(content=10 << 30, window=(17 - 10) << 3)
    blocks = ((1 << 17) << 3 | 2).to_bytes(3, "little") + b"r"
    before = high_water()
    assert inflated("zstd", header + blocks) == b"r" * CLUSTER
    assert high_water() - before < 64 << 20


def high_water() -> int:
    """Return the most memory the process had, in bytes: the C library's own is seen by nothing else."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def test_the_largest_window_that_a_cluster_needs_is_read() -> None:
    content = (TEXT + NOISE) * 16  # 2 MiB
    for level in (1, 3, 19, 22):
        assert inflated("zstd", zstd_frame(content, level=level), len(content)) == content
    wide = zstd_frame(content, compression_params=zstandard.ZstdCompressionParameters(window_log=23))
    assert inflated("zstd", wide, len(content)) == content


@EVERY
def test_many_threads_decode_side_by_side(kind: str) -> None:
    rounds = [(PACKERS[kind](content), content) for content in CONTENTS.values()] * 40

    def one(turn: tuple[bytes, bytes]) -> bool:
        packed, content = turn
        with pytest.raises(Failure):
            inflated(kind, b"\xff" * 100)  # a decoder that failed decodes the next one rightly
        return inflated(kind, packed) == content

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, rounds))
