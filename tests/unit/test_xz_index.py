"""The xz index: where blocks lie, on objects made by liblzma and by hand, and on damaged ones."""

import lzma
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk import xz_index
from importer.disk.reads import Span, over
from importer.disk.xz_index import (
    XzBlock,
    block_dictionary,
    first_dictionary,
    read_index,
    stream_header,
    stream_tail,
)

CODES = {"corrupt", "truncated", "unsupported"}
ENDS = CODES | {"fine"}
TEXTS = (b"first " * 1000, b"second", bytes(5000))


def stream(*texts: bytes, check: int = lzma.CHECK_CRC64) -> bytes:
    """Put a stream of several blocks together from streams of one block, as liblzma's own threads do."""
    bodies, records = [], []
    for text in texts:
        whole = lzma.compress(text, check=check)
        (block,) = over(whole, read_index(len(whole)))
        bodies.append(whole[block.start : block.end])
        records.append((block.unpadded_size, block.uncompressed_size))
    index = b"\0" + b"".join(map(xz_index._encoded, [len(records), *(size for record in records for size in record)]))
    index += bytes(-len(index) % 4)
    return seal(stream_header(check) + b"".join(bodies), index, check)


def seal(front: bytes, index: bytes, check: int = 4) -> bytes:
    """Close a stream by an index (padded, without its CRC) and a footer."""
    index += zlib.crc32(index).to_bytes(4, "little")
    body = (len(index) // 4 - 1).to_bytes(4, "little") + bytes((0, check))
    return front + index + zlib.crc32(body).to_bytes(4, "little") + body + b"YZ"


def blocks_of(data: bytes) -> tuple[XzBlock, ...]:
    return over(data, read_index(len(data)))


def outcome(call: Callable[[], object]) -> str:
    """Return the code of the Failure that `call` ends in, or "fine"."""
    try:
        call()
    except Failure as failure:
        return failure.code
    return "fine"


def code_of(data: bytes) -> str:
    with pytest.raises(Failure) as caught:
        blocks_of(data)
    return caught.value.code


@pytest.mark.parametrize("check", [lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256])
def test_blocks_of_several_streams_with_padding_lie_end_to_end(check):
    first, second = stream(*TEXTS, check=check), stream(TEXTS[0], check=lzma.CHECK_CRC32)
    data = first + bytes(8) + lzma.compress(b"") + second + bytes(70_000)
    assert lzma.decompress(first) == b"".join(TEXTS)
    blocks = blocks_of(data)
    assert [block.uncompressed_size for block in blocks] == [len(text) for text in (*TEXTS, TEXTS[0])]
    assert [block.check for block in blocks] == [check] * 3 + [lzma.CHECK_CRC32]
    offset = 0
    for block in blocks:
        assert block.uncompressed_offset == offset
        assert 0 <= block.end - block.start - block.unpadded_size < 4
        offset += block.uncompressed_size
    assert (blocks[0].start, blocks[1].start) == (12, blocks[0].end)
    assert data[blocks[3].start - 12 : blocks[3].start - 6] == b"\xfd7zXZ\0"


@pytest.mark.parametrize("check", [0, 1, 4, 10])
def test_header_block_and_tail_make_a_stream_that_liblzma_accepts(check):
    data = stream(*TEXTS, check=check)
    for block, text in zip(blocks_of(data), TEXTS, strict=True):
        alone = stream_header(check) + data[block.start : block.end] + stream_tail(block)
        assert lzma.decompress(alone) == text


def test_a_stream_without_blocks_has_none():
    assert blocks_of(lzma.compress(b"")) == ()


def test_spans_stay_within_the_object_and_a_usual_object_takes_two_reads():
    data = stream(*TEXTS)
    reads = read_index(len(data))
    rounds, wanted = 0, next(reads)
    try:
        while True:
            rounds += 1
            assert all(isinstance(span, Span) and 0 <= span.start < span.end <= len(data) for span in wanted)
            wanted = reads.send(tuple(data[span.start : span.end] for span in wanted))
    except StopIteration:
        assert rounds == 2


def test_every_cut_is_refused():
    data = stream(*TEXTS)
    for cut in range(len(data)):
        assert code_of(data[:cut]) in {"truncated", "corrupt"}


def test_bytes_missing_in_the_middle_are_refused():
    data = stream(*TEXTS)
    assert code_of(data[:40] + data[44:]) == "corrupt"
    assert code_of(data[4:]) == "corrupt"
    assert code_of(b"more" + data) == "corrupt"


def test_garbage_and_odd_padding_are_refused():
    data = stream(*TEXTS)
    assert code_of(data + b"junk") == "truncated"
    assert code_of(data + b"\0\0") == "truncated"
    assert code_of(data + bytes(2) + stream(b"x") + bytes(2)) == "corrupt"
    assert code_of(bytes(64)) == "corrupt"


def test_every_flipped_bit_of_index_footer_and_header_is_noticed():
    data = stream(*TEXTS)
    last = blocks_of(data)[-1].end
    for place in [*range(12), *range(last, len(data))]:
        for bit in range(8):
            bad = bytearray(data)
            bad[place] ^= 1 << bit
            assert code_of(bytes(bad)) in CODES


def test_absurd_counts_are_refused_before_they_cost_memory(monkeypatch):
    many = b"\0" + xz_index._encoded(1 << 60) + b"\1" * 6
    assert code_of(seal(stream_header(4), many + bytes(-len(many) % 4))) == "corrupt"
    monkeypatch.setattr(xz_index, "MAX_BLOCKS", 2)
    assert code_of(stream(*TEXTS)) == "unsupported"
    monkeypatch.setattr(xz_index, "MAX_STREAMS", 3)
    assert code_of(lzma.compress(b"") * 5) == "unsupported"
    monkeypatch.setattr(xz_index, "MAX_PADDING", 4096)
    assert code_of(stream(b"x") + bytes(200_000)) == "unsupported"
    monkeypatch.setattr(xz_index, "MAX_INDEX", 8)
    assert code_of(stream(b"x", b"y")) == "unsupported"


def test_an_index_that_claims_more_bytes_than_the_object_has_is_corrupt():
    index = b"\0\1" + xz_index._encoded(1 << 50) + b"\1"
    assert code_of(seal(stream_header(4), index + bytes(-len(index) % 4))) == "corrupt"
    footer = (1 << 20).to_bytes(4, "little") + b"\0\4"
    assert code_of(stream(b"x") + bytes(28) + zlib.crc32(footer).to_bytes(4, "little") + footer + b"YZ") == "corrupt"


def test_a_check_that_nobody_can_verify_is_unsupported():
    assert code_of(seal(stream_header(5), b"\0\0\0\0", check=5)) == "unsupported"


@pytest.mark.parametrize("size", [1 << 12, 3 << 15, 8 << 20, 64 << 20, 1536 << 20, (1 << 32) - 1])
def test_the_dictionary_is_read_from_the_block_header(size):
    bits = next(bits for bits in range(41) if xz_index._dictionary(bytes((bits,))) >= size)
    body = b"\x02\x00\x21\x01" + bytes((bits,)) + bytes(3)
    header = body + zlib.crc32(body).to_bytes(4, "little")
    assert block_dictionary(header + b"data") == size
    assert first_dictionary(stream_header(1) + header) == size


@pytest.mark.parametrize("dictionary", [1 << 16, 3 << 19, 8 << 20])
def test_the_dictionary_is_found_behind_other_filters(dictionary):
    chain = [
        {"id": lzma.FILTER_X86},
        {"id": lzma.FILTER_DELTA, "dist": 4},
        {"id": lzma.FILTER_LZMA2, "dict_size": dictionary, "preset": 0},
    ]
    assert first_dictionary(lzma.compress(TEXTS[0], filters=chain)) == dictionary


def test_a_head_too_short_tells_no_dictionary():
    data = lzma.compress(TEXTS[0])
    assert first_dictionary(data[:12]) is None
    assert first_dictionary(data[:20]) is None
    assert first_dictionary(lzma.compress(b"")) == 0


def test_every_flipped_bit_of_a_block_header_is_noticed():
    header = lzma.compress(TEXTS[0])[12:24]
    assert block_dictionary(header) == 8 << 20
    for place in range(12):
        for bit in range(8):
            bad = bytearray(header)
            bad[place] ^= 1 << bit
            with pytest.raises(Failure) as caught:
                block_dictionary(bytes(bad))
            assert caught.value.code in CODES


@given(data=st.binary(max_size=200), lead=st.sampled_from([b"", stream_header(4)]), tail=st.sampled_from([b"", stream(b"x")]))
def test_arbitrary_bytes_end_in_a_failure_or_in_blocks(data, lead, tail):
    whole = lead + data + tail
    whole += bytes(-len(whole) % 4) if data[:1] < b"\x80" else b""
    for parse in (blocks_of, block_dictionary, first_dictionary):
        assert outcome(lambda parse=parse: parse(whole)) in ENDS


@given(index=st.binary(min_size=4, max_size=60), flags=st.sampled_from([4, 1, 10, 0]))
def test_an_arbitrary_index_with_a_right_checksum_ends_in_a_failure_or_in_blocks(index, flags):
    data = seal(stream_header(4) + bytes(64), b"\0" + index[1:] + bytes(-len(index) % 4), flags)
    assert outcome(lambda: blocks_of(data)) in ENDS


@given(properties=st.binary(max_size=30))
def test_an_arbitrary_block_header_with_a_right_checksum_ends_in_a_failure_or_a_size(properties):
    body = properties[:1] + properties[1:] + bytes(-(len(properties) + 1) % 4)
    body = bytes((len(body) // 4 + 1,)) + body
    body += bytes(-len(body) % 4)
    header = body + zlib.crc32(body).to_bytes(4, "little")
    if outcome(lambda: block_dictionary(header)) not in CODES:
        assert 4096 <= block_dictionary(header) < 1 << 32
