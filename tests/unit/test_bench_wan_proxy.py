"""The modelled wide-area link: what its paces allow, in simulated time."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from wan_proxy import BURST, CONNECTION_RATE, LINK_RATE, PIECE, Pace, departure


def rate_of(connections: int, *, late: float = 0.0, seconds: float = 4.0) -> float:
    """Return bytes a second through the link when every connection sends whenever it may, its timers waking `late`."""
    link, paces = Pace(LINK_RATE), [Pace(CONNECTION_RATE) for _ in range(connections)]
    free = [0.0] * connections
    sent = 0
    while True:
        turn = min(range(connections), key=free.__getitem__)
        if free[turn] >= seconds:
            return sent / seconds
        free[turn] = departure(free[turn], PIECE, paces[turn], link) + late
        sent += PIECE


@pytest.mark.parametrize("late", [0.0, 0.002])
@pytest.mark.parametrize(("connections", "expected"), [(1, 30e6), (2, 60e6), (4, 120e6), (8, 125e6), (16, 125e6)])
def test_a_connection_has_30_mb_a_second_and_all_together_125(connections: int, expected: float, late: float):
    assert rate_of(connections, late=late) == pytest.approx(expected, rel=0.02)


@given(
    sizes=st.lists(st.integers(1, PIECE), min_size=1, max_size=50),
    pauses=st.lists(st.floats(0, 1), min_size=50, max_size=50),
)
def test_no_pace_is_ever_exceeded_by_more_than_a_burst(sizes: list[int], pauses: list[float]):
    pace, now, gone = Pace(CONNECTION_RATE), 0.0, 0
    for size, pause in zip(sizes, pauses, strict=False):
        now += pause
        left = pace.reserve(now, size)
        gone += size
        assert gone <= CONNECTION_RATE * (max(left, now) + BURST) * (1 + 1e-9)
        now = max(now, left)


def test_requests_are_not_paced():
    assert departure(5.0, 400) == 5.0
