"""Archives into directories: what GNU tar makes arrives as it is, hostile ones leave nothing behind, and nothing gets out."""

import gzip
import hashlib
import io
import lzma
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from command import Outcome, Running, importing
from fakes.webserver import Nginx

from importer.api.failure import Failure
from importer.disk.staging import NAME, Staging
from machinery.process import syscalls

ARCHIVE = ("--content", "archive", "--reserve", "0")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    (folder / "lost+found").mkdir()
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of several sizes, links, odd modes and names."""
    root = tmp_path / "tree"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "big").write_bytes(os.urandom(3 << 20))
    (root / "empty").touch()
    (root / "deep" / ("n" * 90)).write_text("long")
    (root / "deep" / "er" / "é ü\n").write_text("odd")
    os.link(root / "big", root / "deep" / "same")
    (root / "deep" / "up").symlink_to("../big")
    (root / "deep" / "dangling").symlink_to("nowhere")
    (root / "empty").chmod(0o640)
    os.utime(root / "big", ns=(10**18, 10**18))
    (root / "deep" / "er").chmod(0o555)
    os.utime(root / "deep", ns=(10**18, 10**18))
    return root


def shape(root: Path) -> dict[str, tuple[object, ...]]:
    """Return path to mode, whole seconds of mtime, and content or link of all below a directory."""
    found = dict[str, tuple[object, ...]]()
    for path in sorted(root.rglob("*")):
        if path.name == "lost+found":
            continue
        facts = path.lstat()
        content: object = (
            os.readlink(path) if path.is_symlink() else path.is_dir() or hashlib.sha256(path.read_bytes()).hexdigest()
        )
        found[str(path.relative_to(root))] = (facts.st_mode, int(facts.st_mtime), content)
    return found


def left(target: Path) -> list[str]:
    return sorted(name for name in os.listdir(target) if name != "lost+found")


def members(*given: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in given:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def one(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info, data


def extracting(archive: Path, content: bytes, target: Path, *options: str) -> Outcome:
    archive.write_bytes(content)
    return importing(archive, target, *ARCHIVE, *options)


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar"])
@pytest.mark.parametrize("pack", ["none", "gzip", "xz", "zstd"])
def test_what_gnu_tar_packed_arrives(tree: Path, target: Path, tmp_path: Path, form: str, pack: str) -> None:
    made = subprocess.run(
        ["tar", f"--format={form}", "-C", tree, "-cf", "-", "."], check=True, capture_output=True, timeout=60
    ).stdout
    packed = {"none": bytes, "gzip": gzip.compress, "xz": lzma.compress, "zstd": zstandard.ZstdCompressor().compress}[pack](made)
    promise = f"sha256:{hashlib.sha256(packed).hexdigest()}"
    outcome = extracting(tmp_path / "a.tar", packed, target, "--checksum", promise).succeeded()
    assert shape(target) == shape(tree)
    assert (target / "big").stat().st_ino == (target / "deep" / "same").stat().st_ino
    receipt = outcome.receipt
    assert (receipt["format"], receipt["wrapper"], receipt["members"]) == ("tar", None if pack == "none" else pack, 10)
    assert receipt["verified"] == ["sha256 of --checksum"]
    assert receipt["bytes_written"] == (3 << 20) + 7
    assert NAME not in os.listdir(target)


def test_special_bits_are_dropped(target: Path, tmp_path: Path) -> None:
    content = members(one("s", mode=0o6755), one("d", tarfile.DIRTYPE, mode=0o1755))
    extracting(tmp_path / "a", content, target).succeeded()
    assert [(target / name).stat().st_mode & 0o7777 for name in "sd"] == [0o755, 0o755]


def test_the_last_of_several_members_of_one_name_counts(target: Path, tmp_path: Path) -> None:
    content = members(one("a", data=b"1"), one("b", tarfile.LNKTYPE, "a"), one("a", data=b"2"))
    extracting(tmp_path / "a", content, target).succeeded()
    assert ((target / "a").read_bytes(), (target / "b").read_bytes()) == (b"2", b"1")


def test_a_file_takes_the_place_of_a_link_and_is_not_written_through_it(target: Path, tmp_path: Path) -> None:
    content = members(one("a", data=b"1"), one("x", tarfile.SYMTYPE, "a"), one("x", data=b"2"))
    extracting(tmp_path / "a", content, target).succeeded()
    assert ((target / "a").read_bytes(), (target / "x").read_bytes()) == (b"1", b"2")


HOSTILE = {
    "absolute": (members(one("/tmp/x")), "unsafe"),
    "parent": (members(one("a/../../x")), "unsafe"),
    "fifo": (members(one("x", tarfile.FIFOTYPE)), "unsafe"),
    "device": (members(one("x", tarfile.CHRTYPE)), "unsafe"),
    "absolute link": (members(one("x", tarfile.SYMTYPE, "/etc")), "unsafe"),
    "link out": (members(one("x", tarfile.SYMTYPE, "..")), "unsafe"),
    "chain of links": (members(one("a", tarfile.SYMTYPE, "."), one("x", tarfile.SYMTYPE, "a/../..")), "unsafe"),
    "through a link": (
        members(one("d", tarfile.DIRTYPE), one("x", tarfile.SYMTYPE, "d"), one("x/y", data=b"evil")),
        "unsafe",
    ),
    "below a file": (members(one("x", data=b"1"), one("x/y", data=b"2")), "unsafe"),
    "over a directory": (members(one("x/y", data=b"1"), one("x", data=b"2")), "unsafe"),
    "hard link out": (members(one("x", tarfile.LNKTYPE, "../secret")), "unsafe"),
    "hard link to nothing": (members(one("x", tarfile.LNKTYPE, "nothing")), "unsafe"),
    "hard link to what the target holds": (members(one("x", tarfile.LNKTYPE, "lost+found/own")), "unsafe"),
    "hard link to a link": (members(one("l", tarfile.SYMTYPE, "a"), one("x", tarfile.LNKTYPE, "l")), "unsafe"),
    "truncated": (members(one("a", data=b"1" * 9000))[:5000], "truncated"),
    "no end": (members(one("a", data=b"1"))[:1024], "truncated"),
    "huge pax header": (members(one("x" * (2 << 20)), form=tarfile.PAX_FORMAT), "unsafe"),
    "no archive": (b"QFI\xfb\0\0\0\3" + bytes(4096), "not-an-archive"),
    "zeroes": (bytes(1 << 20), "not-an-archive"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_leaves_nothing(kind: str, target: Path, tmp_path: Path) -> None:
    content, code = HOSTILE[kind]
    (target / "lost+found" / "own").write_text("own")
    extracting(tmp_path / "a", content, target).failed(65, code)
    assert left(target) == []
    assert sorted(os.listdir(tmp_path)) == ["a", "target"]
    assert (target / "lost+found" / "own").stat().st_nlink == 1


def test_a_disk_image_is_named(target: Path, tmp_path: Path) -> None:
    outcome = extracting(tmp_path / "a", HOSTILE["no archive"][0], target).failed(65, "not-an-archive")
    assert "a qcow2 disk image" in outcome.err


def test_an_archive_is_no_disk_and_the_hint_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(members(one("x"))))
    outcome = importing(tmp_path / "a", tmp_path / "disk").failed(65, "not-a-disk")
    assert "--content archive" in outcome.err


def test_a_bomb_ends_at_its_header(target: Path, tmp_path: Path) -> None:
    info = tarfile.TarInfo("zeroes")
    info.size = 10 << 30
    content = gzip.compress(info.tobuf() + bytes(8 << 20))
    outcome = extracting(tmp_path / "a", content, target, "--max-size", "1Gi").failed(65, "too-large")
    assert outcome.seconds < 20
    assert left(target) == []


def test_a_conflict_is_named_before_anything_moves(target: Path, tmp_path: Path) -> None:
    (target / "b").write_text("own")
    outcome = extracting(tmp_path / "x", members(one("a"), one("b", data=b"new")), target).failed(73, "target-exists")
    assert "name: b" in outcome.err
    assert left(target) == ["b"]
    assert (target / "b").read_text() == "own"


def test_a_wrong_checksum_leaves_nothing(target: Path, tmp_path: Path) -> None:
    extracting(tmp_path / "a", members(one("a")), target, "--checksum", f"md5:{'0' * 32}").failed(65, "checksum-mismatch")
    assert left(target) == []


def test_the_directory_must_be_there(tmp_path: Path) -> None:
    extracting(tmp_path / "a", members(one("a")), tmp_path / "none").failed(73, "target-directory")


@pytest.fixture
def halfway(target: Path) -> Iterator[Running]:
    """An import from a pipe that has brought the first of two files and waits for more."""
    with Running("import", "-", target, *ARCHIVE, stdin=subprocess.PIPE) as running:
        content = members(one("a", data=os.urandom(8 << 20)), one("b", data=b"2"))
        assert running.process.stdin is not None
        running.process.stdin.write(content[: 6 << 20])
        running.process.stdin.flush()
        yield running
        with suppress(BrokenPipeError):
            running.process.stdin.close()


def wait_for_part(target: Path, running: Running) -> None:
    for _ in range(2000):
        part = target / NAME / "tree" / "a"
        if part.exists() and part.stat().st_size:
            return
        assert running.process.poll() is None
        subprocess.run(["sleep", "0.01"], check=True, timeout=10)
    raise AssertionError("nothing was extracted")


def test_what_a_killed_import_left_is_removed_by_the_next(halfway: Running, target: Path, tmp_path: Path) -> None:
    wait_for_part(target, halfway)
    extracting(tmp_path / "x", members(one("c")), target).failed(75, "busy")
    halfway.kill()
    halfway.process.wait(10)
    assert left(target) == [NAME]
    extracting(tmp_path / "x", members(one("a", data=b"whole")), target).succeeded()
    assert left(target) == ["a"]
    assert (target / "a").read_bytes() == b"whole"


def test_a_signal_leaves_nothing(halfway: Running, target: Path) -> None:
    wait_for_part(target, halfway)
    halfway.process.terminate()
    halfway.finish(30).failed(75, "interrupted")
    assert left(target) == []


def test_an_import_that_died_while_it_moved_is_taken_back(target: Path, tmp_path: Path) -> None:
    staging = target / NAME
    (staging / "tree").mkdir(parents=True)
    (target / "a").write_text("moved")
    (target / "own").write_text("own")
    moving = {"a": (target / "a").stat().st_ino, "own": 1}
    (staging / "moving").write_text(str(moving).replace("'", '"'))
    extracting(tmp_path / "x", members(one("a", data=b"new")), target).succeeded()
    assert left(target) == ["a", "own"]
    assert (target / "a").read_bytes() == b"new"
    assert (target / "own").read_text() == "own"


def test_standard_input(tree: Path, target: Path) -> None:
    made = subprocess.run(["tar", "-C", tree, "-czf", "-", "."], check=True, capture_output=True, timeout=60).stdout
    with Running("import", "-", target, *ARCHIVE, stdin=subprocess.PIPE) as running:
        assert running.process.stdin is not None
        running.process.stdin.write(made)
        running.finish().succeeded()
    assert shape(target) == shape(tree)


@pytest.mark.parametrize(
    "options", [("--size", "1Gi"), ("--format", "raw"), ("--preallocate",), ("--force",), ("--scratch-dir", "/")]
)
def test_options_of_disks_are_refused(target: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    extracting(tmp_path / "a", members(one("a")), target, *options).failed(64, "usage")
    assert left(target) == []


def test_a_full_file_system_is_left_clean(small: Path, tmp_path: Path) -> None:
    content = members(*(one(f"{count}/{count}", data=os.urandom(1 << 20)) for count in range(8)))
    extracting(tmp_path / "a", content, small).failed(73, "no-space")
    assert left(small) == []


def test_a_move_that_fails_halfway_is_taken_back(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = Staging(str(target))
    try:
        for name in "abc":
            (target / NAME / "tree" / name).write_text("new")
        move = syscalls.move_noreplace

        def occupied(old: int, new: int, name: str) -> None:
            if name == "b":  # somebody was faster
                (target / "b").write_text("own")
            move(old, new, name)

        monkeypatch.setattr(syscalls, "move_noreplace", occupied)
        with pytest.raises(Failure) as caught:
            staging.publish()
    finally:
        staging.close()
    assert caught.value.code == "target-exists"
    assert left(target) == ["b"]
    assert (target / "b").read_text() == "own"


@pytest.mark.parametrize("packed", [False, True])
def test_over_http(tree: Path, target: Path, tmp_path: Path, packed: bool, nginx: Nginx) -> None:
    archive = nginx.folder / f"{tmp_path.name}.tar"
    subprocess.run(["tar", "-C", tree, "-czf" if packed else "-cf", archive, "."], check=True, timeout=60)
    importing(nginx.url(archive.name), target, *ARCHIVE).succeeded()
    assert shape(target) == shape(tree)
