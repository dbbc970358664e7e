"""Block devices as targets: nothing is lost by mistake, nothing old shines through, and a disk that is not whole never boots."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import content, images
from builders.images import KINDS, MIB, Kind
from command import Outcome, Running, importing, slipstream
from fakes import behaviours as bad
from fakes.badhttp import BadServer
from fakes.paced import Paced
from tools import needs_root, tool, tree, without

DISK = 24 * MIB
SIZE = 40 * MIB
VHD = Kind(driver="vpc", options=("subformat=dynamic", "force_size=on"))
"""Only qemu-img reads it."""
OLD = content.seeded(SIZE, 77)


@dataclass(frozen=True)
class Loop:
    """A loop device full of old random bytes, and where its journals go."""

    path: str
    file: Path
    state: Path

    @property
    def env(self) -> dict[str, str]:
        return {"SLIPSTREAM_STATE_DIR": str(self.state)}

    def bytes(self, size: int = SIZE, start: int = 0) -> bytes:
        fd = os.open(self.path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            return os.pread(fd, size, start)
        finally:
            os.close(fd)

    @property
    def head(self) -> bytes:
        return self.bytes(MIB)

    def run(self, source: str | Path, *options: str | Path) -> Outcome:
        return importing(source, self.path, *options, env=self.env)

    def holds(self, disk: bytes) -> bool:
        """True if there is this disk, and behind it nothing but zeroes."""
        there = self.bytes()
        return there[: len(disk)] == disk and not there[len(disk) :].strip(b"\0")


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    needs_root()
    file = tmp_path / "medium"
    file.write_bytes(OLD)
    made = subprocess.run([tool("losetup"), "--find", "--show", file], capture_output=True, text=True, check=False, timeout=30)
    if made.returncode:
        without(f"no loop device: {made.stderr.strip()}")
    path = made.stdout.strip()
    try:
        yield Loop(path=path, file=file, state=tmp_path / "state")
    finally:
        subprocess.run([tool("losetup"), "--detach", path], check=True, timeout=30)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a boot sector, zeroes within its first MiB and after, and an end that is data."""
    data = bytearray(content.seeded(DISK, 5))
    data[510:512] = b"\x55\xaa"
    for start, end in ((8192, 300_000), (900_000, 3 * MIB), (9 * MIB, 15 * MIB + 4096), (DISK - 100_000, DISK - 512)):
        data[start:end] = bytes(end - start)
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    path.write_bytes(data)
    return path


def form_of(kind: str, disk: Path, folder: Path) -> Path:
    if "." in kind:
        kind, _, wrapper = kind.partition(".")
        return images.wrap(form_of(kind, disk, folder), {"gz": "gzip"}.get(wrapper, wrapper), folder / "wrapped")
    if kind == "raw":
        return disk
    return images.convert(disk, VHD if kind == "vhd" else KINDS[kind], folder / "image")


@pytest.mark.parametrize("kind", ["raw", "raw.gz", "raw.xz", "qcow2", "qcow2-zlib", "vhd", "vhd.gz"])
@pytest.mark.parametrize("remote", [True, False], ids=["http", "file"])
def test_a_device_full_of_old_bytes_holds_the_disk_and_nothing_else(
    kind: str, remote: bool, loop: Loop, disk: Path, tmp_path: Path
) -> None:
    image = form_of(kind, disk, tmp_path)
    with BadServer(bad.honest(image.read_bytes())) as server:
        outcome = loop.run(server.url() if remote else image, "--digest").succeeded()
    assert loop.holds(disk.read_bytes())
    assert outcome.receipt["target"] == loop.path
    assert outcome.receipt["virtual_size"] == outcome.receipt["allocated_size"] == DISK
    assert tree(loop.state) == []
    if kind == "vhd":
        assert "user nobody" in outcome.receipt["sandbox"]
        assert "denied" not in outcome.receipt["sandbox"]
    assert os.stat(loop.path).st_uid == 0


@pytest.mark.parametrize("size", [512, MIB - 512, MIB, MIB + 512])
@pytest.mark.parametrize("kind", ["raw", "vhd"])
def test_small_disks_land_whole(kind: str, size: int, loop: Loop, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(content.seeded(size, size))
    loop.run(form_of(kind, small, tmp_path), "--format", kind).succeeded()
    assert loop.holds(small.read_bytes())


def test_a_disk_can_be_grown_within_the_device(loop: Loop, disk: Path) -> None:
    assert loop.run(disk, "--size", str(SIZE)).succeeded().receipt["virtual_size"] == SIZE
    assert loop.holds(disk.read_bytes())


def test_an_empty_disk_is_empty(loop: Loop) -> None:
    loop.run("blank:", "--size", "30Mi").succeeded()
    assert loop.holds(b"")


@pytest.mark.parametrize("kind", ["raw", "raw.gz", "qcow2"])
def test_a_device_that_is_too_small_is_refused_and_not_touched(kind: str, loop: Loop, disk: Path, tmp_path: Path) -> None:
    with BadServer(bad.honest(form_of(kind, disk, tmp_path).read_bytes())) as server:
        outcome = importing(server.url(), loop.path, "--size", "41Mi", env=loop.env)
    outcome.failed(73, "no-space")
    assert str(41 * MIB) in outcome.err
    assert str(SIZE) in outcome.err
    assert loop.bytes() == OLD
    assert tree(loop.state) == []


def test_a_stream_that_outgrows_the_device_leaves_nothing_that_boots(loop: Loop, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(content.seeded(SIZE + 4096, 9))
    with BadServer(bad.chunked(images.wrap(large, "gzip", tmp_path / "gz").read_bytes())) as server:
        loop.run(server.url()).failed(73, "no-space")
    assert loop.head == bytes(MIB)


@pytest.mark.parametrize("kind", ["raw", "raw.gz", "qcow2", "vhd"])
def test_a_wrong_checksum_leaves_nothing_that_boots(kind: str, loop: Loop, disk: Path, tmp_path: Path) -> None:
    image = form_of(kind, disk, tmp_path)
    loop.run(image, "--checksum", "md5:" + "0" * 32).failed(65, "checksum-mismatch")
    assert loop.head == bytes(MIB)
    assert tree(loop.state) == []
    loop.run(image).succeeded()
    assert loop.holds(disk.read_bytes())


def test_a_device_that_holds_something_is_overwritten_only_by_force(loop: Loop, disk: Path) -> None:
    subprocess.run([tool("mkfs.ext4"), "-q", "-F", loop.path], check=True, timeout=60)
    before = loop.bytes()
    outcome = loop.run(disk)
    outcome.failed(73, "target-exists")
    assert "ext file system" in outcome.err
    assert "--force" in outcome.err
    assert loop.bytes() == before
    said = slipstream("inspect", disk, "--for", loop.path, env=loop.env)
    assert "ext file system" in said.out
    loop.run(disk, "--force").succeeded()
    assert loop.holds(disk.read_bytes())
    loop.run(disk).failed(73, "target-exists")


@pytest.mark.parametrize("path", ["/dev/no-such-device", "/dev/../dev/no-such-device"])
def test_a_mistyped_device_does_not_become_a_file(path: str, disk: Path) -> None:
    importing(disk, path).failed(73, "target-directory")
    assert not os.path.lexists(path)


def test_a_mounted_device_is_busy(loop: Loop, disk: Path, tmp_path: Path) -> None:
    subprocess.run([tool("mkfs.ext4"), "-q", "-F", loop.path], check=True, timeout=60)
    place = tmp_path / "place"
    place.mkdir()
    subprocess.run(["mount", loop.path, place], check=True, timeout=30)
    try:
        outcome = loop.run(disk, "--force")
    finally:
        subprocess.run(["umount", place], check=True, timeout=30)
    outcome.failed(75, "busy")
    assert f"mounted at {place}" in outcome.err


def test_a_device_that_another_process_claims_is_busy(loop: Loop, disk: Path) -> None:
    fd = os.open(loop.path, os.O_RDONLY | os.O_EXCL)
    try:
        outcome = loop.run(disk, "--force")
    finally:
        os.close(fd)
    outcome.failed(75, "busy")
    assert f"process {os.getpid()}" in outcome.err
    assert loop.bytes() == OLD


def test_a_read_only_device_is_named_so(loop: Loop, disk: Path) -> None:
    subprocess.run([tool("blockdev"), "--setro", loop.path], check=True, timeout=30)
    try:
        loop.run(disk).failed(73, "target-unsupported")
    finally:
        subprocess.run([tool("blockdev"), "--setrw", loop.path], check=True, timeout=30)
    assert loop.bytes() == OLD


def test_a_user_who_may_not_write_the_device_is_told_what_helps(loop: Loop) -> None:
    words = [tool("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"]
    python = shutil.which("python3", path="/usr/bin") or ""
    check = (
        "import os, sys; sys.path[:0] = sys.argv[2:]\n"
        "from importer.api.failure import Failure\nfrom importer.disk.landing import check\n"
        "try: check(sys.argv[1], force=True)\nexcept Failure as failure: print(failure.code, failure.render())"
    )
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*words, python, "-c", check, loop.path, root], capture_output=True, text=True, check=False, timeout=30, env=env
    )
    if "ModuleNotFoundError" in done.stderr or not python:
        without("another user cannot read this checkout")
    assert done.stdout.startswith("permission "), done.stderr
    facts = os.stat(loop.path)
    for fact in (f"uid {facts.st_uid}", f"gid {facts.st_gid}", "brw", "65534", f"sudo chown 65534 {loop.path}"):
        assert fact in done.stdout


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def killed(loop: Loop, url: str, after: Callable[[], bool]) -> None:
    with Running("import", url, loop.path, env=loop.env) as running:
        until(lambda: running.process.poll() is not None or after())
        assert running.process.poll() is None, running.finish().said
        running.kill()
        assert running.finish().exit == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["raw", "qcow2", "raw.gz", "vhd"])
def test_a_kill_in_the_middle_leaves_nothing_that_boots_and_is_gone_on_from(
    kind: str, loop: Loop, disk: Path, tmp_path: Path
) -> None:
    data = form_of(kind, disk, tmp_path).read_bytes()
    behaviour = Paced(data, rate=6 * MIB)
    with BadServer(behaviour) as server:
        for share in (2, 3):
            killed(loop, server.url(), lambda share=share: behaviour.sent > 0.35 * len(data) * share)
            assert loop.head == bytes(MIB)
        behaviour.rate, before = 100 * MIB, behaviour.sent
        outcome = loop.run(server.url()).succeeded()
    assert loop.holds(disk.read_bytes())
    assert tree(loop.state) == []
    if kind in ("raw", "qcow2"):
        assert re.search("goes on", " ".join(outcome.receipt["notes"]))
        assert behaviour.sent - before < 0.8 * len(data)


def test_a_device_that_was_used_in_between_is_begun_anew(loop: Loop, disk: Path) -> None:
    data = disk.read_bytes()
    behaviour = Paced(data, rate=6 * MIB)
    with BadServer(behaviour) as server:
        killed(loop, server.url(), lambda: behaviour.sent > 0.8 * len(data))
        subprocess.run([tool("mkfs.ext4"), "-q", "-F", loop.path], check=True, timeout=60)
        behaviour.rate = 100 * MIB
        loop.run(server.url()).failed(73, "target-exists")
        outcome = loop.run(server.url(), "--force").succeeded()
    assert outcome.receipt["bytes_resumed"] == 0
    assert loop.holds(data)


def test_another_medium_under_the_same_number_is_begun_anew(loop: Loop, disk: Path) -> None:
    data = disk.read_bytes()
    behaviour = Paced(data, rate=6 * MIB)
    with BadServer(behaviour) as server:
        killed(loop, server.url(), lambda: behaviour.sent > 0.8 * len(data))
        subprocess.run([tool("losetup"), "--detach", loop.path], check=True, timeout=30)
        loop.file.write_bytes(bytes(MIB) + OLD[MIB:])  # the first MiB is zero, as an import would leave it
        subprocess.run([tool("losetup"), loop.path, loop.file], check=True, timeout=30)
        behaviour.rate = 100 * MIB
        outcome = loop.run(server.url()).succeeded()
    assert outcome.receipt["bytes_resumed"] == 0
    assert loop.holds(data)


@pytest.mark.parametrize("kind", ["raw", "qcow2", "raw.gz", "raw.xz", "vhd"])
@pytest.mark.parametrize("count", [3, pytest.param(50, marks=pytest.mark.long)])
def test_whenever_it_is_killed_the_disk_is_whole_or_does_not_boot(
    kind: str, count: int, loop: Loop, disk: Path, tmp_path: Path
) -> None:
    chance, data = random.Random(kind), form_of(kind, disk, tmp_path).read_bytes()
    with BadServer(Paced(data, rate=len(data))) as server:  # for a second or so
        for _ in range(count):
            with Running("import", server.url(), loop.path, env=loop.env) as running:
                with suppress(subprocess.TimeoutExpired):
                    running.process.wait(0.3 + chance.uniform(0, 1.2))
                running.kill()
                outcome = running.finish()
            if loop.bytes(4096) != bytes(4096):
                assert loop.holds(disk.read_bytes()) or loop.bytes() == OLD, outcome.said
    loop.run(disk, "--force").succeeded()
    assert loop.holds(disk.read_bytes())
