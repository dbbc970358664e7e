"""What a disk is until it is whole: hidden, held by one import, and nobody else's to plant."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from targets import opened, refused
from tools import needs_root, tree

from importer.api.failure import Failure
from importer.disk.target import partial_name

MIB = 1 << 20


def test_a_second_import_is_busy_and_harms_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "disk") as target:
        target.write(0, b"first")
        code = f"""
from importer.api.failure import Failure
from importer.disk.target import Target
try:
    Target.open({str(tmp_path / "disk")!r}, force=False)
except Failure as failure:
    print(failure.code, int(failure.exit))
"""
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
        assert ended.stdout == "busy 75\n"
        target.publish()
    assert (tmp_path / "disk").read_bytes() == b"first"


def test_what_a_killed_import_left_is_emptied_and_used(tmp_path: Path) -> None:
    left = tmp_path / partial_name("disk")
    left.write_bytes(b"stale" * 1000)
    left.chmod(0o644)
    with opened(tmp_path / "disk") as target:
        assert os.fstat(target.fd).st_size == 0
        assert stat.S_IMODE(os.fstat(target.fd).st_mode) == 0o600
    assert tree(tmp_path) == []


def test_what_a_killed_import_had_lent_to_nobody_is_taken_back(tmp_path: Path) -> None:
    needs_root()
    left = tmp_path / partial_name("disk")
    left.touch()
    os.chown(left, 65534, 0)
    with opened(tmp_path / "disk") as target:
        assert os.fstat(target.fd).st_uid == 0


def test_an_import_killed_while_publishing_harms_no_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"whole")
    os.link(disk, tmp_path / partial_name("disk"))
    with opened(disk, force=True):
        pass
    assert disk.read_bytes() == b"whole"
    assert tree(tmp_path) == ["disk"]


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "pipe", "directory"])
def test_what_is_planted_at_the_partial_is_neither_followed_nor_removed(tmp_path: Path, kind: str) -> None:
    victim, place = tmp_path / "victim", tmp_path / partial_name("disk")
    victim.write_bytes(b"precious")
    match kind:
        case "symlink":
            place.symlink_to(victim)
        case "dangling":
            place.symlink_to(tmp_path / "nowhere")
        case "hard link":
            place.hardlink_to(victim)
        case "pipe":
            os.mkfifo(place)
        case _:
            place.mkdir()
    failure = refused(tmp_path / "disk")
    assert failure.code == "target-unsupported"
    assert "remove it" in failure.hint
    assert victim.read_bytes() == b"precious"
    assert tree(tmp_path) == [place.name, "victim"]


def test_a_partial_of_another_user_is_not_written(tmp_path: Path) -> None:
    needs_root()
    place = tmp_path / partial_name("disk")
    place.write_bytes(b"theirs")
    os.chown(place, 1234, 1234)
    assert refused(tmp_path / "disk").code == "target-unsupported"
    assert place.read_bytes() == b"theirs"


def test_imports_that_come_and_go_share_no_file(tmp_path: Path) -> None:
    """Each opens, and removes on its way out, the same name: none may hold a file that lost its name."""
    lost: list[int] = []
    codes: set[str] = set()

    def come_and_go() -> None:
        for _ in range(60):
            try:
                with opened(tmp_path / "disk") as target:
                    if os.fstat(target.fd).st_nlink != 1:
                        lost.append(1)
            except Failure as failure:
                codes.add(failure.code)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert lost == []
    assert codes <= {"busy"}
    assert tree(tmp_path) == []


def test_a_partial_exchanged_by_somebody_else_is_not_removed(tmp_path: Path) -> None:
    with opened(tmp_path / "disk", force=True) as target:
        place = tmp_path / partial_name("disk")
        place.rename(tmp_path / "aside")
        place.write_bytes(b"theirs")
        with pytest.raises(Failure, match="exchanged"):
            target.publish()
    assert place.read_bytes() == b"theirs"
    assert not (tmp_path / "disk").exists()
