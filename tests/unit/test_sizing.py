"""Whether a disk fits, the guard while writing, and where a buffer is zero."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk import sizing, zeroes
from importer.disk.space import CHECK_EVERY, SpaceGuard

GIB, MIB = 1 << 30, 1 << 20


def judge(needed: int | None, virtual: int | None, free: int, *, reserve: int = 0, preallocate: bool = False) -> sizing.Verdict:
    return sizing.verdict(needed_lower_bound=needed, virtual_size=virtual, free=free, reserve=reserve, preallocate=preallocate)


def test_a_disk_smaller_than_the_space_fits() -> None:
    assert judge(GIB, 10 * GIB, 10 * GIB).kind == "fits"
    assert judge(GIB, 10 * GIB, 10 * GIB).failure() is None


def test_a_disk_that_may_outgrow_the_space_is_warned_of() -> None:
    verdict = judge(GIB, 10 * GIB, 5 * GIB)
    assert verdict.kind == "warn"
    assert "10.0 GiB" in verdict.text


def test_a_disk_to_be_preallocated_beyond_the_space_is_refused() -> None:
    verdict = judge(GIB, 10 * GIB, 10 * GIB, reserve=GIB, preallocate=True)
    assert verdict.kind == "refuse"
    assert verdict.smallest == 11 * GIB


def test_data_beyond_the_space_less_the_reserve_is_refused_with_numbers() -> None:
    failure = judge(5 * GIB, 10 * GIB, 5 * GIB, reserve=1).failure()
    assert failure is not None
    assert failure.code == "no-space"
    assert failure.evidence["smallest_free_space_that_works"].endswith(f"({5 * GIB + 1})")


def test_what_is_unknown_is_not_refused() -> None:
    assert judge(None, None, 1 * MIB).kind == "fits"


def test_a_file_system_fuller_than_its_reserve_takes_no_data() -> None:
    assert judge(1, 1, 10, reserve=20).kind == "refuse"


@given(st.integers(0, 1 << 50))
def test_the_reserve_is_at_most_a_gib_and_a_twentieth(total: int) -> None:
    reserve = sizing.default_reserve(total, shared=True)
    assert reserve <= GIB
    assert reserve * 20 <= total
    assert sizing.default_reserve(total, shared=False) == 0


def counting(answers: list[int]) -> Callable[[], int]:
    return lambda: answers.pop(0)


def test_the_guard_looks_every_64_mib_and_stops_at_the_reserve() -> None:
    guard = SpaceGuard(counting([100, 9]), reserve=10)
    guard.wrote(CHECK_EVERY - 1)
    guard.wrote(1)
    with pytest.raises(Failure, match="stay free") as caught:
        guard.wrote(CHECK_EVERY)
    assert caught.value.code == "no-space"


def reference(data: bytes) -> list[tuple[int, int, bool]]:
    found: list[tuple[int, int, bool]] = []
    for start in range(0, len(data), zeroes.GRANULE):
        block = data[start : start + zeroes.GRANULE]
        empty = not any(block)
        if found and found[-1][2] == empty:
            found[-1] = (found[-1][0], found[-1][1] + len(block), empty)
        else:
            found.append((start, len(block), empty))
    return found


BLOCKS = st.sampled_from(
    [bytes(4096), bytes(4095) + b"x", b"x" * 4096, bytes(65536), b"x" * 70000, bytes(1 << 20), b"\0x", b"\0"]
)


@given(st.lists(BLOCKS, max_size=12).map(b"".join))
def test_runs_cover_the_buffer_and_find_every_zero_granule(data: bytes) -> None:
    assert list(zeroes.runs(data)) == reference(data)


@given(st.lists(st.sampled_from([bytes(4096), bytes(65536), b"x" * 4096, b"\0x"]), max_size=20).map(b"".join))
def test_coarser_granules_are_zero_only_as_a_whole(data: bytes) -> None:
    granule, end = 65536, 0
    for start, size, empty in zeroes.runs(data, granule):
        assert start == end
        assert start % granule == 0
        assert not empty or not any(data[start : start + size])
        end = start + size
    assert end == len(data)
