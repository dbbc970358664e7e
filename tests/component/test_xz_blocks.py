"""Single xz blocks, decoded side by side, and blocks that are not what their index says."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
from wrapped import BIG, MIB, OTHER, SMALL, Pieces, blocks_of, drain, made, outcome, tool

from importer.disk import xz_index
from importer.disk.wrappers import decode_block


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
