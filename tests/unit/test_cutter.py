"""The cutter hands out exactly the bytes of its course, each once, however the object is cut into pieces."""

import random
import tracemalloc

from builders.courses import layouts, noted
from hypothesis import given, settings
from hypothesis import strategies as st

from importer.disk.chart import SECTOR, Chart, Run
from importer.disk.cutter import Cutter, Part

NOISE = random.Random(11).randbytes(1 << 20)


def cut(runs: list[Run], length: int, piece: int, *, all_pieces: bool, clipped: bool = False) -> list[Part]:
    """Run an object of NOISE through a cutter; views are copied and then spoiled, as their buffers are used again."""
    course = noted(runs).course(clipped=clipped)
    needed, cutter, parts = course.pieces(length, piece), Cutter(course), []
    for index in range(len(needed)):
        if needed[index] or all_pieces:
            buffer = bytearray(NOISE[index * piece : min(length, (index + 1) * piece)])
            got = cutter.cut(index * piece, memoryview(buffer))
            parts += [part._replace(data=bytearray(part.data)) for part in got]
            buffer[:] = bytes(len(buffer))
    assert cutter.done
    return parts


@settings(max_examples=100, deadline=None)
@given(layouts(), st.sampled_from([512, 1024, 4096, 65536]), st.booleans(), st.integers(0, 600))
def test_every_byte_of_every_run_comes_out_once(runs: list[Run], piece: int, all_pieces: bool, cut_off: int) -> None:
    end = max((run.host + run.size for run in runs), default=0)
    length = end - min(cut_off, max(0, runs[-1].size - 1)) if runs and runs[-1].packed else end
    length = min(length, len(NOISE))
    runs = [run._replace(size=min(run.size, length - run.host)) for run in runs]
    parts = cut(runs, length, piece, all_pieces=all_pieces)
    disk: dict[int, int] = {}
    for part in parts:
        if part.packed:
            continue
        assert part.data
        for index, byte in enumerate(part.data):
            assert disk.setdefault(part.guest + index, byte) == byte
    plain = [run for run in runs if not run.packed]
    assert sum(len(part.data) for part in parts if not part.packed) == sum(run.size for run in plain)
    for run in plain:
        assert bytes(disk[run.guest + index] for index in range(run.size)) == NOISE[run.host : run.host + run.size]
    packed = [(part.guest, bytes(part.data), part.host) for part in parts if part.packed]
    assert packed == [(run.guest, NOISE[run.host : run.host + run.size], run.host) for run in runs if run.packed]


@settings(max_examples=100, deadline=None)
@given(layouts(), st.sampled_from([512, 4096]))
def test_a_clipped_course_is_cut_whole_too(runs: list[Run], piece: int) -> None:
    generous = [run._replace(size=run.size + 9000) if run.packed else run for run in runs]
    length = max((run.host + run.size for run in runs), default=0)
    generous = [run._replace(size=min(run.size, length - run.host)) for run in generous]
    parts = cut(generous, length, piece, all_pieces=False, clipped=True)
    told = noted(generous).course(clipped=True)
    want = [told.run(index) for index in range(len(told))]
    assert [(part.guest, bytes(part.data)) for part in parts if part.packed] == [
        (run.guest, NOISE[run.host : run.host + run.size]) for run in want if run.packed
    ]


@settings(max_examples=100, deadline=None)
@given(layouts(), st.sampled_from([512, 1024, 4096]), st.randoms(use_true_random=False))
def test_what_was_cut_before_an_interruption_and_what_is_left_make_the_whole(
    runs: list[Run], piece: int, chance: random.Random
) -> None:
    length = max((run.host + run.size for run in runs), default=0)
    course = noted(runs).course()
    landed = bytearray(chance.random() < 0.6 for _ in range(-(-length // piece)))
    left = course.without(bytes(landed), piece)
    needed, first, second = left.pieces(length, piece), Cutter(course), Cutter(left)
    parts: list[Part] = []
    for index in range(len(landed)):
        start, view = index * piece, memoryview(NOISE)[index * piece : min(length, (index + 1) * piece)]
        before = list(first.cut(start, view))
        parts += before if landed[index] else []
    for index in range(len(landed)):
        if needed[index]:
            parts += second.cut(index * piece, memoryview(NOISE)[index * piece : min(length, (index + 1) * piece)])
    assert first.done
    assert second.done
    assert sum(len(part.data) for part in parts) == sum(run.size for run in runs)
    disk = {part.guest + index: byte for part in parts for index, byte in enumerate(part.data)}
    for run in runs:
        assert bytes(disk[run.guest + index] for index in range(run.size)) == NOISE[run.host : run.host + run.size]


def test_a_cluster_over_many_pieces_waits_for_the_last_of_them() -> None:
    chart = Chart()
    chart.packed(0, 300, 4 * SECTOR)
    cutter = Cutter(chart.course())
    pieces = [list(cutter.cut(at, memoryview(NOISE)[at : at + SECTOR])) for at in range(0, 6 * SECTOR, SECTOR)]
    assert [len(parts) for parts in pieces] == [0, 0, 0, 0, 1, 0]
    assert bytes(pieces[4][0].data) == NOISE[300 : 300 + 4 * SECTOR]
    assert cutter.done


def test_it_is_not_done_before_the_last_run_ended() -> None:
    chart = Chart()
    chart.plain(0, 0, 2 * SECTOR)
    cutter = Cutter(chart.course())
    assert not cutter.done
    cutter.cut(0, memoryview(NOISE)[:SECTOR])
    assert not cutter.done
    cutter.cut(SECTOR, memoryview(NOISE)[SECTOR : 2 * SECTOR])
    assert cutter.done


def test_a_piece_of_the_tiniest_clusters_takes_no_memory_until_it_is_read() -> None:
    """A hostile image may have a compressed cluster begin at every byte."""
    chart = Chart()
    for at in range(1 << 14):
        chart.packed(at * SECTOR, at, -at % SECTOR or SECTOR)
    cutter = Cutter(chart.course())
    tracemalloc.start()
    try:
        count = sum(1 for _ in cutter.cut(0, memoryview(NOISE)[: 1 << 15]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 1 << 14
    assert peak < 10_000
    assert cutter.done
