"""The device itself: where zeroing is slow, in the moments of publishing, and what tells it from others."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import content, images
from tools import needs_root, tool, tree, without

from importer.api.failure import Failure
from importer.api.request import ImportRequest
from importer.disk import device as devices
from importer.disk import holders
from importer.disk.device import HEAD, Device
from importer.pipeline.meter import Silent
from importer.pipeline.run import run
from machinery.process import syscalls

MIB = 1 << 20
SIZE = 8 * MIB
OLD = content.seeded(SIZE, 70)
DISK = content.seeded(3 * MIB, 71)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A loop device full of old random bytes."""
    needs_root()
    monkeypatch.setenv("SLIPSTREAM_STATE_DIR", str(tmp_path / "state"))
    file = tmp_path / "medium"
    file.write_bytes(OLD)
    made = subprocess.run([tool("losetup"), "--find", "--show", file], capture_output=True, text=True, check=False, timeout=30)
    if made.returncode:
        without(f"no loop device: {made.stderr.strip()}")
    yield made.stdout.strip()
    subprocess.run([tool("losetup"), "--detach", made.stdout.strip()], check=True, timeout=30)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no device zero anything faster than by writing."""

    def refused(_fd: int, _start: int, _size: int) -> None:
        raise OSError(95, "")

    monkeypatch.setattr(syscalls, "punch_hole", refused)


def there(path: str, size: int = SIZE) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(size)


def written(path: str, *, span: int | None) -> Device:
    """Return a device to which DISK was written, with a hole of 1 MiB, and not yet published."""
    device = Device.open(path, force=False)
    device.empty()
    device.prepare(span=span)
    device.write(0, DISK[: MIB + 7])
    if not device.reads_zero:
        device.punch(MIB + 7, MIB)
    device.write_direct(2 * MIB + 7, memoryview(DISK)[2 * MIB + 7 :])
    return device


EXPECTED = DISK[: MIB + 7] + bytes(MIB) + DISK[2 * MIB + 7 :]


@pytest.mark.parametrize("span", [0, 3 * MIB, None])
def test_where_zeroing_is_slow_the_disk_is_right_and_only_what_must_be_is_zeroed(path: str, span: int | None, slow: None) -> None:
    device = written(path, span=span)
    assert device.reads_zero == (span != 0)
    device.sync()
    device.publish()
    assert there(path)[: 3 * MIB] == EXPECTED
    assert there(path)[3 * MIB :] == (OLD[3 * MIB :] if span is not None else bytes(5 * MIB))


@pytest.mark.parametrize("kind", ["raw", "gzip", "xz", "qcow2", "vhd-dynamic"])
@pytest.mark.parametrize("size", [None, 7 * MIB])
async def test_where_zeroing_is_slow_whole_imports_are_right(
    kind: str, size: int | None, path: str, slow: None, tmp_path: Path
) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(EXPECTED + bytes(3 * MIB))
    if kind in images.KINDS:
        image = images.convert(raw, images.KINDS[kind], tmp_path / "image")
    else:
        image = images.wrap(raw, kind, tmp_path / "image")
    receipt = await run(ImportRequest(source=str(image), target=path, size=size), Silent())
    there_now = there(path)
    end = size or receipt.virtual_size
    assert there_now[:end] == EXPECTED + bytes(end - 3 * MIB)
    end = -(-end // 4096) * 4096
    assert there_now[end:] == OLD[end:]
    assert any("stays as it was" in note for note in receipt.notes)


def test_where_zeroing_is_slow_that_is_said(path: str, slow: None) -> None:
    device = Device.open(path, force=False)
    device.empty()
    assert "stays as it was" in device.prepare(span=0)[0]
    device.discard()


def test_nothing_is_touched_before_it_is_prepared(path: str) -> None:
    device = Device.open(path, force=False)
    device.empty()
    device.discard()
    assert there(path) == OLD


def test_the_first_mebibyte_is_read_back_but_not_there(path: str) -> None:
    device = written(path, span=0)
    assert device.read(0, 3 * MIB) == EXPECTED
    assert device.read(MIB - 5, 10) == EXPECTED[MIB - 5 : MIB + 5]
    device.flush()
    assert there(path, HEAD) == bytes(HEAD)
    device.discard()
    assert there(path, HEAD) == bytes(HEAD)


def test_what_is_cut_off_reads_as_zeroes(path: str) -> None:
    device = written(path, span=0)
    device.cut(3 * MIB - 512, 3 * MIB)
    device.publish()
    assert there(path)[: 3 * MIB] == EXPECTED[:-512] + bytes(512)


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_kill_while_it_is_published_is_gone_on_from(path: str, writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    device = written(path, span=0)
    device.sync()
    done = 0

    class Killed(BaseException):
        pass

    class Dying(devices.DirectWriter):
        def write(self, offset: int, data: memoryview | bytes) -> None:
            nonlocal done
            if done == writes:
                super().write(offset, memoryview(data)[: len(data) // 2 // 4096 * 4096])
                raise Killed
            done += 1
            super().write(offset, data)

    dying = Dying(device.fd)
    monkeypatch.setattr(device, "_writer", dying)
    if writes < 2:
        with pytest.raises(Killed):
            device.publish()
        assert there(path, 4096) == bytes(4096)
        device.leave()
        again = Device.open(path, force=False)
        assert not again.is_new()
        again.prepare(span=0)
        assert there(path, HEAD) == bytes(HEAD)
        assert again.read(0, 3 * MIB) == EXPECTED
        again.publish()
    else:
        device.publish()
    assert there(path)[: 3 * MIB] == EXPECTED


def test_a_failure_while_it_is_published_leaves_the_first_mebibyte_zero(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = written(path, span=0)
    real, calls = os.fsync, 0

    def failing(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:  # after the first block
            raise OSError(5, "")
        real(fd)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(Failure) as caught:
        device.publish()
    assert caught.value.code == "io"
    assert there(path, HEAD) != bytes(HEAD)
    device.discard()
    assert there(path, HEAD) == bytes(HEAD)


def test_a_published_disk_is_nothing_to_go_on_from(path: str, tmp_path: Path) -> None:
    device = written(path, span=0)
    kept = device.read(0, HEAD)
    device.publish()
    assert tree(tmp_path / "state") == []
    (tmp_path / "state" / f"{device._name}.head").write_bytes(kept)  # as if it was killed before that was removed
    again = Device.open(path, force=False)
    assert again.is_new()
    again.leave()


def test_every_attachment_has_its_own_identity(path: str, tmp_path: Path) -> None:
    first, number = holders.serial(os.stat(path).st_rdev), os.stat(path).st_rdev
    assert first == holders.serial(number)
    subprocess.run([tool("losetup"), "--detach", path], check=True, timeout=30)
    subprocess.run([tool("losetup"), path, tmp_path / "medium"], check=True, timeout=30)
    assert holders.serial(number) not in ("", first)


def test_others_may_not_write_the_state_directory(path: str, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(Failure) as caught:
        Device.open(path, force=False)
    assert (caught.value.code, there(path)) == ("permission", OLD)
    assert "SLIPSTREAM_STATE_DIR" in caught.value.hint
