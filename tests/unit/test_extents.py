"""The judge of what an image's tables claim."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk.extents import Extents

UNIT = 4096


def extents(units: int = 1000, **more: int) -> Extents:
    return Extents(length=units * UNIT, unit=UNIT, **more)


def code_of(call: object) -> str:
    with pytest.raises(Failure) as caught:
        call()  # type: ignore[operator]
    return caught.value.code


def test_runs_side_by_side_are_counted_and_in_order() -> None:
    judge = extents()
    for first in range(0, 1000, 10):
        judge.add(0, first * UNIT, 10 * UNIT)
    assert judge.data_bytes == 1000 * UNIT
    assert judge.in_order


def test_a_run_past_the_end_is_truncated_with_the_length_it_needs() -> None:
    with pytest.raises(Failure) as caught:
        extents(3).add(0, 2 * UNIT, 2 * UNIT)
    assert caught.value.code == "truncated"
    assert caught.value.evidence["needed_length"] == str(4 * UNIT)


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 60)), max_size=12))
def test_any_overlap_is_found_whatever_the_runs(runs: list[tuple[int, int]]) -> None:
    judge, taken = extents(150), set[int]()
    for first, count in runs:
        units = set(range(first, first + count))
        if taken & units:
            assert code_of(lambda first=first, count=count: judge.add(0, first * UNIT, count * UNIT)) == "bomb"
            return
        judge.add(0, first * UNIT, count * UNIT)
        taken |= units
    assert judge.data_bytes == len(taken) * UNIT


def test_a_cut_last_unit_takes_its_unit_whole() -> None:
    judge = Extents(length=2 * UNIT + 100, unit=UNIT)
    judge.add(0, 2 * UNIT, 100)
    assert judge.data_bytes == 100
    assert code_of(lambda: judge.add(0, 2 * UNIT, 50)) == "bomb"


def test_an_empty_run_claims_nothing() -> None:
    judge = extents(1)
    judge.add(0, 1 << 60, 0)
    assert judge.data_bytes == 0
    assert judge.in_order


def test_tables_are_claimed_once_and_data_may_not_lie_in_them() -> None:
    judge = extents()
    assert judge.claim(UNIT, 2 * UNIT)
    assert not judge.claim(2 * UNIT, UNIT)
    assert code_of(lambda: judge.add(0, UNIT, UNIT)) == "bomb"
    assert code_of(lambda: judge.claim(999 * UNIT, 2 * UNIT)) == "truncated"


def test_more_compressed_starts_than_fit_a_stretch_are_a_bomb() -> None:
    judge = extents()
    for start in range(0, 512, 64):
        judge.add_compressed(0, start, 512, holds=65536, densest=64)
    assert judge.compressed_clusters == 8
    assert judge.data_bytes == 8 * 65536

    def share() -> None:
        for _ in range(10):
            judge.add_compressed(0, 100, 512, holds=65536, densest=64)

    assert code_of(share) == "bomb"


def test_a_compressed_cluster_may_be_rounded_past_the_end_but_not_begin_there() -> None:
    judge = extents(2)
    judge.add_compressed(0, 2 * UNIT - 10, 512, holds=UNIT, densest=5)
    assert code_of(lambda: judge.add_compressed(0, 2 * UNIT, 512, holds=UNIT, densest=5)) == "truncated"


def test_a_walk_to_and_fro_farther_than_the_window_is_not_in_order() -> None:
    units = 64 << 20 >> 12
    judge = extents(units, window=8 << 20)
    for first in range(units // 2):
        judge.add(0, first * UNIT, UNIT)
        judge.add(0, (units - 1 - first) * UNIT, UNIT)
    assert judge.in_order, "two sequential streams fit a window"
    judge = extents(units, window=8 << 20)
    for step in range(units):
        judge.add(0, step * 4099 % units * UNIT, UNIT)
    assert not judge.in_order


def test_an_object_shorter_than_the_window_is_always_in_order() -> None:
    judge = extents(7000)
    for step in range(7000):
        judge.add(0, step * 3001 % 7000 * UNIT, UNIT)
    assert judge.in_order


def test_long_runs_cost_no_loop_over_their_units() -> None:
    judge = Extents(length=1 << 40, unit=65536)
    begun = time.process_time()
    for start in range(0, 1 << 40, 1 << 34):
        judge.add(0, start, 1 << 34)
    assert judge.data_bytes == 1 << 40
    assert time.process_time() - begun < 3


def test_a_length_beyond_reason_fails_instead_of_filling_memory() -> None:
    assert code_of(lambda: Extents(length=1 << 62, unit=512)) == "unsupported"
