"""A journal says what was written into it, wherever its file is cut, and nothing at all once it was tampered with."""

from contextlib import suppress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from importer.disk import journal
from importer.disk.journal import Bond, Damaged, Finished, Hashed, Mark, Past

BOND = Bond(
    request={"format": None}, source={"length": 5, "validators": {"etag": '"é"'}}, target="fe:12", way="copy", piece=1 << 20
)
hex_states = st.dictionaries(st.sampled_from(["md5", "sha256"]), st.binary(max_size=20).map(bytes.hex), max_size=2)
numbers = st.integers(0, 1 << 50)
hashes = st.builds(Hashed, bytes=numbers, maker=st.text(max_size=5), states=hex_states, units=numbers)
marks = st.builds(Mark, source=numbers, disk=numbers)
records = st.lists(st.tuples(st.sets(st.integers(0, 300), max_size=20), st.none() | hashes, st.none() | marks), max_size=6)
Told = list[tuple[set[int], Hashed | None, Mark | None]]


def lines(told: Told) -> list[bytes]:
    return [journal.opening(BOND), *(journal.record(*one) for one in told)]


def expected(told: Told) -> Past:
    pieces = set().union(*(done for done, _, _ in told))
    last_hash = [hashed for _, hashed, _ in told if hashed is not None]
    last_mark = [mark for _, _, mark in told if mark is not None]
    return Past(
        bond=BOND,
        done=bytes(index in pieces for index in range(max(pieces, default=-1) + 1)),
        hashed=last_hash[-1] if last_hash else None,
        mark=last_mark[-1] if last_mark else None,
    )


@given(records, st.data())
def test_cut_anywhere_it_tells_a_prefix(told: Told, draw: st.DataObject) -> None:
    whole = lines(told)
    data = b"".join(whole)
    cut = draw.draw(st.integers(0, len(data)))
    complete = sum(1 for index in range(len(whole)) if len(b"".join(whole[: index + 1])) <= cut)
    assert journal.replay(data[:cut]) == (expected(told[: complete - 1]) if complete else None)


@given(records, st.data())
def test_a_changed_byte_is_noticed_or_costs_the_last_line(told: Told, draw: st.DataObject) -> None:
    whole = lines(told)
    data = bytearray(b"".join(whole))
    at = draw.draw(st.integers(0, len(data) - 1))
    before = data[at]
    data[at] = draw.draw(st.integers(0, 255).filter(lambda value: value != before))
    # The case of the checksum's digits does not matter, nor does Python's way to write 00 as 0_.
    assume(chr(before).lower() != chr(data[at]).lower() and data[at] != ord("_"))
    last = len(data) - len(whole[-1])
    if at < last - 1:
        with pytest.raises(Damaged):
            journal.replay(bytes(data))
    elif at == last - 1:  # the end of the line before: the two are one, and damaged
        assert journal.replay(bytes(data)) == (expected(told[:-2]) if len(told) > 1 else None)
    else:
        with suppress(Damaged):  # a line end in the middle of it makes two damaged lines
            assert journal.replay(bytes(data)) == (expected(told[:-1]) if told else None)


@given(records)
def test_written_anew_it_tells_the_same(told: Told) -> None:
    past = expected(told)
    assert journal.replay(journal.whole(past)) == past


def test_it_tells_that_a_disk_was_about_to_be_published() -> None:
    finished = Finished(file="fe:12", size=5, modified=7, request="abc", receipt={"notes": ["a"]})
    past = journal.replay(journal.opening(BOND) + journal.record([0]) + journal.ending(finished))
    assert past == Past(bond=BOND, done=b"\x01", finished=finished)
    assert journal.replay(journal.whole(past)) == past


def sealed(text: bytes) -> bytes:
    import zlib

    return b"%08x %s\n" % (zlib.crc32(text), text)


@pytest.mark.parametrize(
    "line",
    [b"{}", b'{"done":[[2,1]]}', b'{"done":[[-1,1]]}', b'{"done":[[0,99999999999]]}', b'{"done":[["0",1]]}',
     b'{"done":[],"mark":{}}', b'{"done":[],"hashed":7}', b'{"finished":{}}', b"[]"],
)  # fmt: skip
def test_sealed_nonsense_is_refused(line: bytes) -> None:
    good = journal.opening(BOND)
    with pytest.raises(Damaged):
        journal.replay(good + sealed(line) + journal.record([1]))


def test_another_version_is_refused() -> None:
    with pytest.raises(Damaged, match="another version"):
        journal.replay(sealed(b'{"slipstream-journal":99}') + journal.record([1]))


def test_neighbours_take_no_room() -> None:
    assert len(journal.record(range(1_000_000))) < 60
