"""Promises about the bytes: how checksum files are read, and how patiently they are fetched."""

from random import Random

import pytest
from fakes.memory_source import MemorySource
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.pipeline.patience import Policy
from importer.pipeline.promises import LARGEST_FILE, find, whole

HASTE = Policy(stall_seconds=0.1, give_up_seconds=0.5, first_delay=0.001, longest_delay=0.002)

A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    "text",
    [
        f"{A}  disk.img\n{B}  other.img\n",
        f"{A} *disk.img",
        f"{A}  ./disk.img",
        f"SHA256 (disk.img) = {A}",
        f"{A.upper()}  images/disk.img",
    ],
)
def test_gnu_and_bsd_lines_are_found_by_file_name(text: str) -> None:
    assert find(text, "disk.img").hex == A


def test_the_strongest_of_several_algorithms_counts() -> None:
    text = f"MD5 (disk.img) = {'c' * 32}\nSHA256 (disk.img) = {A}\n"
    assert find(text, "disk.img").algorithm == "sha256"


@pytest.mark.parametrize(
    "text", ["", f"{A}  other.img", f"{A}  disk.img\n{B}  disk.img", "<html>not found</html>", f"{A[:-1]}  disk.img"]
)
def test_a_missing_or_contradictory_line_is_a_named_failure(text: str) -> None:
    with pytest.raises(Failure) as caught:
        find(text, "disk.img", "https://example.org/SHA256SUMS")
    assert caught.value.code == "checksum-missing"


@given(st.integers(0, 200_000), st.booleans(), st.booleans(), st.integers(0, 1 << 32))
async def test_a_file_is_whole_however_often_it_breaks_off(length: int, ranges: bool, known: bool, seed: int) -> None:
    data = Random(seed).randbytes(length)
    source = MemorySource(data, ranges=ranges, known=known or ranges, breaks=0.4, seed=seed, chunk=30_000)
    assert await whole(source, Policy(first_delay=0.0, longest_delay=0.0)) == data


@pytest.mark.parametrize("ranges", [True, False])
async def test_a_file_that_stalls_is_asked_for_again_and_given_up_in_the_end(ranges: bool) -> None:
    source = MemorySource(bytes(100_000), ranges=ranges)
    source.stalls = {0, 1}
    assert len(await whole(source, HASTE)) == 100_000
    source.stalls = set(range(10**6))
    with pytest.raises(Failure) as caught:
        await whole(source, HASTE)
    assert caught.value.code == "stalled"


@pytest.mark.parametrize("known", [True, False])
async def test_no_more_is_read_than_a_checksum_file_may_have(known: bool) -> None:
    source = MemorySource(bytes(LARGEST_FILE * 3), ranges=False, known=known, chunk=100_000)
    with pytest.raises(Failure) as caught:
        await whole(source, HASTE)
    assert caught.value.code == "checksum-missing"
    assert source.fetched <= LARGEST_FILE + 100_000


async def test_a_server_that_always_breaks_off_at_the_same_place_is_given_up() -> None:
    source = MemorySource(bytes(400_000), ranges=False, breaks=1.0, chunk=10_000)
    source._random.randrange = lambda *_: 300_000  # type: ignore[method-assign]
    with pytest.raises(Failure) as caught:
        await whole(source, HASTE)
    assert caught.value.code in ("stalled", "overloaded")
