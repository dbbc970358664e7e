"""The target appears whole or not at all: existing, busy, interrupted, killed, full, grown, preallocated."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders import content, images, proof
from builders.images import KINDS, MIB
from command import Running, importing, slipstream
from fakes import behaviours as bad
from fakes.badhttp import BadServer
from fakes.webserver import Nginx
from tools import needs_root, tool, tree, without

DATA = content.seeded(12 * MIB, 21)


def stuck() -> BadServer:
    """Return a server of DATA whose later answers stop after 100 kB, so that an import is caught in the middle."""
    return BadServer(bad.stalling(DATA, 100_000, first=1))


def until(true: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not in {seconds} s: {what}"
        time.sleep(0.02)


def in_the_middle(server: BadServer, landing: Path) -> None:
    """Wait until an import holds its target and has asked for the body."""
    until(lambda: len(server.requests) >= 3 and bool(_holders(landing)), "an import in the middle")


def _holders(folder: Path) -> list[str]:
    """Return which processes hold something open in a directory."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            where = os.readlink(link)
        except OSError:
            continue
        if where.startswith(f"{folder}/"):
            found.append(link.parts[2])
    return found


def test_an_existing_target_is_refused_before_the_body(landing: Path) -> None:
    target = landing / "mine"
    target.write_bytes(b"precious")
    with BadServer(bad.honest(DATA)) as server:
        importing(server.url(), target).failed(73, "target-exists")
        assert len(server.requests) <= 2
    assert target.read_bytes() == b"precious"
    assert tree(landing) == ["mine"]


def test_force_replaces_an_existing_target(landing: Path) -> None:
    target = landing / "mine"
    target.write_bytes(b"precious")
    with BadServer(bad.honest(DATA)) as server:
        importing(server.url(), target, "--force").succeeded()
    assert target.read_bytes() == DATA
    assert tree(landing) == ["mine"]


def test_a_failure_with_force_leaves_what_was_there(landing: Path) -> None:
    target = landing / "mine"
    target.write_bytes(b"precious")
    with BadServer(bad.honest(DATA)) as server:
        importing(server.url(), target, "--force", "--checksum", "md5:" + "0" * 32).failed(65, "checksum-mismatch")
    assert target.read_bytes() == b"precious"
    assert tree(landing) == ["mine"]


def test_a_directory_receives_disk_img(landing: Path) -> None:
    with BadServer(bad.honest(DATA)) as server:
        outcome = importing(server.url(), landing).succeeded()
        importing(server.url(), landing).failed(73, "target-exists")
    assert (landing / "disk.img").read_bytes() == DATA
    assert tree(landing) == ["disk.img"]
    assert outcome.receipt["target"].endswith("disk.img")


def test_a_relative_target_is_meant_from_where_one_is(landing: Path) -> None:
    with BadServer(bad.honest(DATA)) as server:
        assert slipstream("import", server.url(), "here.img", cwd=landing).exit == 0
    assert (landing / "here.img").read_bytes() == DATA


def test_a_directory_that_is_not_there_is_named(landing: Path) -> None:
    with BadServer(bad.honest(DATA)) as server:
        outcome = importing(server.url(), landing / "no" / "such" / "disk.img").failed(73, "target-directory")
    assert "no/such" in outcome.err
    assert tree(landing) == []


@pytest.mark.parametrize("kind", ["dangling-link", "link-to-a-file", "fifo"])
def test_what_is_no_file_to_be_is_not_written_through(kind: str, landing: Path, tmp_path: Path) -> None:
    target, elsewhere = landing / "disk.img", tmp_path / "elsewhere"
    if kind == "fifo":
        os.mkfifo(target)
    else:
        target.symlink_to(elsewhere)
        if kind == "link-to-a-file":
            elsewhere.write_bytes(b"precious")
    with BadServer(bad.honest(DATA)) as server:
        importing(server.url(), target, timeout=20).failed(73, "target-exists", "target-unsupported")
    assert tree(landing) == ["disk.img"]
    assert not elsewhere.exists() or elsewhere.read_bytes() == b"precious"


def test_two_imports_into_one_target_do_not_meet(landing: Path) -> None:
    with stuck() as server, Running("import", server.url(), landing / "disk.img") as first:
        in_the_middle(server, landing)
        with BadServer(bad.honest(DATA)) as other:
            importing(other.url(), landing / "disk.img").failed(75, "busy")
        server.behave = bad.honest(DATA)
        assert first.process.poll() is None
        os.kill(first.pid, signal.SIGTERM)
        assert first.finish(20).exit == 75
        importing(server.url(), landing / "disk.img").succeeded()
    assert tree(landing) == ["disk.img"]


def test_two_imports_into_one_directory_under_two_names_both_land(landing: Path) -> None:
    server = BadServer(bad.honest(DATA))
    with server, Running("import", server.url(), landing / "a") as a, Running("import", server.url(), landing / "b") as b:
        assert (a.finish().exit, b.finish().exit) == (0, 0)
    assert tree(landing) == ["a", "b"]
    assert (landing / "a").read_bytes() == (landing / "b").read_bytes() == DATA


@pytest.mark.parametrize("form", ["raw", "qcow2", "qcow2.gz"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_in_the_middle_leaves_nothing_but_what_can_be_gone_on_with(
    number: signal.Signals, form: str, landing: Path, tmp_path: Path
) -> None:
    data = _as(form, tmp_path)
    with (
        BadServer(bad.stalling(data, 100_000, first=3)) as server,
        Running("import", server.url(), landing / "disk.img") as running,
    ):
        until(lambda: len(server.requests) > 3 and bool(_holders(landing)), "an import in the middle")
        children = _descendants(running.pid)
        began = time.monotonic()
        os.kill(running.pid, number)
        outcome = running.finish(20)
        assert time.monotonic() - began < 5
    outcome.failed(75, "interrupted")
    assert all(".slipstream-partial" in name for name in tree(landing))
    assert bool(tree(landing)) == (form != "qcow2.gz"), "only what is gone on with is kept"
    assert not _alive(children), "a child outlived the import"


def _as(form: str, folder: Path) -> bytes:
    raw = folder / "raw"
    raw.write_bytes(DATA)
    if form == "raw":
        return DATA
    image = images.convert(raw, KINDS["qcow2"], folder / "qcow2")
    return image.read_bytes() if form == "qcow2" else images.wrap(image, "gzip", folder / "gz").read_bytes()


def _descendants(ancestor: int) -> set[tuple[int, str]]:
    """Return the processes that a command started, directly or not: pid and start time, which together name one for good."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(status.parts[2]), fields[19]] = int(fields[1])
    family, grown = {ancestor}, True
    while grown:
        more = {pid for (pid, _), parent in parents.items() if parent in family} - family
        family, grown = family | more, bool(more)
    return {name for name in parents if name[0] in family - {ancestor}}


def _alive(names: set[tuple[int, str]]) -> list[int]:
    """Return which of these processes are still there."""
    found = []
    for pid, started in names:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[19] == started and fields[0] != "Z":
            found.append(pid)
    return found


def test_after_kill_9_nothing_is_published_and_the_next_import_works(landing: Path) -> None:
    with stuck() as server, Running("import", server.url(), landing / "disk.img") as running:
        in_the_middle(server, landing)
        os.kill(running.pid, signal.SIGKILL)
        running.process.wait(10)
    assert not (landing / "disk.img").exists()
    with BadServer(bad.honest(DATA)) as server:
        importing(server.url(), landing / "disk.img").succeeded()
    assert (landing / "disk.img").read_bytes() == DATA
    assert tree(landing) == ["disk.img"], "the next import also tidies up"


def test_qemu_img_does_not_outlive_a_killed_import(landing: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(DATA)
    image = images.convert(raw, KINDS["qcow2-extended"], tmp_path / "image")  # which is not read natively
    server = BadServer(bad.stalling(image.read_bytes(), 100_000, first=3))
    with server, Running("import", server.url(), landing / "disk.img") as running:
        until(lambda: len(server.requests) > 3 and bool(_descendants(running.pid)), "qemu-img at work")
        children = _descendants(running.pid)
        os.kill(running.pid, signal.SIGKILL)
        running.process.wait(10)
        until(lambda: not _alive(children), "the end of qemu-img", 10)
    assert not (landing / "disk.img").exists()


@pytest.fixture
def small(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of about 30 MiB of its own: tmpfs or ext4."""
    needs_root()
    folder, kind = tmp_path / "small", request.param
    folder.mkdir()
    if kind == "tmpfs":
        words = ["mount", "-t", "tmpfs", "-o", "size=30m", "none", str(folder)]
    else:
        backing = tmp_path / "small.ext4"
        with backing.open("wb") as file:
            file.truncate(34 * MIB)
        subprocess.run([tool("mkfs.ext4"), "-q", "-F", "-m", "0", backing], check=True, timeout=30)
        words = ["mount", "-o", "loop", str(backing), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    if done.returncode:
        without(f"cannot mount: {done.stderr.strip()}")
    try:
        if (folder / "lost+found").exists():
            (folder / "lost+found").rmdir()
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True, timeout=30)


BOTH = pytest.mark.parametrize("small", ["tmpfs", "ext4"], indirect=True)


@BOTH
def test_what_certainly_does_not_fit_is_refused_before_the_body(small: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(content.seeded(48 * MIB) + bytes(16 * MIB))
    image = images.convert(raw, KINDS["qcow2"], tmp_path / "qcow2").read_bytes()
    with BadServer(bad.honest(image)) as server:
        outcome = importing(server.url(), small, "--reserve", "0").failed(73, "no-space")
        asked = sum(one.range[1] + 1 - one.range[0] for one in server.requests if one.range)
    assert asked <= 4 * MIB
    assert tree(small) == []
    assert re.search(r"needed.*\d", outcome.err), outcome.said


@BOTH
@pytest.mark.parametrize("form", ["raw", "raw.gz", "qcow2.gz"])
def test_a_disk_that_fills_its_file_system_leaves_nothing(form: str, small: Path, tmp_path: Path) -> None:
    raw, scratch = tmp_path / "raw", tmp_path / "scratch"
    raw.write_bytes(content.seeded(40 * MIB) + bytes(20 * MIB))
    scratch.mkdir()
    image = images.convert(raw, KINDS["qcow2"], tmp_path / "qcow2") if form.startswith("qcow2") else raw
    data = (images.wrap(image, "gzip", tmp_path / "gz") if form.endswith("gz") else image).read_bytes()
    with BadServer(bad.honest(data)) as server:
        outcome = importing(server.url(), small, "--reserve", "0", "--scratch-dir", scratch)
    outcome.failed(73, "no-space")
    assert tree(small) == []
    assert tree(scratch) == []


@BOTH
def test_a_disk_that_just_fits_lands(small: Path) -> None:
    with BadServer(bad.honest(DATA)) as server:
        importing(server.url(), small, "--reserve", "0").succeeded()
    assert (small / "disk.img").read_bytes() == DATA


@pytest.mark.parametrize("small", ["ext4"], indirect=True)
def test_preallocation_beyond_the_space_is_refused_before_the_body(small: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(content.seeded(4 * MIB) + bytes(96 * MIB))
    image = images.convert(raw, KINDS["qcow2"], tmp_path / "qcow2").read_bytes()
    with BadServer(bad.honest(image)) as server:
        importing(server.url(), small, "--reserve", "0", "--preallocate").failed(73, "no-space")
    assert tree(small) == []
    with BadServer(bad.honest(image)) as server:
        importing(server.url(), small, "--reserve", "0").succeeded()
    proof.identical(small / "disk.img", raw, KINDS["raw"])


@pytest.mark.parametrize("form", ["raw", "qcow2", "gz"])
def test_size_grows_the_disk(form: str, nginx: Nginx, image: Callable[..., Path], landing: Path) -> None:
    served = image("qcow2" if form == "qcow2" else "raw", "gzip" if form == "gz" else None)
    outcome = importing(nginx.url(served.name), landing, "--size", "100Mi").succeeded()
    assert (landing / "disk.img").stat().st_size == 100 * MIB == outcome.receipt["virtual_size"]
    done = subprocess.run(
        [tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", landing / "disk.img", image("raw")],
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    assert proof.allocated(landing / "disk.img") < 30 * MIB


@pytest.mark.parametrize("form", ["raw", "qcow2", "gz"])
def test_shrinking_is_refused(form: str, nginx: Nginx, image: Callable[..., Path], landing: Path) -> None:
    served = image("qcow2" if form == "qcow2" else "raw", "gzip" if form == "gz" else None)
    importing(nginx.url(served.name), landing, "--size", "32Mi").failed(65, "shrink")
    assert tree(landing) == []


@pytest.mark.parametrize("form", ["raw", "qcow2", "gz"])
def test_a_disk_beyond_max_size_is_refused(form: str, nginx: Nginx, image: Callable[..., Path], landing: Path) -> None:
    served = image("qcow2" if form == "qcow2" else "raw", "gzip" if form == "gz" else None)
    importing(nginx.url(served.name), landing, "--max-size", "32Mi").failed(65, "too-large")
    assert tree(landing) == []


@pytest.mark.parametrize("form", ["raw", "qcow2", "gz"])
def test_preallocation_takes_the_whole_space(form: str, nginx: Nginx, image: Callable[..., Path], landing: Path) -> None:
    served = image("qcow2" if form == "qcow2" else "raw", "gzip" if form == "gz" else None)
    importing(nginx.url(served.name), landing, "--preallocate").succeeded()
    proof.identical(landing / "disk.img", image("raw"), KINDS["raw"])
    assert proof.allocated(landing / "disk.img") >= 64 * MIB


def test_an_unprivileged_umask_and_owner_are_kept(landing: Path) -> None:
    with BadServer(bad.honest(DATA)) as server:
        importing(server.url(), landing).succeeded()
    status = (landing / "disk.img").stat()
    assert status.st_uid == os.geteuid()
    assert status.st_nlink == 1
    assert not status.st_mode & 0o111
