"""The quarantine of qcow2: what honest images tell, what hostile ones are refused for."""

import random
import struct
import time

import pytest
from hostile import qcow2_files
from hostile.hostile_file import HostileFile
from hostile.qcow2_builder import COPIED, Qcow2, extension, packed
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk import qcow2
from importer.disk.detect import recognise
from importer.disk.examine import examine, unit, walk
from importer.disk.extents import Extents
from importer.disk.image import Format, Image, Limits
from importer.disk.qcow2_tables import Layout
from importer.disk.reads import Span, over

CLUSTER = 65536
END = struct.pack(">II", 0, 0)


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


def honest(clusters: int = 4, **fields: int) -> Qcow2:
    image = Qcow2(**fields)  # type: ignore[arg-type]
    image.l2 = [image.host(index) | COPIED for index in range(clusters)]
    image.data = b"d" * (clusters * CLUSTER)
    return image


@pytest.mark.parametrize("file", qcow2_files.FILES, ids=lambda file: file.name)
def test_hostile_images_are_refused_with_their_code(file: HostileFile) -> None:
    begun = time.process_time()
    assert refusal(file.build()).code == file.code
    assert time.process_time() - begun < 2


def test_names_of_hostile_files_are_unique() -> None:
    names = [file.name for file in qcow2_files.FILES]
    assert len(set(names)) == len(names) >= 30


@pytest.mark.parametrize("version", [2, 3])
def test_an_honest_image_tells_its_size_and_facts(version: int) -> None:
    image, extents = judge(honest(version=version).build())
    assert image.format is Format.QCOW2
    assert image.virtual_size == 8 << 20
    assert image.compressed is None
    assert image.notes["version"] == str(version)
    assert image.notes["cluster size"] == "65536"
    assert extents.data_bytes == 4 * CLUSTER
    assert extents.compressed_clusters == 0
    assert extents.in_order


def test_harmless_extensions_and_flags_pass() -> None:
    names = extension(0x6803F857, bytes(48 * 5)) + extension(0x23852875, bytes(24)) + END
    image, _ = judge(Qcow2(extensions=names, incompatible=1).build())
    assert "not closed cleanly" in image.notes["dirty"]
    assert judge(Qcow2(header_length=112, incompatible=8, compression=b"\1").build())[0].notes["compression type"] == "zstd"


def test_an_empty_disk_passes() -> None:
    assert judge(Qcow2(size=0, l1=[]).build())[1].data_bytes == 0
    assert judge(Qcow2(size=0, l1=[], l1_entries=0, l1_offset=0).build())[0].virtual_size == 0


def test_entries_beyond_the_disk_are_never_judged() -> None:
    image = honest(2)
    image.size = CLUSTER + 512
    image.l2 += [1 << 50] * 10
    image.l1 = [4 * CLUSTER | COPIED, 1 << 50]
    assert judge(image.build())[1].data_bytes == CLUSTER + 512


def test_the_last_cluster_need_only_reach_as_far_as_the_disk() -> None:
    image = honest(2)
    image.size = CLUSTER + 512
    data = image.build()
    judge(data[: image.host(1) + 512])
    failure = refusal(data[: image.host(1) + 511])
    assert failure.code == "truncated"
    assert failure.evidence["needed_length"] == str(image.host(1) + 512)


def test_zero_and_absent_clusters_cost_nothing() -> None:
    image = Qcow2()
    image.l2 = [0, 1, image.host(7) | 1, 0, image.host(0) | COPIED]
    image.data = b"d" * CLUSTER
    assert judge(image.build())[1].data_bytes == CLUSTER


def test_compressed_clusters_are_counted_whole() -> None:
    image = Qcow2()
    image.l2 = [packed(image.host(0) + 3000 * index, 5) for index in range(8)]
    image.data = bytes(8 * 3000 + 600)
    _, extents = judge(image.build())
    assert extents.compressed_clusters == 8
    assert extents.data_bytes == 8 * CLUSTER


def test_extended_entries_need_no_more_than_their_last_subcluster() -> None:
    image = Qcow2(incompatible=16, size=2 * CLUSTER)
    image.l2 = [image.host(0) | COPIED, 0b101]
    image.data = b"d" * (3 * 2048)
    assert judge(image.build())[1].data_bytes == 2 * 2048
    image.data = image.data[:-1]
    assert refusal(image.build()).code == "truncated"


def test_the_size_limit_says_both_numbers() -> None:
    failure = refusal(honest().build(), Limits(max_size=1 << 20))
    assert failure.code == "too-large"
    assert failure.evidence["virtual_size"] == str(8 << 20)
    assert failure.evidence["max_size"] == str(1 << 20)


def test_bytes_that_are_no_qcow2_fail_even_if_the_format_is_forced() -> None:
    with pytest.raises(Failure) as caught:
        over(bytes(4096), examine(Format.QCOW2, 4096, Limits()))
    assert caught.value.code == "corrupt"


def test_more_table_bytes_than_the_limit_are_refused_before_they_are_read() -> None:
    assert refusal(honest().build(), Limits(table_bytes=CLUSTER)).code == "unsafe"
    judge(honest().build(), Limits(table_bytes=CLUSTER + 8))


def test_refusals_name_field_and_value() -> None:
    for file in qcow2_files.FILES:
        failure = refusal(file.build())
        assert failure.evidence, file.name
        if failure.code == "unsafe":
            assert {"field", "value"} <= set(failure.evidence), file.name


def test_the_header_takes_one_read_of_64_kib_at_most() -> None:
    data = honest().build()
    reads = qcow2.examine(len(data), Limits())
    assert sum(span.size for span in next(reads)) <= 1 << 16
    with pytest.raises(StopIteration):
        reads.send((data[: 1 << 16],))


def test_tables_are_asked_for_in_batches_within_the_object() -> None:
    cluster, count = 4096, 3000
    l2_at = 16 * cluster
    image = Qcow2(cluster_bits=12, size=count * 512 * cluster, l1_offset=3 * cluster)
    image.l1 = [l2_at + 2 * index * cluster for index in range(count)]
    data = image.build().ljust(l2_at + 2 * count * cluster, b"\0")
    parsed = over(data, qcow2.examine(len(data), Limits()))
    reads = qcow2.walk(parsed, len(data), Extents(length=len(data), unit=cluster))
    batches: list[tuple[Span, ...]] = []
    wanted: tuple[Span, ...] | None = next(reads)
    while wanted:
        batches.append(wanted)
        try:
            wanted = reads.send(tuple(data[span.start : span.end] for span in wanted))
        except StopIteration:
            wanted = None
    assert all(len(batch) <= 32 and sum(span.size for span in batch) <= 4 << 20 for batch in batches)
    assert all(0 <= span.start < span.end <= len(data) for batch in batches for span in batch)
    assert len(batches) <= 1 + -(-count // 32)


@given(st.lists(st.tuples(st.integers(0, 160), st.sampled_from([0, 1, 0x7F, 0xFF]) | st.integers(0, 255)), max_size=8))
def test_no_change_of_the_header_does_more_than_fail(changes: list[tuple[int, int]]) -> None:
    data = bytearray(HONEST)
    for at, value in changes:
        data[at] = value
    survive(bytes(data))


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, (1 << 64) - 1) | st.integers(0, 20).map(lambda n: n * CLUSTER)), max_size=10
    ),
    st.integers(0, 9),
    st.booleans(),
)
def test_no_change_of_the_tables_does_more_than_fail(changes: list[tuple[int, int]], cut: int, extended: bool) -> None:
    data = bytearray(HONEST)
    data[79] = 16 * extended
    for slot, entry in changes:
        table, index = (3, 0) if slot == 0 else (4, slot)
        struct.pack_into(">Q", data, table * CLUSTER + index * 8, entry)
    survive(bytes(data[: len(data) - cut * 50_000]))


def survive(data: bytes) -> None:
    status, begun = 65, time.process_time()
    try:
        judge(data)
    except Failure as failure:
        status = failure.exit
    assert status == 65
    assert time.process_time() - begun < 1


HONEST = honest(extensions=extension(0x6803F857, bytes(48)) + END).build()  # type: ignore[arg-type]


def test_the_tables_of_ten_gibibytes_take_less_than_half_a_second() -> None:
    layout = Layout(version=3, cluster=CLUSTER, l1_offset=CLUSTER, reserved=(), extended=False, zstd=False, table_bytes=1 << 30)
    entries = 20 * layout.entries
    random_host = random.Random(1).sample(range(1000, 1000 + entries), entries)
    for hosts in (range(1000, 1000 + entries), random_host):
        spread = [[COPIED | host * CLUSTER for host in hosts[at : at + 8192]] for at in range(0, entries, 8192)]
        assert cost(layout, spread) < 0.5
    dense = [[packed(30_000 * index + 1_000_000, 58) for index in range(at, at + 8192)] for at in range(0, entries, 8192)]
    assert cost(layout, dense) < 0.5


def test_compressed_and_plain_clusters_side_by_side_are_in_order() -> None:
    layout = Layout(version=3, cluster=CLUSTER, l1_offset=CLUSTER, reserved=(), extended=False, zstd=False, table_bytes=1 << 30)
    tables, host = [], 20 * CLUSTER
    for _ in range(4):
        table: list[int] = []
        while len(table) < layout.entries:
            table += [packed(host + 16384 * index, 30) for index in range(4)] + [COPIED | host + CLUSTER]
            host += 2 * CLUSTER
        tables.append(table[: layout.entries])
    extents, _ = walked(layout, tables)
    assert extents.in_order
    assert extents.compressed_clusters > 20_000


def cost(layout: Layout, tables: list[list[int]]) -> float:
    """CPU seconds that the walk takes over these tables."""
    return walked(layout, tables)[1]


def walked(layout: Layout, tables: list[list[int]]) -> tuple[Extents, float]:
    """Walk tables that lie nowhere but in a dictionary; return what was judged and the CPU seconds it took."""
    length = (len(tables) * 8192 + 2000) * CLUSTER
    where = {(2 + index) * CLUSTER: struct.pack(">8192Q", *table) for index, table in enumerate(tables)}
    where[CLUSTER] = struct.pack(f">{len(tables)}Q", *where)
    image = Image(format=Format.QCOW2, virtual_size=len(tables) * 8192 * CLUSTER, layout=layout)
    extents = Extents(length=length, unit=CLUSTER)
    begun = time.process_time()
    reads = qcow2.walk(image, length, extents)
    wanted = next(reads)
    try:
        while True:
            wanted = reads.send(
                tuple(b"".join(where[at] for at in range(span.start, span.end, CLUSTER))[: span.size] for span in wanted)
            )
    except StopIteration:
        return extents, time.process_time() - begun
