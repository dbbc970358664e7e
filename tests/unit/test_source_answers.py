"""HTTP answers: headers parsed strictly, versions told apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.sources.answers import (
    Answer,
    Broken,
    ContentRange,
    Version,
    content_range,
    opening,
    part_end,
    printable,
    refusal,
    retry_after,
)
from importer.sources.protocol import Interrupted

LATER = "Tue, 02 Jan 2024 00:00:00 GMT"
THEN = "Mon, 01 Jan 2024 00:00:00 GMT"


def answer(status: int, **headers: str) -> Answer:
    return Answer(
        status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}, now=0.0, url="http://h/"
    )


@given(st.integers(0, 1 << 60), st.integers(1, 1 << 40), st.integers(0, 1 << 40) | st.none())
def test_a_content_range_is_read_back(start: int, size: int, beyond: int | None) -> None:
    total = None if beyond is None else start + size + beyond
    text = f"bytes {start}-{start + size - 1}/{'*' if total is None else total}"
    assert content_range(text) == ContentRange(start=start, end=start + size, total=total)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes",
        "bytes 0-1",
        "bytes 5-4/10",
        "bytes 0-10/10",
        "bytes -1-2/3",
        "items 0-1/2",
        "bytes 0-1/2, bytes 3-4/5",
        "bytes */5",
        "bytes 0-١/2",
        "bytes=0-1/2",
        "bytes 0 - 1/2",
    ],
)
def test_anything_else_is_no_content_range(text: str) -> None:
    assert content_range(text) is None


@given(st.text())
def test_no_header_text_upsets_the_parsers(text: str) -> None:
    content_range(text)
    retry_after(text, 0.0)
    Version(length=1, etag=text, last_modified=text, date=text).if_range()


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after("120", 0.0) == 120.0
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 20.0) == 40.0
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 100.0) == 0.0
    for text in ("", "-5", "1.5", "soon", "99999999999999"):
        assert retry_after(text, 0.0) is None


@pytest.mark.parametrize(
    ("version", "condition"),
    [
        (Version(length=1, etag='"a"', last_modified=THEN, date=LATER), '"a"'),
        (Version(length=1, etag='W/"a"', last_modified=THEN, date=LATER), None),
        (Version(length=1, last_modified=THEN, date=LATER), THEN),
        (Version(length=1, last_modified=THEN, date=THEN), None),
        (Version(length=1, last_modified=THEN), None),
        (Version(length=1), None),
    ],
)
def test_only_strong_validators_are_conditions(version: Version, condition: str | None) -> None:
    assert version.if_range() == condition


def test_versions_contradict_only_in_what_both_know() -> None:
    one = Version(length=5, etag='"a"', last_modified=THEN)
    assert one.contradicts(Version(length=None)) is None
    assert one.contradicts(Version(length=5, etag='W/"a"')) is None
    assert one.contradicts(Version(length=6)) == "length"
    assert one.contradicts(Version(length=5, etag='"b"')) == "etag"
    assert one.contradicts(Version(length=5, last_modified=LATER)) == "last-modified"
    assert one.proves(Version(length=5, etag='"a"'))
    assert one.proves(Version(length=5, last_modified=THEN))
    assert not one.proves(Version(length=5))
    assert not one.proves(Version(length=5, etag='"b"', last_modified=THEN))
    assert not Version(length=5).proves(Version(length=5))
    assert not Version(length=None, etag='"a"').proves(Version(length=None, etag='"a"'))


def test_an_opening_tells_length_and_ranges() -> None:
    found = opening(answer(206, content_range="bytes 0-9/50", content_length="10"), asked=10)
    assert (found.length, found.ranges, found.size) == (50, True, 10)
    found = opening(answer(200, content_length="50"), asked=10)
    assert (found.length, found.ranges, found.size) == (50, False, 50)
    found = opening(answer(200, transfer_encoding="chunked"), asked=10)
    assert (found.length, found.size) == (None, None)
    assert opening(answer(416, content_range="bytes */0"), asked=10).length == 0


@pytest.mark.parametrize(
    "again",
    [
        answer(416, content_range="bytes */7"),
        answer(206, content_range="bytes 0-9/*"),
        answer(206, content_range="bytes 0-9/50", content_encoding="gzip"),
        answer(200, content_encoding="br"),
    ],
)
def test_some_openings_are_asked_for_again_without_a_range(again: Answer) -> None:
    assert opening(again, asked=10).again


@pytest.mark.parametrize(
    ("bad", "asked"),
    [
        (answer(206), 10),
        (answer(206, content_range="bytes 1-9/50"), 10),
        (answer(206, content_range="bytes 0-10/50"), 10),
        (answer(206, content_range="bytes 0-9/50", content_length="11"), 10),
        (answer(206, content_range="bytes 0-9/50"), None),
        (answer(200, content_encoding="gzip"), None),
    ],
)
def test_lies_in_an_opening_are_protocol_errors(bad: Answer, asked: int | None) -> None:
    with pytest.raises(Failure) as caught:
        opening(bad, asked=asked)
    assert caught.value.code == "protocol"


def test_a_part_ends_where_it_was_asked_to_or_earlier() -> None:
    known = Version(length=50, etag='"a"')
    assert part_end(answer(206, content_range="bytes 10-19/50"), start=10, end=20, known=known) == 20
    assert part_end(answer(206, content_range="bytes 10-14/50"), start=10, end=20, known=known) == 15
    assert part_end(answer(206, content_range="bytes 10-14/*"), start=10, end=20, known=known) == 15
    with pytest.raises(Failure):
        part_end(answer(206, content_range="bytes 10-20/50"), start=10, end=20, known=known)
    with pytest.raises(Interrupted):
        part_end(answer(200, etag='"a"', content_length="50"), start=10, end=20, known=known)


def test_a_busy_server_is_crowded_and_a_missing_object_is_final() -> None:
    busy = refusal(answer(503, retry_after="9"))
    assert isinstance(busy, Broken)
    assert (busy.crowded, busy.retry_after, busy.failure.code) == (True, 9.0, "overloaded")
    gone = refusal(answer(404))
    assert isinstance(gone, Failure)
    assert gone.code == "not-found"


def test_an_excerpt_holds_no_control_characters_and_no_secrets() -> None:
    assert printable(b"a\x1b[2J\nb \xff s3cret" + b"x" * 500, ("s3cret",)).startswith("a [2J b \ufffd ***xxx")
    assert len(printable(b"x" * 500)) == 200
