"""The quarantine of VHD: what honest images tell, what hostile ones are refused for."""

import struct
import time

import pytest
from hostile import vhd_files
from hostile.hostile_file import HostileFile
from hostile.vhd_builder import BLOCK, FREE, TAKEN, Vhd, summed
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk import vhd
from importer.disk.detect import recognise
from importer.disk.examine import examine, unit, walk
from importer.disk.extents import Extents
from importer.disk.image import Format, Image, Limits
from importer.disk.reads import over


def judge(data: bytes, limits: Limits | None = None) -> tuple[Image, Extents]:
    fmt = recognise(data[: 1 << 16], data[-512:], len(data))
    image = over(data, examine(fmt, len(data), limits or Limits()))
    extents = Extents(length=len(data), unit=unit(image))
    over(data, walk(image, len(data), extents))
    return image, extents


def refusal(data: bytes, limits: Limits | None = None) -> Failure:
    with pytest.raises(Failure) as caught:
        judge(data, limits)
    return caught.value


def fixed(content: bytes) -> bytes:
    return content + Vhd(size=len(content), kind=2, data_offset=(1 << 64) - 1).footer()


@pytest.mark.parametrize("file", vhd_files.FILES, ids=lambda file: file.name)
def test_hostile_vhds_are_refused_with_their_code(file: HostileFile) -> None:
    begun = time.process_time()
    assert refusal(file.build()).code == file.code
    assert time.process_time() - begun < 1


def test_an_honest_dynamic_vhd_tells_its_size_and_facts() -> None:
    image, extents = judge(Vhd().build())
    assert (image.format, image.subformat, image.virtual_size) == (Format.VHD, "dynamic", 8 << 20)
    assert image.exact_length
    assert image.raw_span is None
    assert dict(image.notes).items() >= {"version": "1.0", "block size": str(BLOCK), "logical sector size": "512"}.items()
    assert extents.data_bytes == 2 * BLOCK
    assert extents.in_order


def test_a_fixed_vhd_is_its_bytes_without_the_footer() -> None:
    image, extents = judge(fixed(b"d" * 70_144))
    assert (image.subformat, image.virtual_size, image.raw_span) == ("fixed", 70_144, (0, 70_144))
    assert image.exact_length
    assert extents.data_bytes == 70_144


def test_a_guest_cannot_turn_its_fixed_disk_into_a_dynamic_one() -> None:
    for guest in (Vhd(bat=[4, 4, 4, 4]).build(), Vhd(kind=2).build(), Vhd(kind=4).build()):
        image, _ = judge(fixed(guest))
        assert (image.subformat, image.raw_span) == ("fixed", (0, len(guest)))


def test_blocks_may_lie_in_any_order_and_pass_beyond_the_disk() -> None:
    _, extents = judge(Vhd(size=3 * BLOCK + 512, bat=[FREE, Vhd.sector(2), Vhd.sector(0), Vhd.sector(1)], blocks=3).build())
    assert extents.data_bytes == 2 * BLOCK + 512


def test_the_last_block_must_be_there_whole() -> None:
    data = Vhd(size=512, entries=1, bat=[4], blocks=1).build()
    assert judge(data)[1].data_bytes == 512
    cut = data[: 2048 + TAKEN - 512] + data[-512:]
    assert refusal(cut).code in {"truncated", "bomb"}


def test_a_vhd_cut_anywhere_is_refused() -> None:
    data = Vhd().build()
    for length in (512, 1000, 1536, 2047, 2048, 5000, TAKEN, len(data) - 512, len(data) - 1):
        assert refusal(data[:length]).code == "truncated"


def test_the_vhd_size_limit_says_both_numbers() -> None:
    for data in (Vhd().build(), fixed(bytes(8 << 20))):
        failure = refusal(data, Limits(max_size=1 << 20))
        assert failure.code == "too-large"
        assert (failure.evidence["virtual_size"], failure.evidence["limit"]) == (str(8 << 20), str(1 << 20))


def test_a_vhd_is_never_larger_than_2040_gib() -> None:
    data = Vhd(size=2041 << 30, entries=1 << 20).build()
    assert refusal(data, Limits(max_size=1 << 50)).code == "unsupported"


def test_a_block_table_larger_than_the_limit_is_refused() -> None:
    assert refusal(Vhd().build(), Limits(table_bytes=15)).code == "unsafe"


def test_a_block_table_may_leave_room_to_grow_to_two_tebibytes() -> None:
    table = [Vhd.sector(0) + (4 << 20) // 512, *[0xFFFFFFFF] * ((1 << 20) - 1)]
    image, extents = judge(Vhd(entries=1 << 20, bat=table, blocks=3).build())
    assert (image.virtual_size, extents.data_bytes) == (8 << 20, 2 << 20)


def test_bytes_that_are_no_vhd_fail_even_if_the_format_is_forced() -> None:
    for length in (0, 100, 4096):
        with pytest.raises(Failure) as caught:
            over(bytes(length), examine(Format.VHD, length, Limits()))
        assert caught.value.code == ("corrupt" if length == 4096 else "truncated")


def test_the_table_of_a_tebibyte_takes_less_than_a_second() -> None:
    entries = 1 << 19
    sectors = [TAKEN // 512 * index + 5000 for index in range(200_000)] + [FREE] * (entries - 200_000)
    sectors[:100_000] = sectors[99_999::-1]
    table = struct.pack(f">{entries}I", *sectors)
    extents = Extents(length=450 << 30, unit=512)
    size = entries * BLOCK
    layout = vhd.Layout(header_offset=512, bat_offset=1536, entries=entries, block=BLOCK)
    image = Image(format=Format.VHD, virtual_size=size, layout=layout)
    begun = time.process_time()
    over(bytes(1536) + table, vhd.walk(image, extents.length, extents))
    assert time.process_time() - begun < 1
    assert extents.data_bytes == 200_000 * BLOCK


HONEST = Vhd(blocks=1).build()


def survive(data: bytes) -> None:
    status, begun = 65, time.process_time()
    try:
        judge(data)
    except Failure as failure:
        status = failure.exit
    assert status == 65
    assert time.process_time() - begun < 1


@given(st.lists(st.tuples(st.integers(0, 2047), st.binary(min_size=1, max_size=8)), max_size=4))
def test_no_change_of_a_vhd_raises_anything_but_a_failure(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(HONEST)
    for at, value in changes:
        data[at : at + len(value)] = value
    survive(bytes(data))
    # With its checksums made anew the changes reach the judgement of every field.
    footer, header = summed(bytes(data[:512]), 64), summed(bytes(data[512:1536]), 36)
    survive(footer + header + bytes(data[1536:-512]) + footer)
