"""The real qemu-img, confined, fed by our NBD server, writing into a target by descriptor."""

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tools import needs, without

from importer.api.failure import Failure
from importer.disk import qemu_img
from importer.disk.image import Format
from importer.disk.space import SpaceGuard
from importer.disk.target import Target
from importer.disk.tool_part import ToolPart
from importer.pipeline import nbd
from machinery.process import child, confine

MIB = 1 << 20
KINDS = {
    "qcow2": (Format.QCOW2, ["-O", "qcow2"]),
    "qcow2 zlib": (Format.QCOW2, ["-O", "qcow2", "-c"]),
    "vmdk": (Format.VMDK, ["-O", "vmdk"]),
    "vmdk streamOptimized": (Format.VMDK, ["-O", "vmdk", "-o", "subformat=streamOptimized"]),
    "vhd": (Format.VHD, ["-O", "vpc", "-o", "force_size=on"]),
    "vhd of cylinders": (Format.VHD, ["-O", "vpc"]),
    "vhdx": (Format.VHDX, ["-O", "vhdx"]),
    "vdi": (Format.VDI, ["-O", "vdi"]),
}


@pytest.fixture(autouse=True)
def _tool() -> None:
    needs("qemu-img")


class Bytes:
    """An export of bytes in memory; `gate` holds every read back until it is set."""

    def __init__(self, data: bytes, gate: asyncio.Event | None = None) -> None:
        self.data = data
        self.gate = gate

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, length: int) -> Sequence[memoryview | bytes]:
        if self.gate is not None:
            await self.gate.wait()
        return [self.data[offset : offset + length]]

    def done(self, parts: Sequence[memoryview | bytes]) -> None:
        pass


@asynccontextmanager
async def served(export: Bytes) -> AsyncIterator[int]:
    """Serve `export`; yield the descriptor for the tool."""
    ours, theirs = socket.socketpair()
    serving = asyncio.create_task(nbd.serve(ours, export))
    with theirs:
        yield theirs.fileno()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def raw_disk(path: Path, size: int) -> Path:
    """Make a disk with some data in it."""
    with path.open("wb") as file:
        file.truncate(size)
        for number in range(16):
            file.seek(number * size // 16 // 4096 * 4096)
            file.write(os.urandom(8192) + b"text " * 10000)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Callable[..., tuple[bytes, Path]]:
    """Return (image, its raw disk) for the arguments of qemu-img convert."""

    def make(arguments: Sequence[str], size: int = 24 * MIB) -> tuple[bytes, Path]:
        raw, out = raw_disk(tmp_path / "raw", size), tmp_path / "image"
        subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", *arguments, raw, out], check=True, timeout=60)
        return out.read_bytes(), raw

    return make


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    (tmp_path / "out").mkdir()
    with Target.open(str(tmp_path / "out" / "disk"), force=False) as opened:
        yield opened


async def convert(
    data: bytes,
    target: Target,
    *,
    format: Format = Format.QCOW2,
    compressed: bool = False,
    confinement: confine.Confinement | None = None,
) -> qemu_img.ConvertResult:
    async with served(Bytes(data)) as fd, asyncio.timeout(60):
        return await qemu_img.convert(
            format=format,
            nbd_fd=fd,
            part=ToolPart(fd=target.fd),
            compressed=compressed,
            direct=target.takes_direct(),
            confinement=confinement,
        )


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_every_format_becomes_the_same_disk(
    image: Callable[..., tuple[bytes, Path]], target: Target, kind: str, compressed: bool
) -> None:
    format, arguments = KINDS[kind]
    data, raw = image(arguments)
    virtual = -(-(24 * MIB) // (4 * 17 * 512)) * 4 * 17 * 512 if kind == "vhd of cylinders" else 24 * MIB
    target.size_to(virtual)
    result = await convert(data, target, format=format, compressed=compressed)
    path = target.publish()
    assert Path(path).stat().st_uid == os.geteuid()
    assert Path(path).stat().st_size == virtual
    compared = await child.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", str(raw), path], seconds=30)
    assert compared.returncode == 0, compared.output
    found, _ = await confine.available()
    assert result.sandbox.startswith(found.describe())


async def test_a_vhd_is_as_large_as_its_footer_says_not_as_its_cylinders(
    image: Callable[..., tuple[bytes, Path]], target: Target
) -> None:
    data, raw = image(["-O", "vpc", "-o", "force_size=on,subformat=dynamic"])
    for creator in (b"vpc ", b"vbox", b"qem2"):
        changed = _with_creator(data, creator)
        target.size_to(24 * MIB)
        await convert(changed, target, format=Format.VHD)
        assert os.pread(target.fd, 24 * MIB, 0) == raw.read_bytes()
        target.size_to(0)


def _with_creator(data: bytes, creator: bytes) -> bytes:
    """Change who made a dynamic VHD in its footer and the footer's copy."""
    footer = bytearray(data[-512:])
    footer[28:32] = creator
    footer[64:68] = bytes(4)
    footer[64:68] = (~sum(footer) & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(footer) + data[512:-512] + bytes(footer)


async def test_what_it_cannot_read_is_corrupt_with_its_words(target: Target) -> None:
    target.size_to(MIB)
    with pytest.raises(Failure) as caught:
        await convert(os.urandom(MIB), target)
    assert caught.value.code == "corrupt"
    assert "qcow2" in caught.value.evidence["tool_said"]
    assert os.fstat(target.fd).st_uid == os.geteuid()


async def test_running_into_our_limit_is_not_the_images_fault(image: Callable[..., tuple[bytes, Path]], target: Target) -> None:
    data, _ = image(["-O", "qcow2", "-o", "cluster_size=2M"])
    target.size_to(24 * MIB)
    with pytest.raises(Failure) as caught:
        await convert(
            data,
            target,
            confinement=confine.Confinement(address_space=40 * MIB),  # not enough for a second thread
        )
    assert (caught.value.code, int(caught.value.exit)) == ("tool-limit", 70)


async def test_a_missing_tool_says_what_to_install(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Failure) as caught:
        await convert(b"", target)
    assert (caught.value.code, "apt-get install" in caught.value.hint) == ("tool-missing", True)
    with pytest.raises(Failure):
        await qemu_img.version()


async def test_the_version_is_a_number() -> None:
    assert (await qemu_img.version())[0].isdigit()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode:
        without("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


async def test_a_full_file_system_is_no_space(image: Callable[..., tuple[bytes, Path]], small: Path) -> None:
    data, _ = image(["-O", "qcow2"])
    with Target.open(str(small), force=False) as target:
        target.size_to(24 * MIB)
        with pytest.raises(Failure) as caught:
            await convert(data, target)
    assert caught.value.code == "no-space"
    assert list(small.iterdir()) == []


@pytest.mark.parametrize("how", ["cancelled", "guard"])
async def test_an_import_that_ends_while_it_runs_takes_the_tool_along(
    image: Callable[..., tuple[bytes, Path]], target: Target, how: str
) -> None:
    data, _ = image(["-O", "qcow2"])
    target.size_to(24 * MIB)
    async with served(Bytes(data, gate=asyncio.Event())) as fd:
        guard = SpaceGuard(lambda: 0, reserve=1) if how == "guard" else None
        task = asyncio.create_task(
            qemu_img.convert(
                format=Format.QCOW2, nbd_fd=fd, part=ToolPart(fd=target.fd), compressed=True, direct=False, guard=guard
            )
        )
        await _until_running(f"/dev/fd/{target.fd}")
        if how == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with pytest.raises(Failure, match="stay free"):
                await asyncio.wait_for(task, 10)
    assert _converting(f"/dev/fd/{target.fd}") == []
    assert os.fstat(target.fd).st_uid == os.geteuid()


def _converting(target: str) -> list[int]:
    """Children of ours that write to `target`, whatever stage of their start they are in."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid() and target.encode() in words:
            found.append(int(entry.name))
    return found


async def _until_running(target: str) -> None:
    async with asyncio.timeout(10):
        while not _converting(target):  # noqa: ASYNC110 (another process starts; nothing here could set an event)
            await asyncio.sleep(0.02)
