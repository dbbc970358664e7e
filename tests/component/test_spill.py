"""A spill has no name, a cap, and never lies in memory."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from targets import opened
from tools import tree

from importer.api.failure import Failure
from importer.disk import space
from importer.disk.spill import Spill
from machinery.process import syscalls

MIB = 1 << 20


def test_a_spill_has_no_name_and_holds_what_was_written(tmp_path: Path) -> None:
    with Spill.open(str(tmp_path), cap=MIB) as spill:
        assert tree(tmp_path) == []
        spill.write(10, b"abc")
        buffer = memoryview(bytearray(20))
        assert spill.pread_into(8, buffer) == 5
        assert bytes(buffer[:5]) == b"\0\0abc"
        assert spill.size == 13
        spill.extend(100)
        assert (spill.size, os.fstat(spill.fd).st_size) == (100, 100)
    spill.close()


def test_a_spill_without_the_kernels_help_has_no_name_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def no_tmpfile(path: str, flags: int, mode: int = 0o777, **rest: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not here")
        return real(path, flags, mode, **rest)

    monkeypatch.setattr(os, "open", no_tmpfile)
    with Spill.open(str(tmp_path), cap=MIB) as spill:
        assert tree(tmp_path) == []
        spill.write(0, b"x")


@pytest.mark.parametrize("grow", [lambda spill: spill.write(90, b"x" * 11), lambda spill: spill.extend(101)])
def test_a_spill_beyond_its_cap_is_a_bomb(tmp_path: Path, grow: Callable[[Spill], None]) -> None:
    with Spill.open(str(tmp_path), cap=100) as spill, pytest.raises(Failure) as caught:
        grow(spill)
    assert caught.value.code == "bomb"


def test_a_spill_never_lies_in_memory(small: Path) -> None:
    with pytest.raises(Failure) as caught:
        Spill.open(str(small), cap=100)
    assert caught.value.code == "no-space"
    assert "--scratch-dir" in caught.value.hint


def test_a_spill_needs_a_directory(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        Spill.open(str(tmp_path / "no"), cap=100)
    assert caught.value.code == "target-directory"


def test_the_mount_of_a_descriptor_is_told(small: Path) -> None:
    fd = os.open(small, os.O_RDONLY)
    try:
        assert space.mount_of(fd) == space.Mount(root="/", point=str(small), kind="tmpfs")
    finally:
        os.close(fd)


def test_write_back_can_be_started_and_waited_for(tmp_path: Path) -> None:
    with opened(tmp_path / "disk") as target:
        target.write(0, b"x" * MIB)
        syscalls.sync_file_range(target.fd, 0, 0)
        syscalls.sync_file_range(target.fd, 0, MIB, wait=True)
        read, write = os.pipe()
        with pytest.raises(OSError, match="Illegal seek"):
            syscalls.sync_file_range(write, 0, 0)
        os.close(read)
        os.close(write)
