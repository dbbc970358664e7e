"""qemu-img converts an image that it reads over NBD into the raw disk that it writes by descriptor.

It never sees a URL or a path: only two descriptors, and an image whose headers were judged before. Where the
machine allows it runs as nobody, without network, in bounded memory; the result says what was in force.
"""

import asyncio
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType

from importer.api.failure import Failure
from importer.disk.image import Format
from importer.disk.space import SpaceGuard
from importer.disk.standstill import Signs, Standstill
from importer.disk.tool_part import ToolPart
from machinery.process import cgroup, child, confine, syscalls, vitals

TOOL = "qemu-img"
MEMORY = 1 << 30
"""Bytes the tool may use where a control group can be had, page cache of the target included."""
TICK_SECONDS = 0.25
VERSION_SECONDS = 10.0
EVIDENCE = 1000

_DRIVERS: Mapping[Format, Mapping[str, object]] = MappingProxyType(
    {
        # backing null: were there a backing file in spite of the quarantine, qemu must not open it
        Format.QCOW2: {"driver": "qcow2", "backing": None},
        Format.VMDK: {"driver": "vmdk", "backing": None},
        # else qemu computes the size from cylinders and heads for some makers, and may cut the disk's end off
        Format.VHD: {"driver": "vpc", "force_size_calc": "current_size"},
        Format.VHDX: {"driver": "vhdx"},
        Format.VDI: {"driver": "vdi"},
    }
)
_NO_MEMORY = ("cannot allocate memory", "failed to allocate", "could not allocate", "out of memory")
_FULL = ("no space left on device", "disk quota exceeded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """How to tell that the tool gets on, and for how long to wait where it does not."""

    served: Callable[[], int]
    """Returns how many reads of the image the tool has asked for."""
    held: Callable[[], bool]
    """Returns True while one of them waits for its bytes."""
    give_up_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """What a conversion was like."""

    sandbox: str
    """What confined the tool, for the receipt."""
    seconds: float


def convert_argv(
    *, format: Format, nbd_fd: int, part: ToolPart, compressed: bool, direct: bool, coroutines: int = 16
) -> list[str]:
    """Return the command that converts what the NBD server at `nbd_fd` exports, or a part of it, into the file that `part` names.

    The target has its full length and reads as zeroes. `direct` writes around the page cache: worth it for
    uncompressed images and harmful for compressed ones, whose clusters come in small pieces. KeyError for raw.
    """
    server = {"driver": "nbd", "server": {"type": "fd", "str": str(nbd_fd)}}
    image: dict[str, object] = {**_DRIVERS[format], "file": server}
    if part.span is not None:
        start, end = part.span
        image = {"driver": "raw", "offset": start, "size": end - start, "file": image}
    source = json.dumps(image, separators=(",", ":"))
    cache = "none" if direct and not compressed else "writeback"
    flags = ["-n", "--target-is-zero", "-W", "-m", str(coroutines), "-t", cache]
    return [TOOL, "convert", *flags, *_output(part, f"json:{source}")]


def _output(part: ToolPart, source: str) -> list[str]:
    """Return the last words of the command."""
    target = f"/dev/fd/{part.fd}"
    if part.span is None:
        return ["-O", "raw", source, target]
    driver = "host_device" if part.device else "file"
    start, end = part.span
    place = f"driver=raw,offset={start},size={end - start},file.driver={driver},file.filename={target}"
    return ["--target-image-opts", source, place]


async def convert(
    *,
    format: Format,
    nbd_fd: int,
    part: ToolPart,
    compressed: bool,
    direct: bool,
    guard: SpaceGuard | None = None,
    pulse: Pulse | None = None,
    confinement: confine.Confinement | None = None,
) -> ConvertResult:
    """Convert, watched over by `guard` and `pulse`, in `confinement` (None: the strictest that works here).

    Raises Failure: "tool-missing", "tool-limit", "tool-failed", "no-space", or "corrupt" with what the tool said; the
    caller, whose NBD server the tool read from, may know a better cause. The tool has ended in any case.
    """
    if shutil.which(TOOL) is None:
        raise Failure("tool-missing", f"{TOOL} is not installed")
    found, notes = (confinement, ()) if confinement else await confine.available()
    began = time.monotonic()
    with _lent(part.fd, found) as lent, cgroup.group(cgroup.find(), MEMORY) as group:
        if found.user and not lent:
            found = replace(found, user=False)
            notes = (*notes, "user nobody denied: the file system does not let the target change its owner")
        command = convert_argv(format=format, nbd_fd=nbd_fd, part=part, compressed=compressed, direct=direct)
        async with child.Child(confine.wrap(command, found), pass_fds=(nbd_fd, part.fd)) as tool:
            limited = group is not None and _add(group, tool.pid)
            ended = await _watched(tool, part.fd, guard, pulse, push=compressed or not direct)
            killed = group is not None and group.killed()
    if ended.returncode != 0:
        raise verdict(ended, out_of_memory=killed)
    memory = (f"memory {MEMORY >> 20} MiB by control group",) if limited else ()
    return ConvertResult(sandbox="; ".join((found.describe(), *memory, *notes)), seconds=time.monotonic() - began)


def verdict(ended: child.Ended, *, out_of_memory: bool = False) -> Failure:
    """Say what a failed run of the tool means."""
    said = ended.errors.lower()
    evidence = ended.errors.strip()[-EVIDENCE:]
    if out_of_memory or any(words in said for words in _NO_MEMORY) or (ended.signal and ended.signal.name == "SIGABRT"):
        return Failure("tool-limit", f"{TOOL} ran into the memory limit set for it", tool_said=evidence)
    if any(words in said for words in _FULL):
        return Failure("no-space", "the file system filled up while the disk was written", tool_said=evidence)
    if ended.signal:
        return Failure("tool-failed", f"{TOOL} was ended by {ended.signal.name}", tool_said=evidence)
    if ended.returncode in (126, 127):
        return Failure("tool-missing", f"{TOOL} could not be started", tool_said=evidence)
    return Failure("corrupt", f"{TOOL} could not read the image", tool_said=evidence, exit_status=ended.returncode)


async def version() -> str:
    """Return the tool's version, such as "7.2.22". Raises Failure("tool-missing" | "tool-failed")."""
    try:
        ended = await child.run([TOOL, "--version"], seconds=VERSION_SECONDS)
    except FileNotFoundError as error:
        raise Failure("tool-missing", f"{TOOL} is not installed") from error
    except (OSError, TimeoutError) as error:
        raise Failure("tool-failed", f"{TOOL} does not run", reason=error or "no answer") from error
    words = ended.output.split()
    if ended.returncode or words[:2] != [TOOL, "version"]:
        raise Failure("tool-failed", f"{TOOL} does not tell its version", tool_said=ended.errors.strip()[-EVIDENCE:])
    return words[2]


async def _watched(tool: child.Child, fd: int, guard: SpaceGuard | None, pulse: Pulse | None, *, push: bool) -> child.Ended:
    """Wait for the tool; meanwhile look at the space and its pulse and, with `push`, have what it wrote go to the device.

    Without that nothing is written back before the final fsync, which then takes all the time again.
    """
    waiting = asyncio.create_task(tool.wait())
    watch = Standstill(pulse.give_up_seconds) if pulse is not None else None
    try:
        while not (await asyncio.wait([waiting], timeout=TICK_SECONDS))[0]:
            if guard is not None:
                guard.check()
            if pulse is not None and watch is not None:
                _feel(tool.pid, pulse, watch)
            if push:
                await _push(fd)
        return waiting.result()
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


def _feel(pid: int, pulse: Pulse, watch: Standstill) -> None:
    """Raise Failure("tool-failed") for a tool that does nothing, though nothing holds it up. CPU time is no progress."""
    seen = vitals.look(pid)
    signs = Signs(served=pulse.served(), moved=seen.moved, held=pulse.held() or seen.blocked)
    if watch.hopeless(time.monotonic(), signs):
        raise Failure(
            "tool-failed",
            f"{TOOL} neither read nor wrote anything for too long",
            seconds=pulse.give_up_seconds,
            reads=signs.served,
        )


async def _push(fd: int) -> None:
    """Start write-back of the whole file in a thread; not left before the thread is done, for the caller may close `fd`."""
    pushing = asyncio.ensure_future(asyncio.to_thread(_start_writeback, fd))
    try:
        await asyncio.shield(pushing)
    finally:
        while not pushing.done():
            await asyncio.wait([pushing])


def _start_writeback(fd: int) -> None:
    try:
        syscalls.sync_file_range(fd, 0, 0)
    except OSError as error:
        raise Failure("io", "the file system failed while the disk was written", reason=os.strerror(error.errno or 0)) from error


def _add(group: cgroup.Group, pid: int) -> bool:
    try:
        group.add(pid)
    except OSError:
        return False  # it has ended already, or the group takes nobody: the address space is limited in any case
    return True


@contextmanager
def _lent(fd: int, confinement: confine.Confinement) -> Iterator[bool]:
    """Let nobody own the file while the tool runs as nobody: it opens it anew, and the mode lets only the owner.

    Yields False where the file system refuses. Meanwhile another process of user nobody could open the file too.
    """
    if not confinement.user:
        yield False
        return
    before = os.fstat(fd)
    if stat.S_ISBLK(before.st_mode):  # never the node in /dev: a kill would leave it nobody's
        yield before.st_uid == confine.NOBODY
        return
    try:
        os.fchown(fd, confine.NOBODY, -1)
    except OSError:
        yield before.st_uid == confine.NOBODY
        return
    try:
        yield True
    finally:
        os.fchown(fd, before.st_uid, -1)
