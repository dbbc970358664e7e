"""Space: a full file system is told as such, reserves are kept, holes stay holes."""

import errno
import os
from pathlib import Path

import pytest
from targets import opened
from tools import tree

from importer.api.failure import Failure
from machinery.process import syscalls

MIB = 1 << 20


def test_a_full_file_system_is_no_space(small: Path) -> None:
    with opened(small / "disk") as target:
        target.size_to(64 * MIB)
        with pytest.raises(Failure) as caught:
            target.write(0, bytes(8 * MIB))
        assert (caught.value.code, int(caught.value.exit)) == ("no-space", 73)
    assert tree(small) == []


def test_a_preallocation_that_does_not_fit_is_no_space(small: Path) -> None:
    with opened(small / "disk") as target, pytest.raises(Failure) as caught:
        target.size_to(64 * MIB, preallocate="falloc")
    assert caught.value.code == "no-space"
    assert tree(small) == []


def test_a_preallocated_disk_has_all_its_blocks(tmp_path: Path) -> None:
    with opened(tmp_path / "disk") as target:
        target.size_to(3 * MIB, preallocate="falloc")
        assert target.allocated() >= 3 * MIB
        target.size_to(0, preallocate="falloc")


def test_a_disk_beyond_what_the_file_system_can_hold_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "disk") as target, pytest.raises(Failure) as caught:
        target.size_to((1 << 63) - 1)
    assert caught.value.code == "no-space"


def test_a_volume_that_holds_only_the_disk_keeps_no_reserve(small: Path) -> None:
    (small / "lost+found").mkdir()
    with opened(small) as target:
        assert target.reserve(None) == 0
        assert target.reserve(5) == 5
        (small / "other").touch()
        assert target.reserve(None) == 4 * MIB * 5 // 100
    with opened(small / "named") as target:
        assert target.reserve(None) > 0


def test_a_directory_on_a_shared_file_system_keeps_a_reserve(tmp_path: Path) -> None:
    with opened(tmp_path) as target:
        assert target.reserve(None) > 0
        assert target.free_space() > 0


def test_punched_ranges_read_as_zeroes_and_take_no_blocks(tmp_path: Path) -> None:
    with opened(tmp_path / "disk") as target:
        target.write(0, b"x" * MIB)
        target.punch(0, MIB - 4096)
        assert os.pread(target.fd, MIB, 0) == bytes(MIB - 4096) + b"x" * 4096
        assert target.allocated() <= 64 << 10


def test_punching_falls_back_to_writing_zeroes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no holes here")

    monkeypatch.setattr(syscalls, "punch_hole", unsupported)
    with opened(tmp_path / "disk") as target:
        target.write(0, b"x" * (3 * MIB))
        target.punch(5, 2 * MIB + 7)
        assert os.pread(target.fd, 3 * MIB, 0) == b"x" * 5 + bytes(2 * MIB + 7) + b"x" * (MIB - 12)


def test_direct_writing_is_told_by_trying(tmp_path: Path) -> None:
    with opened(tmp_path / "disk") as target:
        try:
            os.close(os.open(tmp_path / "probe", os.O_RDWR | os.O_CREAT | os.O_DIRECT))
        except OSError:
            assert not target.takes_direct()
        else:
            assert target.takes_direct()


def test_a_full_disk_has_no_hole_and_reads_the_same(tmp_path: Path) -> None:
    with opened(tmp_path / "disk.img") as target:
        target.size_to(5 * MIB + 512, preallocate="full")
        target.write(MIB, b"x" * MIB)
        target.write(4 * MIB + 5, b"y")
        target.fill()
        target.sync()
        assert os.lseek(target.fd, 0, os.SEEK_HOLE) == 5 * MIB + 512
        expected = bytes(MIB) + b"x" * MIB + bytes(2 * MIB + 5) + b"y" + bytes(MIB + 506)
        assert target.read(0, 6 * MIB) == expected
