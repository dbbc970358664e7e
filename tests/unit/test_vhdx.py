"""The quarantine of VHDX: what honest images tell, what hostile ones are refused for."""

import struct
import time

import pytest
from hostile import vhdx_files
from hostile.hostile_file import HostileFile
from hostile.vhdx_builder import BAT, DATA, METADATA, MIB, PRESENT, Vhdx, summed
from hypothesis import given, settings
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk import vhdx
from importer.disk.crc32c import crc32c
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


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0
    assert crc32c(bytes(32)) == 0x8A9136AA


@pytest.mark.parametrize("file", vhdx_files.FILES, ids=lambda file: file.name)
def test_hostile_vhdxs_are_refused_with_their_code(file: HostileFile) -> None:
    data = file.build()
    begun = time.process_time()
    assert refusal(data).code == file.code
    assert time.process_time() - begun < 1


def test_an_honest_vhdx_tells_its_size_and_facts() -> None:
    image, extents = judge(Vhdx().build())
    assert (image.format, image.subformat, image.virtual_size) == (Format.VHDX, "dynamic", 8 * MIB)
    assert image.notes == {"version": "1", "block size": str(MIB), "logical sector size": "512"}
    assert not image.exact_length
    assert extents.data_bytes == 2 * MIB
    assert judge(Vhdx(flags=1).build())[0].subformat == "fixed"


def test_one_valid_header_is_enough_and_the_later_one_counts() -> None:
    judge(Vhdx(wrong=(1, 0)).build())
    judge(Vhdx(wrong=(0, 1)).build())
    judge(Vhdx(sequences=(5, 5)).build())
    clean, dirty = Vhdx(sequences=(7, 6)).build(), Vhdx(sequences=(7, 6), log_guid=b"l" * 16).build()
    judge(clean[: 128 << 10] + dirty[128 << 10 :])
    failure = refusal(dirty[: 128 << 10] + clean[128 << 10 :])
    assert failure.code == "unsupported"
    assert "log" in failure.hint


def test_blocks_that_read_as_zeroes_cost_nothing() -> None:
    _, extents = judge(Vhdx(bat=(1, 2, 3, 5, 0, DATA | 3, DATA | 2, DATA | PRESENT)).build())
    assert extents.data_bytes == MIB


def test_optional_regions_and_items_are_passed_over() -> None:
    extra = ((vhdx_files.UNKNOWN, DATA + 2 * MIB, MIB, 0),)
    judge(Vhdx(regions=extra, items=((vhdx_files.UNKNOWN, 70_000, 8, 0),), data=3 * MIB).build())


def test_entries_of_blocks_after_a_bitmap_count_for_the_right_place() -> None:
    bat = (*(0,) * 15, DATA | PRESENT, 0, (DATA + 256 * MIB) | PRESENT)
    image = Vhdx(size=16 * 256 * MIB + 512, block=256 * MIB, bat=bat)
    data = image.build()
    examined = over(data, examine(Format.VHDX, len(data), Limits()))
    extents = Extents(length=DATA + 256 * MIB + 512, unit=MIB)
    over(data, walk(examined, extents.length, extents))
    assert extents.data_bytes == 256 * MIB + 512


def test_the_last_block_need_only_reach_as_far_as_the_disk() -> None:
    data = Vhdx(size=MIB + 512).build()
    assert judge(data[: DATA + MIB + 512])[1].data_bytes == MIB + 512
    failure = refusal(data[: DATA + MIB + 511])
    assert failure.code == "truncated"
    assert failure.evidence["needed_length"] == str(DATA + MIB + 512)


def test_a_vhdx_cut_anywhere_is_truncated() -> None:
    data = Vhdx().build()
    for length in (8, 65536, MIB, METADATA, METADATA + 100, BAT, BAT + 16, DATA, DATA + MIB):
        assert refusal(data[:length]).code == "truncated"


def test_the_vhdx_size_limit_says_both_numbers() -> None:
    failure = refusal(Vhdx().build(), Limits(max_size=MIB))
    assert failure.code == "too-large"
    assert (failure.evidence["virtual_size"], failure.evidence["limit"]) == (str(8 * MIB), str(MIB))


def test_a_region_larger_than_the_table_limit_is_refused() -> None:
    assert refusal(Vhdx().build(), Limits(table_bytes=MIB - 1)).code == "unsafe"


def test_bytes_that_are_no_vhdx_fail_even_if_the_format_is_forced() -> None:
    for length in (0, 4096, MIB):
        with pytest.raises(Failure) as caught:
            over(bytes(length), examine(Format.VHDX, length, Limits()))
        assert caught.value.code == ("corrupt" if length == MIB else "truncated")


def test_the_table_of_256_gib_in_no_order_takes_seconds_at_most() -> None:
    layout = vhdx.Layout(reserved=(), bat_offset=0, block=MIB, ratio=4096)
    rows = [(DATA + MIB * index ^ MIB) | PRESENT if index % 4097 != 4096 else 0 for index in range((1 << 18) + 63)]
    table = struct.pack(f"<{len(rows)}Q", *rows)
    image = Image(format=Format.VHDX, virtual_size=256 << 30, layout=layout)
    extents = Extents(length=1 << 40, unit=MIB)
    begun = time.process_time()
    over(table, vhdx.walk(image, extents.length, extents))
    assert time.process_time() - begun < 3
    assert extents.data_bytes == 256 << 30


HONEST = Vhdx(data=MIB, bat=(DATA | PRESENT,)).build()
PLACES = st.one_of(
    st.integers(65536, 65536 + 80), st.integers(131072, 131072 + 80), st.integers(196608, 196608 + 84),
    st.integers(METADATA, METADATA + 200), st.integers(METADATA + 65536, METADATA + 65576), st.integers(BAT, BAT + 70),
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(st.tuples(PLACES, st.binary(min_size=1, max_size=8)), max_size=4), st.booleans())
def test_no_change_of_a_vhdx_raises_anything_but_a_failure(changes: list[tuple[int, bytes]], mend: bool) -> None:
    data = bytearray(HONEST)
    for at, value in changes:
        data[at : at + len(value)] = value
    if mend:  # with its checksums made anew the changes reach the judgement of every field
        for at, size in ((65536, 4096), (131072, 4096), (196608, 65536)):
            data[at : at + size] = summed(bytes(data[at : at + size]))
    status, begun = 65, time.process_time()
    try:
        judge(bytes(data))
    except Failure as failure:
        status = failure.exit
    assert status == 65
    assert time.process_time() - begun < 1
