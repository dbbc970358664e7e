import pytest

from importer.pipeline.movers import THREADS, threads_for

MIB = 1 << 20


@pytest.mark.parametrize(
    ("dictionary", "memory", "expected"), [(8 * MIB, 256 * MIB, THREADS), (200 * MIB, 256 * MIB, 1), (None, MIB, THREADS)]
)
def test_larger_dictionaries_use_fewer_threads(dictionary: int | None, memory: int, expected: int) -> None:
    assert threads_for(dictionary, memory) == expected
