"""What people and scripts see of an import, and what streams that fail do to it."""

import io
import json
import os
import re
from dataclasses import replace

import pytest

from importer.api.failure import Failure
from importer.api.report import Inspection, Progress, Receipt, Stage
from importer.pages import Pace, failure_lines, inspection_page, moment_line, plain, receipt_page, show_time
from importer.terminal import Bar, JsonLines, Lines, Out, Quiet, choose

MIB = 1 << 20
RECEIPT = Receipt(
    source="https://images.example/debian.qcow2?sig=***",
    validators={"etag": '"abc"'},
    digests={"sha256": "ab" * 32},
    verified=("sha256 of --checksum",),
    target="/srv/disk.img",
    format="qcow2",
    wrapper="gzip",
    route="qemu-img over NBD, window of 48 MiB",
    virtual_size=10 << 30,
    allocated_size=1 << 30,
    source_length=500 * MIB,
    bytes_fetched=500 * MIB,
    bytes_decoded=1 << 30,
    bytes_written=1 << 30,
    bytes_zero=9 << 30,
    bytes_spilled=0,
    seconds=12.3,
    stages=(
        Stage(name="fetch", busy_seconds=10.0, waiting_seconds=2.0),
        Stage(name="write", busy_seconds=3.0, waiting_seconds=9.0),
    ),
    limiting_stage="fetch",
    retries=1,
    connections=4,
    peak_rss=90 * MIB,
    sandbox="nobody, empty network namespace",
    versions={"slipstream": "0.1.0", "qemu-img": "7.2.22"},
    notes=tuple(f"note {number}" for number in range(9)),
)
INSPECTION = Inspection(
    source="https://images.example/debian.qcow2",
    length=500 * MIB,
    format="qcow2",
    wrapper=None,
    virtual_size=10 << 30,
    compressed=None,
    server={"ranges": "yes"},
    image={"version": "3"},
    fits="yes",
    dangers=(),
    warnings=("the server names no validator",),
    bytes_read=65536,
    requests=1,
)


def desk(kind, **options):
    out, err = io.StringIO(), io.StringIO()
    return kind(Out(out), Out(err), **options), out, err


def moments(seconds, step=0.1, speed=10 * MIB):
    for count in range(round(seconds / step) + 1):
        at = count * step
        yield Progress(phase="transferring", fetched=int(at * speed), fetch_total=1 << 30, seconds=at, connections=4, retries=2)


def test_the_receipt_is_short_and_tells_what_matters():
    page = receipt_page(RECEIPT)
    assert len(page.splitlines()) <= 20
    for text in (
        "10.0 GiB virtual, 1.0 GiB allocated (10 %)",
        "qcow2 in gzip",
        "limited by fetch",
        "sha256:ab",
        "nobody",
        "12.3 s",
    ):
        assert text in page
    assert "fetch 10.0 + 2.0" in page
    assert "5 more" in page


def test_the_receipt_of_nothing_much_is_shown_too():
    bare = replace(RECEIPT, digests={}, verified=(), validators={}, stages=(), notes=(), wrapper=None, virtual_size=0)
    assert "not asked for" in receipt_page(bare)


def test_an_inspection_tells_what_is_unknown_and_what_is_dangerous():
    assert "unknown until decoded" in inspection_page(INSPECTION)
    assert "nothing found that would stop an import" in inspection_page(INSPECTION)
    danger = Failure("unsafe", "the image names a backing file", field="backing_file", value="/etc/\x1b[31mshadow").as_json()
    page = inspection_page(replace(INSPECTION, dangers=(danger,)))
    assert "error[unsafe]: the image names a backing file" in page
    assert "value: /etc/\\x1b[31mshadow" in page


def test_no_control_character_of_an_image_reaches_the_terminal():
    assert plain("a\x1b]0;owned\x07\nb\u202ec") == "a\\x1b]0;owned\\x07\\nb\\u202ec"
    shown = failure_lines(Failure("unsafe", "it says \x1b[2J", value="x\r\nerror[none]: all is well"))
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 3


def test_rate_and_time_left_follow_the_last_ten_seconds():
    pace = Pace()
    assert pace.rate == 0
    for moment in moments(20, speed=50 * MIB):
        pace.note(moment)
    for moment in moments(31):
        if moment.seconds > 20:
            moment = replace(moment, fetched=moment.fetched + 800 * MIB)
            pace.note(moment)
    assert pace.rate == pytest.approx(10 * MIB, rel=0.02)
    assert pace.left(replace(moment, fetch_total=None)) is None
    pace.note(replace(moment, fetched=0, seconds=32))
    assert pace.rate == 0


def test_a_moment_is_told_with_and_without_a_total():
    pace = Pace()
    for moment in moments(2):
        pace.note(moment)
    assert moment_line(moment, pace) == (
        "transferring: 20.0 MiB of 1.0 GiB (1 %), 10.0 MiB/s, 1 min 40 s left, 4 connections, 2 retries"
    )
    assert moment_line(Progress(phase="probing"), Pace()) == "probing: 0 B"
    assert (
        moment_line(Progress(phase="converting", written=MIB, retries=1), Pace()) == "converting: 0 B, 1.0 MiB written, 1 retry"
    )


def test_times_are_written_for_people():
    assert [show_time(4.23), show_time(61), show_time(7500)] == ["4.2 s", "1 min 01 s", "2 h 05 min"]


def test_lines_come_every_three_seconds_on_standard_error():
    reporter, out, err = desk(Lines)
    for moment in moments(10):
        reporter.progress(moment)
    reporter.note("a spill of 3 GiB")
    assert len(re.findall("transferring", err.getvalue())) == 3
    assert "note: a spill of 3 GiB" in err.getvalue()
    assert out.getvalue() == ""
    reporter.receipt(RECEIPT)
    assert out.getvalue() == receipt_page(RECEIPT) + "\n"


def test_json_lines_carry_their_event():
    reporter, out, err = desk(JsonLines)
    for moment in moments(3):
        reporter.progress(moment)
    reporter.progress(Progress(phase="syncing", seconds=3.01))
    reporter.note("careful")
    reporter.receipt(RECEIPT)
    reporter.inspection(INSPECTION)
    reporter.failure(Failure("stalled", "nothing came"))
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [one["event"] for one in events] == ["progress"] * 4 + ["progress", "note", "receipt", "inspection", "failure"]
    assert events[4]["phase"] == "syncing"
    assert events[6]["stages"][0]["name"] == "fetch"
    assert (events[-1]["code"], events[-1]["exit"], events[-1]["retryable"]) == ("stalled", 75, True)
    assert err.getvalue().startswith("error[stalled]: nothing came")


def test_quiet_json_has_only_the_end():
    reporter, out, _ = desk(JsonLines, quiet=True)
    for moment in moments(3):
        reporter.progress(moment)
    reporter.note("careful")
    reporter.receipt(RECEIPT)
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["receipt"]


def test_quiet_says_only_why_it_failed():
    reporter, out, err = desk(Quiet)
    reporter.progress(Progress(phase="probing", seconds=9))
    reporter.note("careful")
    reporter.receipt(RECEIPT)
    assert out.getvalue() + err.getvalue() == ""
    reporter.failure(Failure("stalled", "nothing came"))
    assert "what to do" in err.getvalue()


def test_the_bar_is_drawn_on_a_terminal_and_taken_away(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    drawn = io.StringIO()
    drawn.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", drawn)
    out = io.StringIO()
    reporter = choose(json_lines=False, quiet=False, out=Out(out), err=Out(drawn))
    assert isinstance(reporter, Bar)
    for moment in moments(2):
        reporter.progress(moment)
    reporter.note("careful [bold]\x1b")
    reporter.receipt(RECEIPT)
    assert "transferring: 19.0 MiB of 1.0 GiB" in drawn.getvalue()
    assert "note: careful [bold]\\x1b" in drawn.getvalue()
    assert "imported" in out.getvalue()


def test_the_reporter_suits_the_stream(monkeypatch):
    out = Out(io.StringIO())
    assert type(choose(json_lines=False, quiet=False, out=out, err=out)) is Lines
    assert type(choose(json_lines=False, quiet=True, out=out, err=out)) is Quiet
    assert type(choose(json_lines=True, quiet=True, out=out, err=out)) is JsonLines


def test_a_reader_that_went_away_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        out = Out(stream)
        for _ in range(3):
            out.line("x" * 100_000)
    Out(None).line("a closed descriptor")


def test_a_full_output_is_an_error_and_stays_one():
    with open("/dev/full", "w") as stream:
        out = Out(stream)
        for _ in range(2):
            with pytest.raises(Failure) as caught:
                out.line("text")
            assert caught.value.code == "io"
        reporter = JsonLines(out, Out(io.StringIO()))
        reporter.progress(Progress(phase="probing"))
        with pytest.raises(Failure):
            reporter.receipt(RECEIPT)
