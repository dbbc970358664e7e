"""The wrappers' decoders against objects made by the real tools: whole, cut, joined, damaged, too demanding."""

import random
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from wrapped import BIG, CASES, CHECKED, EXECUTABLE, MIB, OTHER, SMALL, Pieces, blocks_of, decode, drain, made, outcome, tool

from importer.api.failure import Failure
from importer.disk import xz_index
from importer.disk.image import Wrapper
from importer.disk.wrappers import decode_head, decoded_size_hint, open_decoder

ROOT = Path(__file__).parents[2]


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
