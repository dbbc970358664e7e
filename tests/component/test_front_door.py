"""How a command ends: exit statuses, signals, receipts, streams that go away. Only the pipeline is a stand-in."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from importer import cli
from importer.api.failure import Failure
from importer.api.report import Inspection, Progress, Receipt, Stage
from machinery.service.interrupt import Stopped, until_signalled
from slipstream.__main__ import main

RECEIPT = Receipt(
    source="http://x/y", validators={}, digests={}, verified=(), target="t", format="raw", wrapper=None, route="ranges",
    virtual_size=1, allocated_size=1, source_length=1, bytes_fetched=1, bytes_decoded=1, bytes_written=1, bytes_zero=0,
    bytes_spilled=0, seconds=1.0, stages=(Stage(name="fetch", busy_seconds=1.0, waiting_seconds=0.0),), limiting_stage="fetch",
    retries=0, connections=1, peak_rss=1, sandbox="no tool was run", versions={},
)  # fmt: skip
BASIS = {"source": "x", "length": 1, "format": "raw", "wrapper": None, "virtual_size": 1, "compressed": False}


@pytest.fixture
def pipeline(monkeypatch):
    """Put coroutine functions in place of the pipeline's."""

    def put(**functions):
        for name, function in functions.items():
            module = ModuleType(f"importer.pipeline.{name}")
            setattr(module, name, function)
            monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


def inspected(fits="yes", dangers=()):
    async def inspect(request, target):
        return Inspection(**BASIS, server={}, image={}, fits=fits, dangers=tuple(one.as_json() for one in dangers))

    return inspect


async def succeed(request, reporter):
    reporter.progress(Progress(phase="transferring"))
    return RECEIPT


def test_a_successful_import_ends_with_0_and_prints_its_receipt(pipeline, capsys):
    pipeline(run=succeed)
    assert main(["import", "http://x/y", "t"]) == 0
    assert "imported  " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "status"), [("unsafe", 65), ("not-found", 69), ("no-space", 73), ("stalled", 75), ("denied", 77)]
)
def test_a_failure_ends_with_the_status_of_its_code(pipeline, capsys, code, status):
    async def run(request, reporter):
        raise Failure(code, "because", field="value")

    pipeline(run=run)
    assert main(["import", "http://x/y", "t", "--json"]) == status
    shown = capsys.readouterr()
    assert json.loads(shown.out)["code"] == code
    assert shown.err.startswith(f"error[{code}]: because\n  field: value\n  what to do: ")


def test_a_failure_inside_a_group_is_found(pipeline, capsys):
    async def run(request, reporter):
        raise ExceptionGroup("tasks", [ValueError("x"), ExceptionGroup("inner", [Failure("corrupt", "bad")])])

    pipeline(run=run)
    assert main(["import", "http://x/y", "t"]) == 65


def test_a_fault_of_ours_shows_type_and_place_but_no_text(pipeline, capsys, monkeypatch):
    async def run(request, reporter):
        raise ValueError("https://x/?signature=hunter2")

    monkeypatch.delenv(cli.DEBUG, raising=False)
    pipeline(run=run)
    assert main(["import", "http://x/y", "t"]) == 70
    shown = capsys.readouterr().err
    assert "unexpected ValueError" in shown
    assert "at: test_front_door.py:" in shown
    assert "hunter2" not in shown
    assert "Traceback" not in shown
    monkeypatch.setenv(cli.DEBUG, "1")
    main(["import", "http://x/y", "t"])
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_and_waits_for_the_clean_up(pipeline, capsys, number):
    cleaned = []

    async def run(request, reporter):
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
        try:
            await asyncio.sleep(30)
        finally:
            os.kill(os.getpid(), number)  # an impatient second one must not cut the clean-up short
            await asyncio.sleep(0.05)
            cleaned.append(True)

    pipeline(run=run)
    assert main(["import", "http://x/y", "t"]) == 75
    assert cleaned == [True]
    assert f"signal: {number.name}" in capsys.readouterr().err


def test_a_tool_that_the_same_signal_killed_does_not_hide_the_interruption(pipeline, capsys):
    async def run(request, reporter):
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise Failure("tool-failed", "qemu-img was killed") from None

    pipeline(run=run)
    assert main(["import", "http://x/y", "t"]) == 75


def test_an_import_published_before_the_signal_was_heard_has_succeeded(pipeline):
    async def run(request, reporter):
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return RECEIPT

    pipeline(run=run)
    assert main(["import", "http://x/y", "t", "--quiet"]) == 0


async def test_a_clean_up_that_hangs_is_given_up_after_its_time():
    async def stubborn():
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(2):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                continue

    with pytest.raises(Stopped) as caught:
        await until_signalled(stubborn(), grace=0.05)
    assert (caught.value.signal, caught.value.tidy) == ("SIGTERM", False)


@pytest.mark.parametrize(
    ("dangers", "fits", "status"),
    [
        ((), "yes", 0),
        ((), "not asked", 0),
        ((), "no: 3 GiB are missing", 73),
        ((Failure("unsafe", "x"), Failure("no-space", "y")), "no: too large", 65),
        ((Failure("tls", "x"),), "not asked", 69),
    ],
)
def test_inspect_ends_as_an_import_would(pipeline, capsys, dangers, fits, status):
    pipeline(inspect=inspected(fits, dangers))
    assert main(["inspect", "http://x/y"]) == status
    capsys.readouterr()
    assert main(["inspect", "http://x/y", "--json"]) == status
    found = json.loads(capsys.readouterr().out)
    assert (found["event"], found["fits"]) == ("inspection", fits)


def test_the_receipt_is_written_whole_and_replaces_an_older_one(pipeline, tmp_path: Path, capsys):
    pipeline(run=succeed)
    path = tmp_path / "receipt.json"
    path.write_text("older")
    assert main(["import", "http://x/y", "t", "--receipt", str(path)]) == 0
    assert json.loads(path.read_text())["route"] == "ranges"
    assert os.listdir(tmp_path) == ["receipt.json"]


def test_the_receipt_may_go_to_standard_output_alone(pipeline, capsys):
    pipeline(run=succeed)
    assert main(["import", "http://x/y", "t", "--receipt", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "raw"


def test_the_receipt_may_go_into_a_pipe(pipeline, capsys):
    pipeline(run=succeed)
    reading, writing = os.pipe()
    assert main(["import", "http://x/y", "t", "--receipt", f"/dev/fd/{writing}"]) == 0
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert json.load(pipe)["format"] == "raw"


def test_a_receipt_that_cannot_be_written_is_refused_before_the_import(pipeline, tmp_path: Path, capsys):
    async def run(request, reporter):
        raise AssertionError("must not be reached")

    pipeline(run=run)
    assert main(["import", "http://x/y", "t", "--receipt", str(tmp_path / "missing" / "r")]) == 73
    assert main(["import", "http://x/y", "t", "--receipt", str(tmp_path)]) == 73


def test_a_receipt_lost_after_the_import_says_that_the_disk_is_there(pipeline, capsys):
    pipeline(run=succeed)
    assert main(["import", "http://x/y", "t", "--receipt", "/dev/full"]) == 74
    assert "the disk was imported" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["import", "--help"], ["--version"]])
def test_a_reader_that_leaves_early_is_no_error(words):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run([sys.executable, "-m", "slipstream", *words], stdout=writing, stderr=subprocess.PIPE, timeout=30)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_closed_streams_are_no_error():
    closed = f'exec "{sys.executable}" -m slipstream import x >&- 2>&-'
    assert subprocess.run(["sh", "-c", closed], timeout=30).returncode == 64
