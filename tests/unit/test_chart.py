"""A chart puts runs, noted in any order, into the order of their bytes, and refuses those that share bytes."""

import random
import tracemalloc

import pytest
from builders.courses import layouts, noted
from hypothesis import given, settings
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk.chart import SECTOR, Chart, Course, Run

MIB = 1 << 20


def every(course: Course) -> list[Run]:
    return [course.run(index) for index in range(len(course))]


@given(layouts(), st.randoms(use_true_random=False))
def test_runs_noted_in_any_order_come_out_in_the_order_of_their_bytes(runs: list[Run], chance: random.Random) -> None:
    shuffled = list(runs)
    chance.shuffle(shuffled)
    chart = noted(shuffled)
    assert len(chart) == len(runs)
    assert every(chart.course()) == runs
    assert not chart.overflowed


@given(layouts(), st.randoms(use_true_random=False))
def test_a_clipped_course_ends_compressed_clusters_where_the_next_run_begins(runs: list[Run], chance: random.Random) -> None:
    generous = [run._replace(size=run.size + 70_000) if run.packed else run for run in runs]
    chance.shuffle(generous)
    course = every(noted(generous).course(clipped=True))
    for run, after, told in zip(runs, [*runs, None][1:], course, strict=True):
        assert told[:2] == run[:2]
        room = after.host - run.host if after else 1 << 60
        assert told.size == (min(room, run.size + 70_000) if run.packed else run.size)


@settings(deadline=None)
@given(layouts(), st.data())
def test_runs_that_share_bytes_are_refused(runs: list[Run], data: st.DataObject) -> None:
    if not runs:
        return
    victim = data.draw(st.sampled_from(runs))
    # A compressed cluster surely has its bytes up to the sector in which it ends, and at least the first.
    sure = max(1, victim.size - SECTOR + 1) if victim.packed else victim.size
    at = victim.host + data.draw(st.integers(0, sure - 1))
    packed = data.draw(st.booleans())
    chart = noted([*runs, Run(at, 1 << 50, data.draw(st.integers(1, 9000)), packed)])
    with pytest.raises(Failure) as caught:
        chart.course()
    assert caught.value.code == "corrupt"
    assert victim.host <= int(caught.value.evidence["offset"])


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("size", [1, 100, 512, 513])
def test_two_compressed_clusters_never_begin_at_one_byte(size: int, clipped: bool) -> None:
    chart = noted([Run(4096, 0, size, True), Run(4096, 65536, size, True)])
    with pytest.raises(Failure):
        chart.course(clipped=clipped)


def test_neighbours_on_both_sides_are_joined_and_nothing_else() -> None:
    chart = Chart()
    chart.plain(0, 8192, 4096)
    chart.plain(4096, 12288, 4096)  # goes on, in the object and on the disk
    chart.plain(8192, 20480, 4096)  # goes on on the disk only
    chart.plain(65536, 24576, 4096)  # goes on in the object only
    chart.packed(131072, 28672, 512)
    chart.plain(131584, 29184, 512)
    assert every(chart.course()) == [
        Run(8192, 0, 8192, False),
        Run(20480, 8192, 4096, False),
        Run(24576, 65536, 4096, False),
        Run(28672, 131072, 512, True),
        Run(29184, 131584, 512, False),
    ]


def test_a_chart_keeps_as_many_runs_as_it_may_and_says_when_there_were_more() -> None:
    chart = Chart(most=3)
    for index in range(3):
        chart.packed(index << 16, index << 12, 512)
    assert not chart.overflowed
    chart.plain(1 << 30, 1 << 30, 512)
    assert chart.overflowed
    assert len(chart) == 3


@given(layouts(), st.sampled_from([512, 1024, 4096, 65536]), st.integers(0, 600))
def test_a_piece_is_needed_exactly_if_a_run_has_bytes_in_it(runs: list[Run], piece: int, cut: int) -> None:
    length = max((run.host + run.size for run in runs), default=0)
    length -= min(cut, max(0, length - max((run.host for run in runs), default=0) - 1))  # the last may be told past the end
    touched = bytearray(-(-length // piece))
    for run in runs:
        for at in range(run.host, min(run.host + run.size, length)):
            touched[at // piece] = 1
    assert noted(runs).course().pieces(length, piece) == touched


def test_no_runs_need_no_pieces() -> None:
    course = Chart().course()
    assert len(course) == 0
    assert course.pieces(10 * MIB, MIB) == bytes(10)
    assert course.pieces(0, MIB) == b""


def test_sorting_a_full_chart_takes_little_memory() -> None:
    """Scattered runs of a large image must not cost more for a moment than the shelf does all the time."""
    count = 1 << 15
    places = list(range(count))
    random.Random(3).shuffle(places)
    chart = Chart()
    for guest, place in enumerate(places):
        chart.packed(guest << 16, place * 40_000, 30_000)
    tracemalloc.start()
    try:
        course = chart.course(clipped=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(course) == count
    assert peak <= count * 64, f"{peak / count:.0f} bytes a run"
