"""Whether an import goes on, and why not; what is left of a course; what is put down, and when."""

import hashlib
import threading
from dataclasses import replace
from itertools import pairwise

import pytest
from builders.courses import layouts, noted
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.api.request import Access, Checksum, ImportRequest
from importer.disk.chart import SECTOR, Run
from importer.disk.cutter import Cutter
from importer.disk.image import Format
from importer.disk.journal import Bond, Hashed, Mark, Past
from importer.pipeline import resume
from importer.pipeline.checkpoint import Checkpoints
from importer.pipeline.digest import Digests
from importer.pipeline.meter import Meter
from importer.pipeline.resume import Resume, decide
from importer.pipeline.route import Way
from importer.sources.protocol import SourceFacts

MIB = 1 << 20
BOND = Bond(request={"format": "raw"}, source={"length": 9 * MIB}, target="1:2", way="copy", piece=MIB)
HASHED = Hashed(bytes=2 * MIB, maker="me", states={"sha256": "00"}, units=2)
PAST = Past(bond=BOND, done=b"\1\1\0\1", hashed=HASHED)
SHA = frozenset({"sha256"})


class Silent:
    def progress(self, moment: object) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


def decided(
    past: Past | None, bond: Bond = BOND, *, restart: bool = False, maker: str = "me", of: frozenset[str] = frozenset()
) -> Resume:
    return decide(bond, past, restart=restart, maker=maker, algorithms=of)


def test_with_the_same_bond_it_goes_on() -> None:
    found = decided(PAST)
    assert (found.done, found.hashed, found.begins_anew) == (PAST.done, None, False)
    assert "3 MiB" in found.note


def test_with_nothing_there_it_begins_without_a_word() -> None:
    assert decided(None) == decided(replace(PAST, done=b"\0\0")) == Resume()


@pytest.mark.parametrize(
    ("changed", "word"),
    [({"request": {}}, "asked for"), ({"source": {}}, "source"), ({"target": "1:3"}, "another one"), ({"way": "native"}, "way"),
     ({"piece": 7}, "pieces")],
)  # fmt: skip
def test_whatever_changed_it_begins_anew_and_says_why(changed: dict[str, object], word: str) -> None:
    found = decided(PAST, replace(BOND, **changed))  # type: ignore[arg-type]
    assert found.begins_anew
    assert word in found.note


def test_it_begins_anew_when_told_to() -> None:
    assert "--restart" in decided(PAST, restart=True).note
    assert decided(PAST, restart=True).begins_anew


def test_with_a_digest_only_what_it_covers_is_kept() -> None:
    found = decided(PAST, of=SHA)
    assert (found.done, found.hashed) == (b"\1\1", HASHED)


@pytest.mark.parametrize(
    ("hashed", "maker", "of"),
    [(None, "me", SHA), (HASHED, "", SHA), (HASHED, "another", SHA), (HASHED, "me", SHA | {"md5"}),
     (replace(HASHED, units=0), "me", SHA)],
)  # fmt: skip
def test_a_digest_that_cannot_be_taken_up_costs_everything(hashed: Hashed | None, maker: str, of: frozenset[str]) -> None:
    assert decided(replace(PAST, hashed=hashed), maker=maker, of=of).begins_anew


def test_streams_go_on_from_a_mark_but_not_for_a_digest() -> None:
    bond, mark = replace(BOND, way="decode", piece=0), Mark(source=5, disk=7 * MIB)
    plain, marked = Past(bond=bond), Past(bond=bond, mark=mark)
    assert (decided(plain, bond).amends, decided(plain, bond).mark) == (True, None)
    assert (decided(marked, bond).amends, decided(marked, bond).mark) == (True, mark)
    assert (decided(marked, bond, of=SHA).amends, decided(marked, bond, of=SHA).mark) == (True, None)
    assert not decided(marked, bond).begins_anew
    assert "again from the beginning" in decided(plain, bond).note


@given(st.binary(max_size=12).map(lambda data: bytes(byte & 1 for byte in data)), st.integers(1, 12))
def test_what_is_not_done_is_missing(done: bytes, count: int) -> None:
    missing = Resume(done=done).missing(count)
    assert list(missing) == [int(index >= len(done) or not done[index]) for index in range(count)]


@given(st.lists(st.booleans(), min_size=1, max_size=9).map(bytes), st.integers(1, 7))
def test_pieces_are_summed_with_a_short_last_one(needed: bytes, last: int) -> None:
    sizes = [7] * (len(needed) - 1) + [last]
    assert resume.size_of(needed, sum(sizes), 7) == sum(size for size, one in zip(sizes, needed, strict=True) if one)


def request(**more: object) -> ImportRequest:
    return ImportRequest(source="https://a/b?secret=1", target="t", **more)  # type: ignore[arg-type]


def facts(**validators: str) -> SourceFacts:
    return SourceFacts(url="https://a/b", name="b", length=5, ranges=True, validators=validators)


def bond_of(way: Way, told: SourceFacts) -> Bond | None:
    return resume.bond(request(), told, b"head", image={}, way=way, target="1:2", piece=MIB)


def test_there_is_no_journal_without_a_validator_or_on_the_way_through_a_tool() -> None:
    assert bond_of(Way.COPY, facts()) is None
    assert bond_of(Way.CONVERT, facts(etag="x")) is None
    assert bond_of(Way.SPILL, facts(etag="x")) is None
    assert bond_of(Way.COPY, facts(etag="x")) != bond_of(Way.COPY, facts(etag="y"))


def test_another_command_has_another_digest_and_where_it_goes_does_not_matter() -> None:
    one = request()
    others = [
        replace(one, source="https://a/b?secret=2"), replace(one, format=Format.RAW.value), replace(one, size=5),
        replace(one, preallocate="falloc"), replace(one, checksum=Checksum(algorithm="md5", hex="0")), replace(one, digest="md5"),
        replace(one, checksum_url="https://a/c"),
    ]  # fmt: skip
    assert len({resume.command(other) for other in [one, *others]}) == len(others) + 1
    assert resume.command(replace(one, access=Access(connections=2))) == resume.command(one)
    assert "secret" not in resume.command(one)


PIECE = 4 * SECTOR


def cut(runs: list[Run], pieces: list[int], length: int) -> set[tuple[int, int]]:
    """Return which bytes of the object go where on the disk (packed ones: all of them to where they begin)."""
    course, image = noted(runs).course(), bytearray(length)
    cutter = Cutter(course)
    return _cut(cutter, image, pieces)


def _cut(cutter: Cutter, image: bytearray, pieces: list[int]) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    for index in pieces:
        start = index * PIECE
        for part in cutter.cut(start, memoryview(image)[start : start + PIECE]):
            if part.packed:
                found.add((part.guest, -1))
            else:
                found |= {(part.guest + at, part.host + at) for at in range(0, len(part.data), SECTOR)}
    return found


@given(layouts(), st.data())
def test_what_is_left_of_a_course_is_what_was_missing(runs: list[Run], draw: st.DataObject) -> None:
    length = max((run.host + run.size for run in runs), default=SECTOR)
    count = -(-length // PIECE)
    done = bytes(draw.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    course, image = noted(runs).course(), bytearray(length)
    whole = _cut(Cutter(course), image, list(range(count)))
    # The first import: a piece counts as done with all that ends in it, wherever that began.
    first: set[tuple[int, int]] = set()
    cutter = Cutter(course)
    for index in range(count):
        got = _cut(cutter, image, [index])
        first |= got if done[index] else set()
    left = course.without(done, PIECE)
    needed = left.pieces(length, PIECE)
    second_cutter = Cutter(left)
    second = _cut(second_cutter, image, [index for index in range(count) if needed[index]])
    assert second_cutter.done
    hosts = {pair for pair in whole if pair[1] < 0}
    assert first | second >= hosts
    assert {guest for guest, _ in first | second} == {guest for guest, _ in whole}
    assert not {guest for guest, _ in first} & {guest for guest, _ in second}


# -- digests and checkpoints


class Disk:
    """A target and a journal in one, that keep the order of what was asked of them."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.fails = False

    def flush(self) -> None:
        self.calls.append(("flush",))
        if self.fails:
            raise Failure("io", "broken")

    def add(self, done: list[int], hashed: Hashed | None, mark: Mark | None) -> None:
        self.calls.append((sorted(done), hashed, mark))


DATA = bytes(range(256)) * 40


@given(st.lists(st.integers(1, 3000), max_size=6), st.data())
def test_digests_go_on_from_every_place_where_they_were_kept(sizes: list[int], draw: st.DataObject) -> None:
    cuts = sorted({min(sum(sizes[:index]), len(DATA)) for index in range(len(sizes) + 1)} | {0, len(DATA)})
    first, kept = Digests(("sha256", "md5"), Meter(reporter=Silent())), set()
    try:
        for start, end in pairwise(cuts):
            keep = tuple(sorted(draw.draw(st.sets(st.integers(start + 1, end), max_size=3))))
            kept |= set(keep)
            first._update(start, memoryview(bytearray(DATA[start:end])), keep)
        reach = draw.draw(st.integers(0, len(DATA)))
        hashed = first.snapshot(3, reach)
        below = [at for at in kept if at <= reach]
        assert (hashed.bytes if hashed else None) == (max(below) if below else None)
        if hashed is None:
            return
        second = Digests(("sha256", "md5"), Meter(reporter=Silent()))
        second.go_on(hashed)
        again = draw.draw(st.integers(0, hashed.bytes))
        second._update(again, memoryview(bytearray(DATA[again:])), ())
        assert second.results() == first.results() == {name: hashlib.new(name, DATA).hexdigest() for name in ("md5", "sha256")}
        second.close()
    finally:
        first.close()


def test_digests_take_nothing_out_of_order() -> None:
    digests = Digests(("sha256",), Meter(reporter=Silent()))
    digests._update(0, memoryview(bytearray(10)), ())
    with pytest.raises(Failure, match="order"):
        digests._update(11, memoryview(bytearray(10)), ())
    digests.close()


def checkpoints(disk: Disk, *algorithms: str, done: bytes = b"") -> Checkpoints:
    return Checkpoints(disk, disk, Digests(algorithms, Meter(reporter=Silent())), Resume(done=done), piece=10)


def test_data_is_flushed_before_it_is_told_of() -> None:
    disk = Disk()
    points = checkpoints(disk)
    points.save()
    assert not disk.calls
    points.done(4, 10)
    points.done(1, 10)
    points.mark(Mark(source=1, disk=2))
    points.save()
    points.save()
    assert disk.calls == [("flush",), ([1, 4], None, Mark(source=1, disk=2))]


def test_nothing_is_told_of_after_a_flush_failed() -> None:
    disk = Disk()
    points = checkpoints(disk)
    points.done(0, 10)
    disk.fails = True
    with pytest.raises(Failure):
        points.save()
    disk.fails = False
    points.done(1, 10)
    for ask in (points.save, points.rest):
        with pytest.raises(Failure):
            ask()
    assert disk.calls == [("flush",)]
    assert not points.saved


async def test_a_save_that_fails_ends_the_import() -> None:
    disk = Disk()
    disk.fails = True
    points = checkpoints(disk)
    points.done(0, 65 * MIB)
    with pytest.raises(Failure, match="broken"):
        await points.run()


def test_the_digest_that_is_put_down_is_of_the_leading_pieces() -> None:
    disk = Disk()
    points = checkpoints(disk, "sha256", done=b"\1")
    for at in range(0, 50, 10):
        points._digests._update(at, memoryview(bytearray(10)), (at + 10,))
    points.done(1, 10)
    points.done(3, 10)
    points.save()
    points.done(2, 10)
    points.save()
    kept = [call[1] for call in disk.calls if len(call) == 3]
    assert [(hashed.bytes, hashed.units) for hashed in kept if isinstance(hashed, Hashed)] == [(20, 2), (40, 4)]
    points._digests.close()


def test_whoever_waits_for_the_last_save_waits() -> None:
    disk, going, go = Disk(), threading.Event(), threading.Event()
    points = checkpoints(disk)

    def slowly() -> None:
        going.set()
        assert go.wait(10)

    disk.flush = slowly  # type: ignore[method-assign]
    points.done(0, 1)
    saver = threading.Thread(target=points.save)
    saver.start()
    assert going.wait(10)
    waiter = threading.Thread(target=points.rest)
    waiter.start()
    waiter.join(0.05)
    assert waiter.is_alive()
    go.set()
    waiter.join(10)
    saver.join(10)
    assert points.saved
