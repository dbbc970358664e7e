"""The target appears whole or not at all, and replaces nothing that it was not told to."""

import errno
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
from importer.disk.target import Target, partial_name

MIB = 1 << 20


def test_a_published_target_is_there_whole_and_alone(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with opened(tmp_path / "disk") as target:
            target.size_to(3 * MIB)
            target.write(MIB, b"data")
            assert tree(tmp_path) == [partial_name("disk")]
            assert stat.S_IMODE(os.fstat(target.fd).st_mode) == 0o600
            target.sync()
            assert target.publish() == str(tmp_path / "disk")
    finally:
        os.umask(before)
    disk = tmp_path / "disk"
    assert tree(tmp_path) == ["disk"]
    assert disk.read_bytes() == bytes(MIB) + b"data" + bytes(2 * MIB - 4)
    assert (stat.S_IMODE(disk.stat().st_mode), disk.stat().st_nlink) == (0o640, 1)
    assert disk.stat().st_blocks * 512 < MIB


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, Failure("corrupt", "x")])
def test_an_import_that_ends_early_leaves_nothing(tmp_path: Path, error: BaseException | type[BaseException] | None) -> None:
    try:
        with opened(tmp_path / "disk") as target:
            target.write(0, b"x")
            if error is not None:
                raise error
    except (KeyboardInterrupt, Failure):
        pass
    assert tree(tmp_path) == []
    target.discard()


def test_a_directory_gets_a_disk_img(tmp_path: Path) -> None:
    with opened(tmp_path) as target:
        assert target.is_directory
        target.publish()
    assert tree(tmp_path) == ["disk.img"]


def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with opened("disk") as target:
        target.publish()
    assert tree(tmp_path) == ["disk"]


def test_a_target_made_by_somebody_else_meanwhile_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path / "disk") as target:
        (tmp_path / "disk").write_bytes(b"theirs")
        with pytest.raises(Failure) as caught:
            target.publish()
        assert caught.value.code == "target-exists"
    assert tree(tmp_path) == ["disk"]
    assert (tmp_path / "disk").read_bytes() == b"theirs"


@pytest.mark.parametrize("taken", [False, True])
def test_without_links_publishing_still_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    with opened(tmp_path / "disk") as target:
        target.write(0, b"ours")
        if taken:
            (tmp_path / "disk").write_bytes(b"theirs")
            with pytest.raises(Failure, match="meanwhile"):
                target.publish()
        else:
            target.publish()
    assert tree(tmp_path) == ["disk"]
    assert (tmp_path / "disk").read_bytes() == (b"theirs" if taken else b"ours")


def test_one_of_many_who_publish_under_one_name_wins(tmp_path: Path) -> None:
    """Each has a partial of its own only here, where they come by different names of one directory."""
    targets = [opened(tmp_path / f"disk{number}") for number in range(8)]
    outcomes: list[str] = []

    def publish(target: Target) -> None:
        try:
            target._link()
            outcomes.append("made")
        except Failure as failure:
            outcomes.append(failure.code)

    for target in targets:
        target.name = "disk"
    threads = [threading.Thread(target=publish, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    for target in targets:
        target.close()
    assert sorted(outcomes) == ["made"] + ["target-exists"] * 7


@pytest.mark.parametrize("force", [False, True])
def test_a_directory_that_cannot_be_synced_leaves_no_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool) -> None:
    with opened(tmp_path / "disk", force=force) as target:
        real = os.fsync

        def failing(fd: int) -> None:
            if fd != target.fd:
                raise OSError(errno.EIO, "broken")
            real(fd)

        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(Failure) as caught:
            target.publish()
    assert caught.value.code == "io"
    assert tree(tmp_path) == []


def test_a_directory_moved_away_meanwhile_still_gets_its_disk(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with opened(tmp_path / "a" / "disk") as target:
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").mkdir()
        target.publish()
    assert (tree(tmp_path / "a"), tree(tmp_path / "b")) == ([], ["disk"])


def test_a_very_long_name_has_a_partial_too(tmp_path: Path) -> None:
    name = "d" * 250
    with opened(tmp_path / name) as target:
        assert len(tree(tmp_path)[0]) <= 255
        target.publish()
    assert tree(tmp_path) == [name]


# -- refusing


def test_an_existing_file_is_refused_and_replaced_with_force(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"old")
    assert refused(disk).code == "target-exists"
    with opened(disk, force=True) as target:
        target.write(0, b"new!")
        assert disk.read_bytes() == b"old"
        target.publish()
    assert tree(tmp_path) == ["disk"]
    assert disk.read_bytes() == b"new!"


def test_a_failed_import_with_force_keeps_the_old_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"old")
    with opened(disk, force=True) as target:
        target.write(0, b"new!")
    assert disk.read_bytes() == b"old"
    assert tree(tmp_path) == ["disk"]


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, force: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "volume" / "disk.img").mkdir(parents=True)
    before = tree(tmp_path)
    assert refused(tmp_path / "pipe", force=force).code == "target-unsupported"
    assert refused("/dev/null", force=force).code == "target-unsupported"
    assert refused(tmp_path / "volume", force=force).code == "target-unsupported"
    assert refused(tmp_path / "link", force=force).code == ("target-unsupported" if force else "target-exists")
    assert tree(tmp_path) == before


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "no" / "disk", tmp_path / "file" / "disk", f"{tmp_path}/no/", ""):
        assert refused(path).code == "target-directory"
        with pytest.raises(Failure, match="not there"):
            Target.check(str(path), force=False)


def test_checking_makes_nothing(tmp_path: Path) -> None:
    Target.check(str(tmp_path / "disk"), force=False)
    (tmp_path / "old").touch()
    with pytest.raises(Failure, match="already"):
        Target.check(str(tmp_path / "old"), force=False)
    assert tree(tmp_path) == ["old"]


def as_ordinary_user(code: str) -> str:
    """Run `code` as user 1234 and return what it prints."""
    program = f"import os; os.setgroups([]); os.setgid(1234); os.setuid(1234)\n{code}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    return ended.stdout


def test_a_directory_of_somebody_else_is_a_matter_of_permission(tmp_path: Path) -> None:
    needs_root()
    for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        directory.chmod(directory.stat().st_mode | 0o011)
    (tmp_path / "theirs").mkdir(mode=0o755)
    code = f"""
from importer.api.failure import Failure
from importer.disk.target import Target
for act in (Target.check, Target.open):
    try:
        act({str(tmp_path / "theirs" / "disk")!r}, force=False)
    except Failure as failure:
        print(failure.code, failure.evidence["uid"], "drwxr-xr-x" in failure.evidence["owner"])
"""
    assert as_ordinary_user(code) == "permission 1234 True\n" * 2
