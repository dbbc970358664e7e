import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.pipeline.pinned import Pinned

DATA = bytes(range(256)) * 64
PIECE = 1024


@given(st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(1, 3000)), max_size=12), st.integers(0, 4000))
def test_equal_bytes_always_pass_and_covers_are_the_bytes(spans: list[tuple[int, int]], budget: int) -> None:
    pinned = Pinned(piece=PIECE, budget=budget)
    for start, size in spans:
        pinned.add(start, DATA[start : start + size])
    for start in range(0, len(DATA), PIECE):
        pinned.check(start, memoryview(DATA)[start : start + PIECE])
        view = pinned.cover(start, start + 100)
        assert view is None or view == DATA[start : start + 100]


@pytest.mark.parametrize("budget", [0, 1 << 20])
@pytest.mark.parametrize("at", [0, 1023, 1024, 3000])
def test_one_changed_byte_is_noticed_whether_bytes_or_digests_are_kept(budget: int, at: int) -> None:
    pinned = Pinned(piece=PIECE, budget=budget)
    pinned.add(0, DATA[:3001])
    changed = bytearray(DATA[:4096])
    changed[at] ^= 1
    for start in range(0, at // PIECE * PIECE, PIECE):
        pinned.check(start, memoryview(changed)[start : start + PIECE])
    start = at // PIECE * PIECE
    with pytest.raises(Failure) as caught:
        pinned.check(start, memoryview(changed)[start : start + PIECE])
    assert caught.value.code == "source-changed"


def test_what_was_not_judged_may_differ() -> None:
    pinned = Pinned(piece=PIECE)
    pinned.add(0, DATA[:100])
    pinned.check(0, memoryview(DATA[:100] + b"anything"))
    assert pinned.cover(50, 101) is None
