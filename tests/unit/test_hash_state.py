"""Hashes that are interrupted anywhere and go on in another object."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery.process.hash_state import KeptHash, maker

ALGORITHMS = ("md5", "sha1", "sha256", "sha512")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(parts=st.lists(st.binary(max_size=300), max_size=8))
def test_a_state_taken_up_after_each_part_gives_the_digest_of_the_whole(algorithm: str, parts: list[bytes]) -> None:
    kept = KeptHash(algorithm)
    for part in parts:
        kept = KeptHash(algorithm, kept.state)
        kept.update(memoryview(bytearray(part)))
    whole = b"".join(parts)
    assert kept.hexdigest() == hashlib.new(algorithm, whole).hexdigest()
    assert kept.hashed == len(whole)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_asking_for_the_digest_does_not_end_the_hash(algorithm: str) -> None:
    kept = KeptHash(algorithm)
    kept.update(b"one")
    kept.hexdigest()
    kept.update(memoryview(b"two"))
    assert kept.hexdigest() == hashlib.new(algorithm, b"onetwo").hexdigest()


def test_more_than_four_gigabits_are_counted() -> None:
    kept = KeptHash("sha256")
    chunk = memoryview(bytearray(64 << 20))
    for _ in range(9):
        kept.update(chunk)
    assert kept.hashed == 9 * (64 << 20)


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="112 bytes"):
        KeptHash("sha256", b"short")
    with pytest.raises(ValueError, match="no blake2b"):
        KeptHash("blake2b")


def test_the_maker_names_library_and_processor() -> None:
    assert len(maker().split()) == 2
