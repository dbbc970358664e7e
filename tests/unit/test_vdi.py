"""The quarantine of VDI: what honest images tell, what hostile ones are refused for."""

import random
import struct
import time

import pytest
from hostile import vdi_files
from hostile.hostile_file import HostileFile
from hostile.vdi_builder import BLOCK, DATA, FREE, ZERO, Vdi
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk import vdi
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


@pytest.mark.parametrize("file", vdi_files.FILES, ids=lambda file: file.name)
def test_hostile_vdis_are_refused_with_their_code(file: HostileFile) -> None:
    data = file.build()
    begun = time.process_time()
    assert refusal(data).code == file.code
    assert time.process_time() - begun < 1


def test_an_honest_vdi_tells_its_size_and_facts() -> None:
    image, extents = judge(Vdi().build())
    assert (image.format, image.subformat, image.virtual_size) == (Format.VDI, "dynamic", 4 * BLOCK)
    assert not image.exact_length
    assert extents.data_bytes == 2 * BLOCK
    assert judge(Vdi(kind=2).build())[0].subformat == "static"


def test_an_odd_size_is_rounded_up_to_a_sector_as_qemu_does() -> None:
    assert judge(Vdi(size=3 * BLOCK + 1).build())[0].virtual_size == 3 * BLOCK + 512


def test_the_last_block_need_only_reach_as_far_as_the_disk() -> None:
    image = Vdi(size=3 * BLOCK + 1024, entries=[0, FREE, ZERO, 1])
    data = image.build()
    assert judge(data[: DATA + BLOCK + 1024])[1].data_bytes == BLOCK + 1024
    assert refusal(data[: DATA + BLOCK + 1023]).code == "truncated"


def test_entries_beyond_the_disk_are_never_judged() -> None:
    assert judge(Vdi(size=2 * BLOCK, entries=[1, 0, 0, 5000]).build())[1].data_bytes == 2 * BLOCK


def test_an_empty_disk_passes() -> None:
    assert judge(Vdi(size=0, entries=[], data=b"").build())[1].data_bytes == 0


def test_a_disk_above_the_limit_is_too_large() -> None:
    failure = refusal(Vdi().build(), Limits(max_size=BLOCK))
    assert failure.code == "too-large"
    assert failure.evidence["virtual_size"] == str(4 * BLOCK)


def test_a_table_above_the_limit_is_not_read() -> None:
    assert refusal(Vdi().build(), Limits(table_bytes=8)).code == "unsafe"


HONEST = Vdi(data=b"d" * 4096, size=4096, entries=[0]).build()


@given(st.lists(st.tuples(st.integers(0x40, 0x1D0), st.sampled_from([0, 1, 0x7F, 0xFF]) | st.integers(0, 255)), max_size=6))
def test_no_change_of_the_header_does_more_than_fail(changes: list[tuple[int, int]]) -> None:
    data = bytearray(HONEST)
    for at, value in changes:
        data[at] = value
    survive(bytes(data))


@given(st.lists(st.integers(0, 0xFFFFFFFF) | st.integers(0, 6), max_size=20), st.integers(0, 3 * BLOCK))
def test_no_change_of_the_map_does_more_than_fail(entries: list[int], cut: int) -> None:
    data = Vdi(entries=entries, size=len(entries) * BLOCK).build()
    survive(data[: len(data) - cut])


def survive(data: bytes) -> None:
    status, begun = 65, time.process_time()
    try:
        image = over(data, vdi.examine(len(data), Limits()))
        over(data, vdi.walk(image, len(data), Extents(length=len(data), unit=vdi.unit(image))))
    except Failure as failure:
        status = failure.exit
    assert status == 65
    assert time.process_time() - begun < 1


def test_the_map_of_a_tebibyte_takes_less_than_a_second() -> None:
    count = 1 << 20
    image = Image(format=Format.VDI, virtual_size=count * BLOCK, layout=vdi.Layout(map_offset=512, data_offset=8 * BLOCK))
    order = random.Random(1).sample(range(count), count)
    for entries in (range(count), order):
        table = bytes(512) + struct.pack(f"<{count}I", *entries)
        extents = Extents(length=(count + 8) * BLOCK, unit=vdi.unit(image))
        begun = time.process_time()
        over(table, vdi.walk(image, extents.length, extents))
        assert time.process_time() - begun < 3
        assert extents.data_bytes == image.virtual_size
