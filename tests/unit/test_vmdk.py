"""The quarantine of VMDK: what honest images tell, what hostile ones are refused for."""

import random
import struct
import time
from dataclasses import replace

import pytest
from hostile import vmdk_files
from hostile.hostile_file import HostileFile
from hostile.vmdk_builder import (
    AT_END,
    CHECKED,
    DATA,
    DIRECTORY,
    GRAIN,
    GRAIN_BYTES,
    REDUNDANT,
    SECTOR,
    TABLES,
    ZERO_GRAINS,
    Vmdk,
    descriptor,
    footed,
    packed,
    plain,
)
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk import vmdk
from importer.disk.detect import recognise
from importer.disk.examine import examine, unit, walk
from importer.disk.extents import Extents
from importer.disk.image import Format, Image, Limits
from importer.disk.reads import Span, over
from importer.disk.vmdk_tables import Layout


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


@pytest.mark.parametrize("file", vmdk_files.FILES, ids=lambda file: file.name)
def test_hostile_vmdks_are_refused_with_their_code(file: HostileFile) -> None:
    data = file.build()
    begun = time.process_time()
    assert refusal(data).code == file.code
    assert time.process_time() - begun < 1


def test_an_honest_sparse_image_tells_its_size_and_facts() -> None:
    image, extents = judge(plain().build())
    assert (image.format, image.subformat, image.virtual_size) == (Format.VMDK, "monolithicSparse", 1 << 20)
    assert image.compressed is False
    assert not image.exact_length
    assert image.notes == {"version": "1", "grain size": str(GRAIN_BYTES)}
    assert extents.data_bytes == 4 * GRAIN_BYTES


@pytest.mark.parametrize("data", [packed().build(), footed(packed())], ids=["directory in front", "footer"])
def test_an_honest_stream_optimized_image_tells_its_size_and_facts(data: bytes) -> None:
    image, extents = judge(data)
    assert (image.subformat, image.virtual_size, image.compressed) == ("streamOptimized", 1 << 20, True)
    assert image.exact_length
    assert extents.compressed_clusters == 4
    assert extents.data_bytes == 4 * GRAIN_BYTES


def test_an_image_that_was_not_closed_cleanly_says_so() -> None:
    assert "unclean" in judge(plain(unclean=1).build())[0].notes


@pytest.mark.parametrize("spelling", ['CREATETYPE = "MonolithicSparse"', "createType=monolithicSparse"])
def test_the_type_may_be_spelled_as_vmware_lets_it_be(spelling: str) -> None:
    text = descriptor().replace(b'createType="monolithicSparse"', spelling.encode())
    assert judge(plain(text=text).build())[0].subformat == "monolithicSparse"


def test_names_in_other_keys_and_in_the_only_extent_are_ignored() -> None:
    text = descriptor(extents='RW 2048 SPARSE "/etc/passwd"', more='changeTrackPath="/etc/passwd"\nddb.comment = "RW"\n')
    assert judge(plain(text=text.replace(b"\n", b"\r\n")).build())[0].virtual_size == 1 << 20


def test_the_number_1_marks_zeroes_only_where_the_flag_says_so() -> None:
    image = plain(flags=CHECKED | ZERO_GRAINS, version=2)
    image.table[1:3] = [1, 1]
    assert judge(image.build())[1].data_bytes == 2 * GRAIN_BYTES
    assert refusal(replace(image, flags=CHECKED).build()).code == "corrupt"


@pytest.mark.parametrize("grain", [8, 2048])
def test_grains_of_4_kib_to_1_mib_are_read(grain: int) -> None:
    image, _ = judge(plain(grains=0, grain=grain, capacity=grain * 4).build())
    assert image.notes["grain size"] == str(grain * SECTOR)


def test_the_last_grain_need_only_reach_as_far_as_the_disk() -> None:
    data = plain(grains=2, capacity=GRAIN + 1).build()
    assert judge(data[: (DATA + GRAIN + 1) * SECTOR])[1].data_bytes == GRAIN_BYTES + SECTOR
    assert refusal(data[: (DATA + GRAIN + 1) * SECTOR - 1]).code == "truncated"


def test_entries_beyond_the_disk_are_never_judged() -> None:
    image = plain(capacity=2 * GRAIN)
    image.table[2:] = [DATA] * 500
    assert judge(image.build())[1].data_bytes == 2 * GRAIN_BYTES


def test_a_compressed_image_may_lose_no_byte_of_its_last_grain() -> None:
    noise = random.Random(1).randbytes(GRAIN_BYTES)
    data = packed(3, noise).build()
    end = len(data.rstrip(b"\0"))
    judge(data[:end])
    for length in (end - 1, end - 500, (DATA + GRAIN + 2) * SECTOR, (DATA + 1) * SECTOR):
        assert refusal(data[:length]).code == "truncated"


def test_the_redundant_directory_must_be_there_but_is_not_followed() -> None:
    assert judge(plain(flags=REDUNDANT, redundant_offset=DATA).build())[1].data_bytes == 4 * GRAIN_BYTES


def test_a_disk_above_the_limit_is_too_large() -> None:
    failure = refusal(plain().build(), Limits(max_size=4096))
    assert failure.code == "too-large"
    assert failure.evidence["virtual_size"] == str(1 << 20)


def test_tables_above_the_limit_are_not_read() -> None:
    assert refusal(plain().build(), Limits(table_bytes=512)).code == "unsafe"


def test_a_table_that_no_entry_names_costs_nothing() -> None:
    assert judge(Vmdk(directory=[0]).build())[1].data_bytes == 0


def test_tables_are_asked_for_in_bounded_batches() -> None:
    count = 3000
    image = Image(format=Format.VMDK, virtual_size=count * 512 * GRAIN_BYTES, layout=layout(count))
    # Every second neighbour touches: half of the tables are joined with the one before.
    tables = [(4096 + 5 * index - index % 2) for index in range(count)]
    where = {DIRECTORY * SECTOR: struct.pack(f"<{count}I", *tables)}
    reads = vmdk.walk(image, 1 << 30, Extents(length=1 << 30, unit=512))
    batches: list[tuple[Span, ...]] = []
    wanted: tuple[Span, ...] | None = next(reads)
    while wanted:
        batches.append(wanted)
        try:
            wanted = reads.send(tuple(where.get(span.start, bytes(span.size)) for span in wanted))
        except StopIteration:
            wanted = None
    assert all(len(batch) <= 32 and sum(span.size for span in batch) <= 4 << 20 for batch in batches)
    assert sum(span.size for batch in batches[1:] for span in batch) == count * 2048


def layout(count: int, *, compressed: bool = False, grain: int = GRAIN_BYTES) -> Layout:
    return Layout(
        directory_offset=DIRECTORY * SECTOR,
        directory_bytes=count * 4,
        grain=grain,
        reserved=DIRECTORY * SECTOR,
        compressed=compressed,
        zero_grains=False,
        table_bytes=512 << 20,
    )


HONEST = plain().build()
STREAM = footed(packed())
VALUES = st.sampled_from([0, 1, 0x7F, 0xFF]) | st.integers(0, 255)


@given(st.booleans(), st.lists(st.tuples(st.integers(0, 80) | st.integers(512, 800), VALUES), max_size=6))
def test_no_change_of_header_or_descriptor_does_more_than_fail(stream: bool, changes: list[tuple[int, int]]) -> None:
    data = bytearray(STREAM if stream else HONEST)
    for at, value in changes:
        data[at] = value
    survive(bytes(data))


@given(st.lists(st.tuples(st.integers(0, 1536 - 1), VALUES), max_size=6))
def test_no_change_of_the_footer_does_more_than_fail(changes: list[tuple[int, int]]) -> None:
    data = bytearray(STREAM)
    for at, value in changes:
        data[len(data) - 1536 + at] = value
    survive(bytes(data))


@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 0xFFFFFFFF) | st.integers(0, 200)), max_size=10),
    st.integers(0, 60_000),
)
def test_no_change_of_the_tables_does_more_than_fail(stream: bool, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(packed().build() if stream else HONEST)
    for slot, entry in changes:
        at = DIRECTORY * SECTOR if slot == 0 else TABLES * SECTOR + slot * 4 - 4
        struct.pack_into("<I", data, at, entry)
    survive(bytes(data[: len(data) - cut]))


def survive(data: bytes) -> None:
    status, begun = 65, time.process_time()
    try:
        image = over(data, vmdk.examine(len(data), Limits()))
        over(data, vmdk.walk(image, len(data), Extents(length=len(data), unit=vmdk.unit(image))))
    except Failure as failure:
        status = failure.exit
    assert status == 65
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("scattered", [False, True], ids=["in order", "scattered"])
def test_the_tables_of_ten_gibibytes_take_less_than_a_second(compressed: bool, scattered: bool) -> None:
    count, grain, tables = 320, 128, 4096
    grains = [65536 + grain * index for index in range(count * 512)]
    if scattered:
        random.Random(1).shuffle(grains)
    length = (65536 + grain * (len(grains) + 1)) * SECTOR
    image = Image(
        format=Format.VMDK, virtual_size=len(grains) * grain * SECTOR, layout=layout(count, compressed=compressed, grain=65536)
    )
    directory = struct.pack(f"<{count}I", *(tables + 4 * index for index in range(count)))
    content = bytearray(tables * SECTOR) + struct.pack(f"<{len(grains)}I", *grains)
    content[DIRECTORY * SECTOR : DIRECTORY * SECTOR + len(directory)] = directory
    extents = Extents(length=length, unit=512)
    begun = time.process_time()
    reads = vmdk.walk(image, length, extents)
    wanted = next(reads)
    try:
        while True:
            # The marker of the last grain lies beyond these bytes.
            wanted = reads.send(tuple(bytes(content[one.start : one.end]) or b"\0" * 8 + b"\1\0\0\0" for one in wanted))
    except StopIteration:
        pass
    assert extents.data_bytes == image.virtual_size
    assert time.process_time() - begun < 2


def test_a_header_that_points_to_its_end_needs_a_footer() -> None:
    assert refusal(plain(directory_offset=AT_END).build()).code == "truncated"
