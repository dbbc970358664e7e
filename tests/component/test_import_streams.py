"""Sources that are no objects: standard input, which comes once and at its own pace, and nothing at all."""

import fcntl
import os
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import content
from command import Outcome, Running
from tools import needs, tree

RAW = content.seeded(5 << 20, 31)
PACE = {"SLIPSTREAM_STALL_SECONDS": "0.5", "SLIPSTREAM_GIVE_UP_SECONDS": "1"}


def piped(data: bytes, *words: str | Path, env: dict[str, str] | None = None, pause: float = 0) -> Outcome:
    """Run an import of what is written into its standard input, with a pause in the middle."""
    inlet, outlet = os.pipe()
    with Running("import", "-", *words, stdin=inlet, env=env) as running, os.fdopen(outlet, "wb") as pipe:
        os.close(inlet)
        resumed = threading.Event()

        def write() -> None:
            pipe.write(data[: len(data) // 2])
            pipe.flush()
            resumed.wait(pause)
            pipe.write(data[len(data) // 2 :])
            pipe.close()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            return running.finish(60)
        finally:
            writer.join(10)


def converted(raw: Path, *words: str) -> Path:
    """Return an image of a raw disk, made by qemu-img."""
    image = raw.with_suffix(".image")
    subprocess.run(["qemu-img", "convert", "-f", "raw", *words, str(raw), str(image)], check=True, timeout=60)
    return image


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(RAW)
    return path


def test_a_raw_disk_comes_through_a_pipe(landing: Path) -> None:
    piped(RAW, landing).succeeded()
    assert (landing / "disk.img").read_bytes() == RAW


@pytest.mark.parametrize("tool", ["gzip", "xz", "zstd"])
def test_a_wrapped_disk_comes_through_a_pipe(tool: str, landing: Path) -> None:
    needs(tool)
    packed = subprocess.run([tool, "-c"], input=RAW, stdout=subprocess.PIPE, check=True, timeout=60).stdout
    piped(packed, landing).succeeded()
    assert (landing / "disk.img").read_bytes() == RAW


@pytest.mark.parametrize("words", [("-O", "qcow2"), ("-O", "qcow2", "-c"), ("-O", "vmdk"), ("-O", "vpc", "-o", "force_size=on")])
def test_an_image_that_must_seek_is_put_aside_and_said_so(words: tuple[str, ...], raw: Path, landing: Path) -> None:
    needs("qemu-img")
    outcome = piped(converted(raw, *words).read_bytes(), landing).succeeded()
    assert (landing / "disk.img").read_bytes() == RAW
    assert "a spill of up to" in outcome.err
    assert tree(landing) == ["disk.img"]


def test_silence_of_who_writes_the_pipe_is_no_fault(landing: Path) -> None:
    piped(RAW, landing, env=PACE, pause=2).succeeded()
    assert (landing / "disk.img").read_bytes() == RAW


def test_a_redirected_file_is_read_by_ranges(raw: Path, landing: Path) -> None:
    needs("qemu-img")
    with converted(raw, "-O", "qcow2").open("rb") as image, Running("import", "-", landing, stdin=image) as running:
        outcome = running.finish().succeeded()
    assert (landing / "disk.img").read_bytes() == RAW
    assert "native" in outcome.out, outcome.said


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "empty"), (b"<html><body>404</body></html>", "not-a-disk"), (b"\x1f\x8b\x08" + bytes(50), "corrupt")],
)
def test_what_is_no_disk_is_refused(data: bytes, code: str, landing: Path) -> None:
    piped(data, landing).failed(65, code, "truncated")
    assert tree(landing) == []


def test_a_promise_is_kept_or_nothing_is_left(landing: Path) -> None:
    piped(RAW, landing, "--checksum", f"sha256:{'0' * 64}").failed(65, "checksum-mismatch")
    assert tree(landing) == []


def test_a_terminal_is_no_image(landing: Path) -> None:
    leader, follower = os.openpty()
    try:
        with Running("import", "-", landing, stdin=follower) as running:
            running.finish().failed(64, "usage")
    finally:
        os.close(leader)
        os.close(follower)


def test_an_interrupt_ends_a_wait_for_the_pipe(landing: Path) -> None:
    inlet, outlet = os.pipe()
    try:
        with Running("import", "-", landing, stdin=inlet) as running:
            os.write(outlet, b"x" * 1000)
            until(lambda: _empty(inlet))
            running.process.terminate()
            running.finish(20).failed(75, "interrupted")
    finally:
        os.close(inlet)
        os.close(outlet)
    assert tree(landing) == []


def _empty(pipe: int) -> bool:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder) == 0


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something is true."""
    ticking = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        ticking.wait(0.02)
    raise AssertionError("it did not become true")


def test_an_empty_disk_has_the_size_that_was_asked_for(landing: Path) -> None:
    with Running("import", "blank:", landing, "--size", "3Gi") as running:
        running.finish().succeeded()
    facts = (landing / "disk.img").stat()
    assert (facts.st_size, facts.st_blocks) == (3 << 30, 0)


def test_an_empty_disk_can_be_preallocated(landing: Path) -> None:
    with Running("import", "blank:", landing, "--size", "3Mi", "--preallocate") as running:
        running.finish().succeeded()
    assert (landing / "disk.img").stat().st_blocks * 512 >= 3 << 20


def test_an_empty_disk_without_a_size_is_refused(landing: Path) -> None:
    with Running("import", "blank:", landing) as running:
        running.finish().failed(64, "usage")
    assert tree(landing) == []
