"""The wrappers' decoders against objects made by the real tools: whole, cut, joined, damaged, too demanding."""

import dataclasses
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import pytest

from importer.api.failure import Failure
from importer.disk import xz_index
from importer.disk.image import Wrapper
from importer.disk.reads import over
from importer.disk.wrappers import decode_block, decode_head, decoded_size_hint, open_decoder

MIB = 1 << 20
ROOT = Path(__file__).parents[2]
SKIPPABLE = b"\x50\x2a\x4d\x18" + (9).to_bytes(4, "little") + b"skip this"
EXECUTABLE = Path(sys.executable).read_bytes()


def payload(size: int) -> bytes:
    """Return bytes like a disk's: code, holes, noise, and an end that the last block cannot compress."""
    part = size // 4
    noise = random.Random(7).randbytes(part)
    code = (EXECUTABLE * (1 + part // len(EXECUTABLE)))[:part]
    return code + bytes(part) + noise + code[: part // 2] + noise[: size - 3 * part - part // 2]


BIG = payload(5 * MIB + 11)
SMALL = payload(400_000)
OTHER = bytes(range(256)) * 40


def tool(command: str, data: bytes) -> bytes:
    return subprocess.run(command.split(), input=data, capture_output=True, check=True, timeout=60).stdout


@dataclasses.dataclass(frozen=True)
class Made:
    """An object made of members, each with what it decodes to; cut between two of them it is whole."""

    wrapper: Wrapper
    members: tuple[tuple[bytes, bytes], ...]

    @property
    def data(self) -> bytes:
        return b"".join(data for data, _ in self.members)

    @property
    def text(self) -> bytes:
        return b"".join(text for _, text in self.members)

    def whole_at(self) -> dict[int, bytes]:
        ends, place, text = {}, 0, b""
        for data, decoded in self.members:
            place, text = place + len(data), text + decoded
            ends[place] = text
        return ends


CASES: dict[str, Callable[[bytes], Made]] = {}


def case(name: str, wrapper: Wrapper, *commands: str | bytes) -> None:
    """Note an object whose members are made by commands from the payload (every second one from OTHER), or given as bytes."""

    def make(text: bytes) -> Made:
        texts = cycle((text, OTHER))
        members = [(one, b"") if isinstance(one, bytes) else (tool(one, data := next(texts)), data) for one in commands]
        return Made(wrapper, tuple(members))

    CASES[name] = make


case("gzip", Wrapper.GZIP, "gzip -c")
case("gzip best", Wrapper.GZIP, "gzip -9nc")
case("pigz", Wrapper.GZIP, "pigz -p 2 -c")
case("gzip members", Wrapper.GZIP, "gzip -1c", "pigz -c", "gzip -c")
case("xz", Wrapper.XZ, "xz -1 -T1 -c")
case("xz blocks", Wrapper.XZ, "xz -1 -T2 --block-size=1MiB -c")
case("xz small blocks", Wrapper.XZ, "xz -0 -T2 --block-size=64KiB -C sha256 -c")
case("xz streams", Wrapper.XZ, "xz -0 -c", bytes(8), "xz -0 -C crc32 -c", "xz -0 -C none -c", bytes(4))
case("zstd", Wrapper.ZSTD, "zstd -q -c")
case("zstd best", Wrapper.ZSTD, "zstd -q -19 -c")
case("zstd unchecked", Wrapper.ZSTD, "zstd -q --no-check -c")
case("zstd long", Wrapper.ZSTD, "zstd -q --long=27 -c")
case("zstd frames", Wrapper.ZSTD, SKIPPABLE, "zstd -q -1 -c", SKIPPABLE, "zstd -q --no-check -c", "zstd -q -c", SKIPPABLE)
CASES["zstd sized"] = lambda text: Made(Wrapper.ZSTD, ((tool(f"zstd -q --stream-size={len(text)} -c", text), text),))
CASES["zstd and nothing"] = lambda text: Made(
    Wrapper.ZSTD, ((tool("zstd -q -c", b""), b""), (tool("zstd -q -c", text), text), (tool("zstd -q -c", b""), b""))
)
CASES["gzip and nothing"] = lambda text: Made(
    Wrapper.GZIP, ((tool("gzip -c", b""), b""), (tool("gzip -c", text), text), (tool("gzip -c", b""), b""))
)
CASES["xz and nothing"] = lambda text: Made(
    Wrapper.XZ, ((tool("xz -c", b""), b""), (tool("xz -0c", text), text), (tool("xz -c", b""), b""))
)
CHECKED = [name for name in CASES if name not in {"zstd unchecked", "zstd frames", "xz streams"}]
MEMO: dict[tuple[str, int], Made] = {}


def made(name: str, text: bytes) -> Made:
    key = name, len(text)
    if key not in MEMO:
        MEMO[key] = CASES[name](text)
    return MEMO[key]


class Pieces:
    """A feed of bytes in memory, in pieces whose sizes come from `size`."""

    def __init__(self, data: bytes, size: Callable[[], int] = lambda: 1 << 30) -> None:
        self.data = data
        self.at = 0
        self.size = size

    def read(self, size: int, /) -> bytes:
        part = self.data[self.at : self.at + min(size, self.size())]
        self.at += len(part)
        return part


def drain(decoder, size: int = MIB) -> bytes:
    """Read a decoder to its verified end through one buffer of `size` bytes."""
    buffer, out = memoryview(bytearray(size)), bytearray()
    while True:
        got = decoder.readinto(buffer)
        out += buffer[:got]
        if got < size:
            assert decoder.readinto(buffer) == 0
            return bytes(out)


def decode(wrapper: Wrapper, data: bytes, memory: int = 256 * MIB) -> bytes:
    return drain(open_decoder(wrapper, Pieces(data), memory=memory))


def outcome(call: Callable[[], bytes]) -> str | bytes:
    """Return what was decoded, or the code of the Failure instead."""
    try:
        return call()
    except Failure as failure:
        return failure.code


@pytest.mark.parametrize("name", CASES)
def test_a_whole_object_decodes_as_its_tool_decodes_it(name):
    whole = made(name, BIG)
    decoded = decode(whole.wrapper, whole.data)
    assert decoded == whole.text
    assert decoded == tool(f"{whole.wrapper} -q -dc --memory=256MiB" if "zstd" in name else f"{whole.wrapper} -dc", whole.data)


@pytest.mark.parametrize("name", CASES)
def test_neither_the_feeds_pieces_nor_the_buffers_size_matter(name):
    whole = made(name, SMALL)
    assert drain(open_decoder(whole.wrapper, Pieces(whole.data, lambda: 1), memory=256 * MIB)) == whole.text
    rng = random.Random(3)
    for size in (1 << 20, 70_001, 999):
        feed = Pieces(whole.data, lambda: rng.randint(1, 5000))
        assert drain(open_decoder(whole.wrapper, feed, memory=256 * MIB), size) == whole.text
    tiny = made(name, OTHER)
    for size in (1, 7):
        assert drain(open_decoder(tiny.wrapper, Pieces(tiny.data), memory=256 * MIB), size) == tiny.text


@pytest.mark.parametrize("name", CASES)
def test_a_cut_object_is_truncated_unless_cut_between_members(name):
    whole = made(name, SMALL)
    data, ends = whole.data, whole.whole_at()
    rng = random.Random(5)
    edges = {place + near for place in [0, *ends] for near in range(-13, 14)}
    cuts = {*edges, *ends, *(rng.randrange(len(data)) for _ in range(50))}
    for cut in sorted(cut for cut in cuts if 0 <= cut < len(data)):
        inside_padding = not any(data[cut - 4 : cut]) and "xz" in name and cut % 4 == 0 and cut
        before = max((end for end in ends if end <= cut), default=0)
        expected = ends[before] if cut in ends or inside_padding else "truncated"
        assert outcome(lambda cut=cut: decode(whole.wrapper, data[:cut])) == expected, cut


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("garbage", [b"x", b"garbage that is longer than any header", b"\x50\x4b\x03\x04" * 9, b"\0\1"])
def test_garbage_after_the_last_member_is_corrupt(name, garbage):
    whole = made(name, OTHER)
    assert outcome(lambda: decode(whole.wrapper, whole.data + garbage)) == "corrupt"


def test_padding_after_the_last_member_is_what_the_format_says():
    gzip, xz, zstd = (made(name, OTHER) for name in ("gzip", "xz", "zstd"))
    for size in (1, 4, 511, 70_000):
        assert decode(Wrapper.GZIP, gzip.data + bytes(size)) == OTHER
        assert outcome(lambda size=size: decode(Wrapper.GZIP, gzip.data + bytes(size) + gzip.data)) == "corrupt"
        assert outcome(lambda size=size: decode(Wrapper.ZSTD, zstd.data + bytes(size))) == "corrupt"
        padded = outcome(lambda size=size: decode(Wrapper.XZ, xz.data + bytes(size)))
        assert padded == ("truncated" if size % 4 else OTHER)
    assert decode(Wrapper.XZ, xz.data + bytes(70_000) + xz.data) == OTHER * 2
    assert outcome(lambda: decode(Wrapper.XZ, xz.data + bytes(3) + xz.data)) == "corrupt"
    assert outcome(lambda: decode(Wrapper.XZ, bytes(4) + xz.data)) == "corrupt"


@pytest.mark.parametrize("wrapper", Wrapper)
def test_what_is_no_member_at_all_is_never_decoded(wrapper):
    assert outcome(lambda: decode(wrapper, b"")) == "truncated"
    assert outcome(lambda: decode(wrapper, b"<html>not an image</html>")) == "corrupt"
    assert outcome(lambda: decode(wrapper, b"\0")) == "corrupt"


@pytest.mark.parametrize("name", CHECKED)
def test_a_flipped_bit_never_gives_other_data(name):
    whole = made(name, SMALL)
    rng = random.Random(11)
    places = [*range(24), *range(len(whole.data) - 40, len(whole.data)), *(rng.randrange(len(whole.data)) for _ in range(60))]
    failed = 0
    for place in places:
        bad = bytearray(whole.data)
        bad[place] ^= 1 << rng.randrange(8)
        end = outcome(lambda bad=bad: decode(whole.wrapper, bytes(bad)))
        assert end in {whole.text, "corrupt", "truncated", "unsupported", "decoder-memory"}
        failed += end != whole.text
    assert failed > 60


class Alarmed(Pieces):
    """A feed that remembers how much was asked of it."""

    taken = 0

    def read(self, size: int, /) -> bytes:
        part = super().read(size)
        self.taken += len(part)
        return part


@pytest.mark.parametrize(
    ("wrapper", "command", "needed"),
    [
        (Wrapper.ZSTD, "zstd -q --long=27 -c", 128 * MIB),
        (Wrapper.ZSTD, "zstd -q --ultra -22 -c", 128 * MIB),
        (Wrapper.XZ, "xz --lzma2=preset=0,dict=64MiB -c", 64 * MIB),
        (Wrapper.XZ, "xz --x86 --lzma2=preset=0,dict=64MiB -c", 64 * MIB),
    ],
)
def test_a_window_beyond_the_limit_is_refused_before_decoding(wrapper, command, needed):
    data = tool(command, OTHER)
    assert decode(wrapper, data, memory=needed) == OTHER
    feed = Alarmed(data, lambda: 100)
    buffer = bytearray(b"untouched" * 10)
    with pytest.raises(Failure) as caught:
        open_decoder(wrapper, feed, memory=needed - 1).readinto(memoryview(buffer))
    assert caught.value.code == "decoder-memory"
    assert (caught.value.evidence["needed"], caught.value.evidence["allowed"]) == (str(needed), str(needed - 1))
    assert buffer == b"untouched" * 10
    later = made("zstd" if wrapper is Wrapper.ZSTD else "xz", OTHER).data + data
    assert outcome(lambda: decode(wrapper, later, memory=8 * MIB)) == "decoder-memory"


def blocks_of(data: bytes) -> tuple[xz_index.XzBlock, ...]:
    return over(data, xz_index.read_index(len(data)))


def join(*streams: bytes) -> bytes:
    """Make one xz stream out of streams of one block each."""
    parts, numbers = [], [len(streams)]
    for stream in streams:
        (block,) = blocks_of(stream)
        parts.append(stream[block.start : block.end])
        numbers += [block.unpadded_size, block.uncompressed_size]
    index = b"\0" + b"".join(map(xz_index._encoded, numbers))
    index += bytes(-len(index) % 4)
    index += zlib.crc32(index).to_bytes(4, "little")
    footer = (len(index) // 4 - 1).to_bytes(4, "little") + b"\0\4"
    return xz_index.stream_header(4) + b"".join(parts) + index + zlib.crc32(footer).to_bytes(4, "little") + footer + b"YZ"


def test_a_later_xz_block_with_a_larger_dictionary_is_refused_too():
    data = join(tool("xz -0 -c", OTHER), tool("xz --lzma2=preset=0,dict=64MiB -c", SMALL))
    assert decode(Wrapper.XZ, data, memory=64 * MIB) == OTHER + SMALL
    assert outcome(lambda: decode(Wrapper.XZ, data, memory=8 * MIB)) == "decoder-memory"


def test_zstd_that_needs_a_dictionary_is_unsupported(tmp_path):
    samples = []
    for count in range(200):
        sample = tmp_path / f"sample{count}"
        sample.write_bytes(EXECUTABLE[count * 500 : count * 500 + 900])
        samples.append(str(sample))
    command = ["zstd", "-q", "-f", "--train", *samples, "--maxdict=4096", "-o", str(tmp_path / "dictionary")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    data = tool(f"zstd -q -D {tmp_path / 'dictionary'} -c", OTHER)
    assert outcome(lambda: decode(Wrapper.ZSTD, data)) == "unsupported"


@pytest.mark.parametrize("wrapper", Wrapper)
def test_what_the_feed_raises_comes_out_as_it_is(wrapper):
    class Cancelled(Exception):
        pass

    class Breaking(Pieces):
        def read(self, size: int, /) -> bytes:
            if self.at > 50_000:
                raise Cancelled
            return super().read(size)

    whole = made(wrapper.value, SMALL)
    with pytest.raises(Cancelled):
        drain(open_decoder(wrapper, Breaking(whole.data, lambda: 5000), memory=256 * MIB), 1000)


@pytest.mark.parametrize("name", ["xz", "xz blocks", "xz small blocks", "xz streams"])
def test_blocks_decoded_side_by_side_make_the_whole(name):
    whole = made(name, BIG)
    out = memoryview(bytearray(len(whole.text) + 1))

    def put(block: xz_index.XzBlock) -> None:
        feed = Pieces(whole.data[block.start : block.end], lambda: 100_000)
        place, size = block.uncompressed_offset, block.uncompressed_size
        decoder = decode_block(block, feed, memory=8 * MIB)
        assert decoder.readinto(out[place : place + size]) == size
        assert decoder.readinto(memoryview(bytearray(1))) == 0

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(put, blocks_of(whole.data)))
    assert out[:-1] == whole.text


def test_a_block_that_is_not_what_the_index_says_is_refused():
    whole = made("xz small blocks", SMALL)
    blocks = blocks_of(whole.data)
    block, after = blocks[1], blocks[2]

    def end(block: xz_index.XzBlock, data: bytes | None = None, memory: int = 8 * MIB) -> str | bytes:
        data = whole.data[block.start : block.end] if data is None else data
        return outcome(lambda: drain(decode_block(block, Pieces(data), memory=memory)))

    data = whole.data[block.start : block.end]
    assert end(block) == whole.text[1 << 16 : 2 << 16]
    for change in ({"uncompressed_size": 65535}, {"uncompressed_size": 65537}, {"uncompressed_size": 0}):
        assert end(dataclasses.replace(block, **change)) == "corrupt"
    assert end(dataclasses.replace(block, unpadded_size=block.unpadded_size - 4)) == "corrupt"
    assert end(dataclasses.replace(block, check=1)) == "corrupt"
    assert end(dataclasses.replace(block, end=after.end, uncompressed_size=2 << 16)) == "corrupt"
    for cut in (0, 1, 11, 12, 500, len(data) - 1):
        assert end(block, data[:cut]) in {"truncated", "corrupt"}
    assert end(block, memory=1 << 16) == "decoder-memory"
    for place in (*range(24), 400, 9000, *range(len(data) - 36, len(data))):
        bad = bytearray(data)
        bad[place] ^= 1
        assert end(block, bytes(bad)) in {"corrupt", "unsupported", "decoder-memory", "truncated"}


def test_a_whole_stream_in_the_place_of_a_block_is_corrupt():
    inner = tool("xz -0 -c", OTHER)
    (block,) = blocks_of(inner)
    region = inner[block.start :] + xz_index.stream_header(4) + inner[block.start : block.end]
    posing = dataclasses.replace(block, end=block.start + len(region), unpadded_size=len(region))
    for size in (len(OTHER), 2 * len(OTHER)):
        claim = dataclasses.replace(posing, uncompressed_size=size)
        assert outcome(lambda claim=claim: drain(decode_block(claim, Pieces(region), memory=8 * MIB))) == "corrupt"


@pytest.mark.parametrize("name", CASES)
def test_a_head_decodes_as_far_as_it_goes(name):
    whole = made(name, BIG)
    assert decode_head(whole.wrapper, whole.data[:65536], 4096, memory=256 * MIB) == BIG[:4096]
    assert decode_head(whole.wrapper, whole.data, len(BIG) * 9, memory=256 * MIB) == whole.text
    some = decode_head(whole.wrapper, whole.data[: MIB // 4], 1 << 30, memory=256 * MIB)
    assert some == whole.text[: len(some)]
    assert "best" in name or len(some) > 65536
    for size in range(30):
        assert len(decode_head(whole.wrapper, whole.data[:size], 4096, memory=256 * MIB)) <= 512


@pytest.mark.parametrize("wrapper", Wrapper)
def test_a_damaged_head_is_corrupt(wrapper):
    whole = made(wrapper.value, SMALL)
    bad = whole.data[:3000] + random.Random(1).randbytes(50_000)
    assert outcome(lambda: decode_head(wrapper, bad, MIB, memory=256 * MIB)) == "corrupt"
    assert outcome(lambda: decode_head(wrapper, b"no such thing", MIB, memory=256 * MIB)) == "corrupt"


def test_the_decoded_size_is_told_where_head_and_tail_tell_it():
    def hint(name: str, head: int = 65536, tail: int = 65536) -> int | None:
        whole = made(name, BIG)
        return decoded_size_hint(whole.wrapper, whole.data[:head], whole.data[-tail:], len(whole.data))

    assert hint("xz") == hint("xz blocks") == hint("zstd sized") == len(BIG)
    assert hint("xz", tail=512) is None
    assert hint("zstd") is None
    assert hint("gzip") is None
    whole = made("xz", BIG)
    with pytest.raises(Failure):
        decoded_size_hint(Wrapper.XZ, whole.data[:65536], whole.data[-65540:-4], len(whole.data) - 4)


MEASURE = """
import resource, sys, threading
from importer.disk.image import Wrapper
from importer.disk.wrappers import open_decoder
def run(path):
    with open(path, "rb", buffering=0) as feed:
        decoder, buffer, total = open_decoder(Wrapper(sys.argv[1]), feed, memory=8 << 20), memoryview(bytearray(1 << 20)), 0
        while got := decoder.readinto(buffer):
            total += got
        assert total == int(sys.argv[2]), total
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
threads = [threading.Thread(target=run, args=(path,)) for path in sys.argv[3:]]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    ("wrapper", "command"),
    [(Wrapper.GZIP, "pigz -1c"), (Wrapper.XZ, "xz -0 --lzma2=preset=0,dict=8MiB -c"), (Wrapper.ZSTD, "zstd -q -19 -c")],
)
def test_two_decoders_at_once_need_their_windows_and_little_more(wrapper, command, tmp_path):
    text = BIG[-2 * MIB :] * 2 + bytes(60 * MIB)
    path = tmp_path / "wrapped"
    path.write_bytes(tool(command, text))
    argv = [sys.executable, "-c", MEASURE, wrapper.value, str(len(text)), str(path), str(path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, check=True, text=True, timeout=60)
    assert int(done.stdout) < 2 * (8 + 4) << 10
