"""The target appears whole or not at all; the spill has no name; a full file system is told as such."""

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from importer.api.failure import Failure
from importer.disk import space
from importer.disk.spill import Spill
from importer.disk.target import Target, partial_name
from machinery.process import syscalls

MIB = 1 << 20
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def opened(path: Path | str, *, force: bool = False) -> Target:
    return Target.open(str(path), force=force)


def refused(path: Path | str, *, force: bool = False) -> Failure:
    with pytest.raises(Failure) as caught:
        opened(path, force=force)
    return caught.value


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


# -- publishing


def test_a_published_target_is_there_whole_and_alone(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with opened(tmp_path / "disk") as target:
            target.size_to(3 * MIB)
            target.write(MIB, b"data")
            assert names(tmp_path) == [partial_name("disk")]
            assert stat.S_IMODE(os.fstat(target.fd).st_mode) == 0o600
            target.sync()
            assert target.publish() == str(tmp_path / "disk")
    finally:
        os.umask(before)
    disk = tmp_path / "disk"
    assert names(tmp_path) == ["disk"]
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
    assert names(tmp_path) == []
    target.discard()


def test_a_directory_gets_a_disk_img(tmp_path: Path) -> None:
    with opened(tmp_path) as target:
        assert target.is_directory
        target.publish()
    assert names(tmp_path) == ["disk.img"]


def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with opened("disk") as target:
        target.publish()
    assert names(tmp_path) == ["disk"]


def test_a_target_made_by_somebody_else_meanwhile_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path / "disk") as target:
        (tmp_path / "disk").write_bytes(b"theirs")
        with pytest.raises(Failure) as caught:
            target.publish()
        assert caught.value.code == "target-exists"
    assert names(tmp_path) == ["disk"]
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
    assert names(tmp_path) == ["disk"]
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
    assert names(tmp_path) == []


def test_a_directory_moved_away_meanwhile_still_gets_its_disk(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with opened(tmp_path / "a" / "disk") as target:
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").mkdir()
        target.publish()
    assert (names(tmp_path / "a"), names(tmp_path / "b")) == ([], ["disk"])


def test_a_very_long_name_has_a_partial_too(tmp_path: Path) -> None:
    name = "d" * 250
    with opened(tmp_path / name) as target:
        assert len(names(tmp_path)[0]) <= 255
        target.publish()
    assert names(tmp_path) == [name]


# -- refusing


def test_an_existing_file_is_refused_and_replaced_with_force(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"old")
    assert refused(disk).code == "target-exists"
    with opened(disk, force=True) as target:
        target.write(0, b"new!")
        assert disk.read_bytes() == b"old"
        target.publish()
    assert names(tmp_path) == ["disk"]
    assert disk.read_bytes() == b"new!"


def test_a_failed_import_with_force_keeps_the_old_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"old")
    with opened(disk, force=True) as target:
        target.write(0, b"new!")
    assert disk.read_bytes() == b"old"
    assert names(tmp_path) == ["disk"]


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, force: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "volume" / "disk.img").mkdir(parents=True)
    before = names(tmp_path)
    assert refused(tmp_path / "pipe", force=force).code == "target-unsupported"
    assert refused("/dev/null", force=force).code == "target-unsupported"
    assert refused(tmp_path / "volume", force=force).code == "target-unsupported"
    assert refused(tmp_path / "link", force=force).code == ("target-unsupported" if force else "target-exists")
    assert names(tmp_path) == before


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
    assert names(tmp_path) == ["old"]


def as_ordinary_user(code: str) -> str:
    """Run `code` as user 1234 and return what it prints."""
    program = f"import os; os.setgroups([]); os.setgid(1234); os.setuid(1234)\n{code}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    return ended.stdout


@root
def test_a_directory_of_somebody_else_is_a_matter_of_permission(tmp_path: Path) -> None:
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


# -- the partial


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
    assert names(tmp_path) == []


@root
def test_what_a_killed_import_had_lent_to_nobody_is_taken_back(tmp_path: Path) -> None:
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
    assert names(tmp_path) == ["disk"]


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
    assert names(tmp_path) == [place.name, "victim"]


@root
def test_a_partial_of_another_user_is_not_written(tmp_path: Path) -> None:
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
    assert names(tmp_path) == []


def test_a_partial_exchanged_by_somebody_else_is_not_removed(tmp_path: Path) -> None:
    with opened(tmp_path / "disk", force=True) as target:
        place = tmp_path / partial_name("disk")
        place.rename(tmp_path / "aside")
        place.write_bytes(b"theirs")
        with pytest.raises(Failure, match="exchanged"):
            target.publish()
    assert place.read_bytes() == b"theirs"
    assert not (tmp_path / "disk").exists()


# -- space


def test_a_full_file_system_is_no_space(small: Path) -> None:
    with opened(small / "disk") as target:
        target.size_to(64 * MIB)
        with pytest.raises(Failure) as caught:
            target.write(0, bytes(8 * MIB))
        assert (caught.value.code, int(caught.value.exit)) == ("no-space", 73)
    assert names(small) == []


def test_a_preallocation_that_does_not_fit_is_no_space(small: Path) -> None:
    with opened(small / "disk") as target, pytest.raises(Failure) as caught:
        target.size_to(64 * MIB, preallocate=True)
    assert caught.value.code == "no-space"
    assert names(small) == []


def test_a_preallocated_disk_has_all_its_blocks(tmp_path: Path) -> None:
    with opened(tmp_path / "disk") as target:
        target.size_to(3 * MIB, preallocate=True)
        assert target.allocated() >= 3 * MIB
        target.size_to(0, preallocate=True)


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


# -- spills


def test_a_spill_has_no_name_and_holds_what_was_written(tmp_path: Path) -> None:
    with Spill.open(str(tmp_path), cap=MIB) as spill:
        assert names(tmp_path) == []
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
        assert names(tmp_path) == []
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
